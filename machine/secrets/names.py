"""The exact names whose values are secret: headers, cookies, query parameters, fields, options.

A name is split into words (`DB_PASSWORD`, `dbPassword` and `db-password` have the same two) and matched by its last
whole words, never by a part of one: `secretary` and `tokenizer` are no secrets.
"""

from __future__ import annotations

import functools
import re
from enum import Enum
from typing import Final

from machine.secrets.header_names import (
    HEADERS,
    NO_CREDENTIALS,
    OF_LISTS,
    PARAMETERS,
    WEAK_PARAMETERS,
    is_of_header,
)


class Strength(Enum):
    """The strength of a name: `EXACT` ones decide alone in requests, `WEAK` ones need a value that looks strong."""

    NONE = 0
    WEAK = 1
    LIKELY = 5
    """A name of a variable or an option: it decides together with the look of the value, in requests too."""
    EXACT = 2
    SEVERAL = 3
    """An exact name in the plural: each member of its list or object is secret."""
    OWN = 4
    """A name that the user's policy has: it decides alone, everywhere."""


_LONGEST_SAID: Final = 64

LONGEST: Final = 100
"""The length of the longest name that is considered: a longer one is a sentence."""

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
    *(
        "backup code",
        "unseal key",
        "masterauth",
        "password confirmation",
        "hmac key",
        "rediscli auth",
        "sshpass",
        "requirepass",
        "webhook url secret",
        "one time password",
        "otp secret",
        "job token",
        "rootpw",
        "pw",
        "mnemonic phrase",
        "seed phrase",
        "recovery phrase",
        "app key",
        "secret text",
        "preshared key",
        "authentication key",
        *(
            "otp",
            "otp code",
            "totp code",
            "mfa code",
            "api sig",
            "saml response",
            "saml assertion",
            "device code",
        ),
        *("password hash", "passwort", "kennwort", "motdepasse", "contrasena", "senha", "wachtwoord"),
    ),
    *("cosmos primary key", "cosmos key", "cipher key", "aes key", "crypt key"),
    *(f"{of} pass" for of in ("imap", "pop", "sftp", "ldap", "bind", "http", "rpc", "vnc", "wifi", "ad")),
    *(f"{of} token" for of in ("identity", "authorization", "runners", "runner", "registration", "instance")),
    *(f"{of} token" for of in ("cluster", "join", "bootstrap", "management", "tenant", "sso", "ingest")),
    "token value",
    "license key",
    *(f"{of} pass" for of in ("default", "client", "keystore", "truststore", "web", "ssl", "cert", "master")),
    *(f"{of} pass" for of in ("sudo", "become", "app", "sql", "remote", "basic", "service", "jdbc")),
    *("verification token", "confirmation token", "invite token", "activation token"),
    *(
        f"{of} token"
        for of in (
            "consul",
            "nomad",
            "snyk",
            "pulumi",
            "tfe",
            "doppler",
            "fly",
            "dropbox",
            "buildkite",
            "databricks",
        )
    ),
    *(
        f"{of} token"
        for of in (
            "bitbucket",
            "artifactory",
            "nexus",
            "notion",
            "airtable",
            "shopify",
            "hubspot",
            "grafana",
            "influx",
        )
    ),
)
"""Fields, variables and options, by their last words."""

PLURAL: Final = (
    *("passwords", "passwds", "passphrases", "passcodes", "secrets", "credentials", "api keys", "api tokens"),
    *("private keys", "secret keys", "access keys", "access tokens", "refresh tokens", "client secrets"),
    *("auth tokens", "session tokens", "bearer tokens", "recovery codes", "backup codes", "signing keys"),
    *("encryption keys", "master keys", "unseal keys", "github oauth", "gitlab oauth"),
)
"""Names of lists and objects whose members are secret."""

WEAK: Final = (
    *("token", "session", "cookie", "cookies", "authorization", "auth", "bearer", "jwt", "tokens"),
    *("session id", "set cookie", "assertion", "auth data", "device token", "client token"),
    *("primary key", "secondary key", "totp"),
)
"""Names whose value is a secret only if it looks strongly like a credential (`looks_strong`)."""


