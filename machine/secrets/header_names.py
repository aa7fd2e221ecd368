"""The names of header fields and query parameters whose values are credentials, and words that such names end with.

`secrets/headers.py` says which part of such a header field is a secret, and where it is replaced.
"""

from __future__ import annotations

import re
from typing import Final

HEADERS: Final = frozenset(
    (
        *("authorization", "proxy-authorization", "cookie", "set-cookie", "cookie2", "set-cookie2"),
        *("x-api-key", "api-key", "apikey", "x-apikey", "x-api-token", "x-auth-token", "x-auth-key"),
        *("x-auth-email-key", "x-access-token", "access-token", "x-session-token", "x-session-id"),
        *("private-token", "job-token", "deploy-token", "x-gitlab-token", "x-vault-token", "x-consul-token"),
        *(
            "x-nomad-token",
            "x-amz-security-token",
            "x-amz-signature",
            "x-goog-api-key",
            "x-goog-iam-authorization-token",
        ),
        *("x-goog-authenticated-user-jwt", "x-shopify-access-token", "x-shopify-storefront-access-token"),
        *(
            "x-shopify-hmac-sha256",
            "x-hub-signature",
            "x-hub-signature-256",
            "x-signature",
            "x-slack-signature",
        ),
        *(
            "stripe-signature",
            "x-twilio-signature",
            "x-line-signature",
            "x-square-signature",
            "paypal-transmission-sig",
        ),
        *(
            "x-figma-token",
            "x-figma-signature",
            "x-linear-signature",
            "linear-signature",
            "x-gitea-signature",
        ),
        *(
            "x-csrf-token",
            "x-xsrf-token",
            "x-csrftoken",
            "csrf-token",
            "x-rapidapi-key",
            "x-rapidapi-proxy-secret",
        ),
        *("ocp-apim-subscription-key", "x-functions-key", "x-ms-authorization-auxiliary", "x-insert-key"),
        *("x-query-key", "x-license-key", "dd-api-key", "dd-application-key", "x-honeycomb-team"),
        *("x-algolia-api-key", "x-typesense-api-key", "x-postmark-server-token", "x-postmark-account-token"),
        *("x-sendgrid-api-key", "x-mailgun-signature", "x-parse-rest-api-key", "x-parse-master-key"),
        *("x-parse-session-token", "x-cmc_pro_api_key", "x-cg-pro-api-key", "x-mbx-apikey", "cb-access-key"),
        *(
            "cb-access-sign",
            "cb-access-passphrase",
            "ok-access-key",
            "ok-access-sign",
            "ok-access-passphrase",
        ),
        *("api-sign", "x-plex-token", "x-emby-token", "x-jenkins-token", "jenkins-crumb", "x-okta-xsrftoken"),
        *(
            "x-atlassian-token-key",
            "x-recharge-access-token",
            "x-zuora-token",
            "x-chartmogul-key",
        ),
        *(
            "x-tableau-auth",
            "x-airtable-client-secret",
            "x-elastic-api-key",
            "x-redmine-api-key",
        ),
        *(
            "x-client-secret",
            "x-app-secret",
            "x-secret",
            "x-secret-key",
            "x-token",
            "x-user-token",
            "x-service-token",
        ),
        *("x-subject-token", "x-storage-token", "circle-token", "travis-token", "fastly-key", "x-dns-token"),
        *(
            "x-auth-user-token",
            "x-auth",
            "x-authorization",
            "x-forwarded-access-token",
            "x-forwarded-authorization",
        ),
        *(
            "x-amzn-oidc-accesstoken",
            "x-bunny-signature",
            "accesskey",
            "x-contentful-key",
        ),
        *("authentication", "x-authentication", "x-webhook-secret", "x-telegram-bot-api-secret-token"),
        *("x-meili-api-key", "x-jfrog-art-api", "x-nuget-apikey", "apca-api-key-id", "apca-api-secret-key"),
        *(
            "x-finnhub-token",
            "cf-access-client-secret",
            "cf-access-token",
            "x-ibm-client-secret",
            "x-sentry-auth",
        ),
        *(
            "x-serverless-authorization",
            "x-goog-signature",
            "x-appwrite-key",
            "x-upstash-signature",
            "svix-signature",
        ),
        *(
            "webhook-signature",
            "x-zm-signature",
            "x-hubspot-signature",
            "x-hubspot-signature-v3",
            "x-razorpay-signature",
        ),
        *(
            "x-cookie",
            "x-trello-webhook",
            "x-wp-nonce",
            "x-aio-key",
            "x-mashape-key",
            "x-apisports-key",
            "x-riot-token",
            "x-trackertoken",
        ),
        *("helicone-auth", "x-hasura-admin-secret", "x-coinapi-key", "cf-access-jwt-assertion"),
        *(
            "x-paystack-signature",
            "x-discourse-api-key",
            "api-token",
            "plaid-verification",
            "x-cloud-trace-token",
            "x-nf-sign",
        ),
        *("x-anthropic-api-key", "x-openai-api-key", "xi-api-key", "x-deepl-auth-key", "x-pinecone-api-key"),
    )
)
"""Header fields whose value is a credential, in lower case."""

