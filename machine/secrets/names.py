"""The exact names whose values are secret: headers, cookies, query parameters, fields, options.

A name is split into words (`DB_PASSWORD`, `dbPassword` and `db-password` have the same two) and matched by its last
whole words, never by a part of one: `secretary` and `tokenizer` are no secrets.
"""

from __future__ import annotations

import functools
import re
from enum import Enum
from typing import Final

__all__ = [
    "HEADERS",
    "PARAMETERS",
    "Strength",
    "field_strength",
    "header_strength",
    "is_name",
    "parameter_strength",
]


class Strength(Enum):
    """How much a name says: `EXACT` names decide alone in requests, `WEAK` ones never without a strong look."""

    NONE = 0
    WEAK = 1
    LIKELY = 5
    """Of a variable or an option: decides with the look of the value, in requests too."""
    EXACT = 2
    SEVERAL = 3
    """An exact name in the plural: each member of its list or object is secret."""
    OWN = 4
    """A name that the user's policy has: it decides alone, everywhere."""


_LONGEST_SAID: Final = 64

LONGEST: Final = 100
"""No longer name is looked at: it is a sentence, not a name."""

_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

EXACT: Final = (
    *("password", "passwd", "passphrase", "passcode", "pwd", "pass word", "pass phrase", "pgpass", "psk"),
    *(f"{of} pass" for of in ("db", "user", "proxy", "smtp", "mail", "ftp", "ssh", "root", "admin", "redis")),
    *(
        f"{of} pass"
        for of in ("mysql", "pg", "postgres", "database", "auth", "login", "email", "key", "store")
    ),
    *("api key", "api token", "api secret", "api auth", "private key", "private token", "key data"),
    *("secret", "client secret", "secret key", "secret token", "secret value", "secret string", "secret id"),
    *("secret key base", "app key base64", "access key", "access key secret", "account key", "shared key"),
    *("shared access key", "storage key", "master key", "subscription key", "encryption key", "signing key"),
    *(
        "decryption key",
        "cookie secret",
        "service key",
        "service role key",
        "sas token",
        "sas key",
        "function key",
    ),
    *(
        "access token",
        "access token secret",
        "refresh token",
        "id token",
        "auth token",
        "auth key",
        "auth header",
    ),
    *("bearer token", "oauth token", "oauth token secret", "session token", "session key", "security token"),
    *("bot token", "deploy token", "personal access token", "webhook token", "csrf token", "xsrf token"),
    *(
        "csrfmiddlewaretoken",
        "authenticity token",
        "service token",
        "vault token",
        "root token",
        "login token",
    ),
    *(
        f"{of} token"
        for of in ("registry", "github", "gitlab", "gh", "npm", "pypi", "slack", "telegram", "hf")
    ),
    *(
        f"{of} token"
        for of in ("discord", "cloudflare", "heroku", "sentry", "digitalocean", "codecov", "sonar")
    ),
    *(
        f"{of} token"
        for of in ("jira", "confluence", "circle", "travis", "netlify", "vercel", "reset", "user")
    ),
    *(
        "credential",
        "client assertion",
        "code verifier",
        "phpsessid",
        "jsessionid",
        "ssh key",
        "recovery code",
    ),
    *("backup code", "unseal key", "webhook url secret", "one time password", "otp secret"),
)
"""Fields, variables and options, by their last words."""

PLURAL: Final = (
    *("passwords", "passwds", "passphrases", "passcodes", "secrets", "credentials", "api keys", "api tokens"),
    *("private keys", "secret keys", "access keys", "access tokens", "refresh tokens", "client secrets"),
    *("auth tokens", "session tokens", "bearer tokens", "recovery codes", "backup codes", "signing keys"),
    *("encryption keys", "master keys", "unseal keys"),
)
"""Names of lists and objects whose members are secret."""

WEAK: Final = (
    *("token", "session", "cookie", "cookies", "authorization", "auth", "bearer", "pass", "jwt", "tokens"),
    *("session id", "set cookie", "assertion", "auth data", "device token"),
)
"""Whole names that say something only beside a value that looks like a credential beyond doubt."""

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
        *("x-paystack-signature", "x-discourse-api-key", "api-token", "x-cloud-trace-token", "x-nf-sign"),
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
        *("client_assertion", "oauth_token", "oauth_signature", "session_id", "sessionid", "apptoken"),
    )
)
"""Query parameters whose value is a credential, in lower case."""

WEAK_PARAMETERS: Final = frozenset(("key", "token", "code", "auth", "session", "sid", "jwt"))


def _forms(names: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    return frozenset(form for name in names for form in (tuple(name.split()), (name.replace(" ", ""),)))


_EXACT: Final = _forms(EXACT)
_PLURAL: Final = _forms(PLURAL)
_WEAK: Final = _forms(WEAK)
_LONGEST_END: Final = max(map(len, _EXACT | _PLURAL))

_JOINED: Final = ("password", "passwd", "passphrase")
"""What a name written as one word may end with: `PGPASSWORD`."""


def words_of(name: str) -> tuple[str, ...]:
    """Return the words of a name in lower case, without the numbers at its end."""
    words = [word.lower() for word in _WORDS.findall(name)]
    while words and words[-1].isdigit():
        words.pop()
    return tuple(words)


@functools.lru_cache(maxsize=16384)
def field_strength(name: str) -> Strength:
    """Return how much the name of a field, a variable or an option says."""
    if len(name) > LONGEST or name == "PWD" or "__secret_" in name:  # the shell's folder; a placeholder
        return Strength.NONE
    words = words_of(name)
    if not words:
        return Strength.NONE
    ends = [words[-count:] for count in range(1, min(len(words), _LONGEST_END) + 1)]
    if words[-1].endswith(_JOINED) or any(end in _EXACT for end in ends):
        return Strength.EXACT
    if any(end in _PLURAL for end in ends):
        return Strength.SEVERAL
    if words[-1] in {"token", "pass"} and (name.isupper() or name.startswith("--")):
        return Strength.LIKELY
    return Strength.WEAK if words in _WEAK else Strength.NONE


_NAME: Final = re.compile(r"[A-Za-z_$:@-][A-Za-z_.$ -]*(?:[0-9]{1,4}[A-Za-z_.$ -]*){0,4}")


def is_name(text: str) -> bool:
    """Tell whether a text is shaped like a name: what is taken from data and said in a placeholder is no secret."""
    return len(text) <= _LONGEST_SAID and _NAME.fullmatch(text) is not None and "__secret_" not in text


def header_strength(name: str) -> Strength:
    """Return how much the name of a header field says."""
    return Strength.EXACT if name.lower() in HEADERS else Strength.NONE


def parameter_strength(name: str) -> Strength:
    """Return how much the name of a query parameter says."""
    low = name.lower()
    if low in PARAMETERS:
        return Strength.EXACT
    return Strength.WEAK if low in WEAK_PARAMETERS else field_strength(name)