def _forms(names: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    return frozenset(form for name in names for form in (tuple(name.split()), (name.replace(" ", ""),)))


_EXACT: Final = _forms(EXACT)
_PLURAL: Final = _forms(PLURAL)
_WEAK: Final = _forms(WEAK)
_LONGEST_END: Final = max(map(len, _EXACT | _PLURAL))

_WEAK_HEADERS: Final = frozenset({("token",), ("key",), ("signature",), ("auth",), ("authtoken",)})

_OF_PASSWORDS: Final = ("password", "passwd", "passphrase", "bindpw", "userpw", "dbpw", "adminpw")
_JOINED: Final = (
    *_OF_PASSWORDS,
    *("apikey", "secretkey", "accesskey", "privatekey", "accesstoken", "authtoken", "clientsecret"),
    *("apisecret", "appsecret", "sharedsecret", "consumersecret", "corpsecret"),
)
"""Endings of secret names that are written as one word: `PGPASSWORD`."""


def words_of(name: str) -> tuple[str, ...]:
    """Return the words of a name in lower case, without numbers and a last word for the encoding (`_b64`)."""
    words = [word.lower() for word in _WORDS.findall(name)]
    while words and (
        words[-1].isdigit()
        or (len(words) > 1 and words[-1] in SPELLINGS)
        or (words[-1] in REPEATED and words[-2:-1] and words[-2].endswith(_OF_PASSWORDS))
    ):
        words.pop()
    return tuple(words)


SPELLINGS: Final = frozenset(
    (
        "v",
        "b",
        "base",
        "hex",
        "pem",
        "raw",
        "plain",
        "plaintext",
        "cleartext",
        "encoded",
        "primary",
        "secondary",
    )
)
"""Last words of names that give the encoding of a value, or its number: `unseal_keys_b64`, `key_pem`."""


REPEATED: Final = frozenset(
    (
        "confirm",
        "confirmed",
        "again",
        "repeat",
        "repeated",
        "retype",
        "retyped",
        "verify",
        "new",
        "old",
        "current",
    )
)
"""Last words of names that say which of several passwords one is: `new_password_confirm`."""


_OF_JAVA: Final = re.compile(r"^-?D(?=[a-z]+\.)")
"""The prefix of a Java property on a command line: `-Dapi.key=x`."""


@functools.lru_cache(maxsize=16384)
def is_of_password(name: str) -> bool:
    """Tell whether a name is that of a password: a value that people choose, so it may look like words."""
    words = words_of(name)
    return bool(words) and (words[-1].endswith(_OF_PASSWORDS) or words[-1] in {"pwd", "pw", "pass"})


@functools.lru_cache(maxsize=16384)
def field_strength(name: str) -> Strength:
    """Return the strength of the name of a field, a variable or an option."""
    if len(name) > LONGEST or name == "PWD" or "__secret_" in name:  # the shell's folder; a placeholder
        return Strength.NONE
    words = words_of(_OF_JAVA.sub("", name))
    if not words:
        return Strength.NONE
    ends = [words[-count:] for count in range(1, min(len(words), _LONGEST_END) + 1)]
    if words[-1].endswith(_JOINED) or any(end in _EXACT for end in ends):
        return Strength.EXACT
    if any(end in _PLURAL for end in ends):
        return Strength.SEVERAL
    if words == ("pass",) or (words[-1] in {"token", "pass"} and (name.isupper() or name.startswith("--"))):
        return Strength.LIKELY
    if words in _WEAK or (words[-1] == "token" and OF_LISTS.isdisjoint(words)):
        return Strength.WEAK
    return Strength.NONE


_NAME: Final = re.compile(r"[A-Za-z_$:@-][A-Za-z_.$ -]*+(?:[0-9]{1,4}+[A-Za-z_.$ -]++){0,4}+[0-9]{0,4}")


def is_name(text: str) -> bool:
    """Tell whether a text is shaped like a name, so that it may be shown in a placeholder and is no secret."""
    return len(text) <= _LONGEST_SAID and _NAME.fullmatch(text) is not None and "__secret_" not in text


@functools.lru_cache(maxsize=4096)
def header_strength(name: str) -> Strength:
    """Return the strength of the name of a header field: it is in the list, or ends like the name of a field."""
    low = name.lower()
    if low in HEADERS:
        return Strength.EXACT
    words = words_of(name)
    if low in NO_CREDENTIALS or low.startswith("sec-"):  # `sec-websocket-key`
        return Strength.NONE
    if field_strength(name) is Strength.EXACT or is_of_header(words):
        return Strength.EXACT
    return Strength.WEAK if words in _WEAK_HEADERS else Strength.NONE


def parameter_strength(name: str) -> Strength:
    """Return the strength of the name of a query parameter."""
    low = name.lower()
    if low in PARAMETERS:
        return Strength.EXACT
    return Strength.WEAK if low in WEAK_PARAMETERS else field_strength(name)