PARAMETERS: Final = frozenset(
    (
        *("access_token", "api_key", "apikey", "api-key", "x-api-key", "client_secret", "password", "passwd"),
        *("pwd", "secret", "auth_token", "authtoken", "refresh_token", "id_token", "private_token", "sig"),
        *("signature", "x-amz-signature", "x-amz-credential", "x-amz-security-token", "x-goog-signature"),
        *("x-goog-credential", "awsaccesskeyid", "hmac", "subscription-key", "sas", "code_verifier"),
        *(
            "client_assertion",
            "hapikey",
            "oauth_token",
            "oauth_signature",
            "session_id",
            "sessionid",
            "apptoken",
        ),
    )
)
"""Query parameters whose value is a credential, in lower case."""

WEAK_PARAMETERS: Final = frozenset(
    ("key", "token", "ticket", "code", "auth", "session", "sid", "jwt", "appid", "sign")
)


def is_of_header(words: tuple[str, ...]) -> bool:
    """Tell whether the words of a header field are those of a credential, with any vendor prefix."""
    if len(words) > _LEAST_VENDOR and words[-1] in _HASHES and words[-2] in _SIGNATURES:
        words = words[:-1]  # `x-signature-sha256`
    if len(words) < _LEAST_VENDOR:  # of a name that was in capitals, `CSRFPreventionToken`
        return bool(words) and words[0].endswith(_JOINED_HEADERS) and not _JOINED_LISTS.search(words[0])
    if words[-1] in _SIGNATURES:
        return True
    if words[-1] == "key":
        return OF_LISTS.isdisjoint(words) and _OF_DATA.isdisjoint(words)
    says = words[-1] in _OF_HEADERS or words[-1].endswith(_JOINED_HEADERS) or words[-2:] == ("session", "id")
    return says and OF_LISTS.isdisjoint(words) and not _JOINED_LISTS.search(words[-1])


_LEAST_VENDOR: Final = 2
_SIGNATURES: Final = frozenset(("signature", "sign", "sig", "hmac", "mac"))
_HASHES: Final = frozenset(("sha", "md", "ed", "rsa", "ecdsa"))
_OF_HEADERS: Final = frozenset(
    (
        "token",
        "assertion",
        "apikey",
        "session",
        "auth",
        "authorization",
        "authentication",
        "authtoken",
        "jwt",
        "passhash",
    )
)
_JOINED_HEADERS: Final = ("token", "apikey", "secret", "signature", "authorization", "sessionid")
_JOINED_LISTS: Final = re.compile("page|next|continuation|pagination|cursor|sync|scroll")
NO_CREDENTIALS: Final = frozenset({"x-ms-session-token"})
"""Header fields with the ending of a credential that are none: they say how fresh an answer must be."""

OF_LISTS: Final = frozenset(
    (
        "page",
        "continuation",
        "next",
        "previous",
        "prev",
        "cursor",
        "sync",
        "scroll",
        "delta",
        "resume",
        "list",
        "count",
        "pagination",
        *("offset", "checkpoint", "iterator", "marker", "forward", "backward", "start", "position", "search"),
        *(
            "view",
            "version",
            "change",
            "stream",
            "read",
            "idempotency",
            "request",
            "symbol",
            "in",
            "out",
            "from",
            "to",
        ),
        *("trace", "span", "correlation"),
        "cancellation",
        "fencing",
        "lock",
        "consistency",
        "snapshot",
        "watch",
        "skip",
        "no",
        "requires",
        "allow",
    )
)
"""Words that make a token no credential: it is a position in a list, or in an order of events."""

_OF_DATA: Final = frozenset(
    (
        *(
            "cache",
            "surrogate",
            "partition",
            "partitioning",
            "sort",
            "routing",
            "route",
            "idempotency",
            "dedup",
        ),
        *("deduplication", "dedupe", "foreign", "public", "row", "object", "message", "ordering", "group"),
        *(
            "grouping",
            "shard",
            "sharding",
            "bucket",
            "host",
            "lookup",
            "index",
            "correlation",
            "trace",
            "range",
        ),
        *(
            "start",
            "last",
            "hash",
            "name",
            "vary",
            "experiment",
            "feature",
            "flag",
            "record",
            "kafka",
            "limit",
        ),
        *(
            "ratelimit",
            "unique",
            "project",
            "issue",
            "order",
            "resource",
            "entity",
            "item",
            "config",
            "topic",
        ),
        *(
            "queue",
            "job",
            "task",
            "event",
            "sequence",
            "meta",
            "metadata",
            "label",
            "tag",
            "request",
            "search",
        ),
        *("translation", "primary", "session", "device", "throttle", "batch", "tracking", "aggregation"),
        *("transaction", "operation", "activity", "workflow", "run", "build", "content", "document", "file"),
    )
)
"""Words that make a key no credential: it is the key of a record, not a permission."""
