"""Words with digits that name something technical: `prime256v1`, `access_token_v2`, `my-tls-cert-2x`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_PIECES: Final = re.compile(r"[A-Z](?![A-Za-z])|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

_ALGORITHMS: Final = frozenset(
    (
        *(
            "rsa",
            "dsa",
            "ec",
            "ecc",
            "ecdsa",
            "eddsa",
            "ecdh",
            "ecdhe",
            "dh",
            "dhe",
            "ed",
            "aes",
            "des",
            "rc",
        ),
        *("sha", "md", "hmac", "pbkdf", "argon", "bcrypt", "scrypt", "crypt", "blake", "shake", "chacha"),
        *("xchacha", "poly", "hs", "rs", "es", "ps", "gcm", "cbc", "ctr", "ecb", "kw", "siv", "oaep", "pkcs"),
        *("pss", "curve", "secp", "sect", "prime", "brainpool", "brainpoolp", "nistp", "wapip", "sm", "ml"),
        *("kem", "slh", "kyber", "dilithium", "ssh", "cert", "openssh", "com", "with", "and", "enc", "bit"),
        *(
            "bits",
            "byte",
            "bytes",
            "utf",
            "iso",
            "base",
            "tls",
            "ssl",
            "dtls",
            "oauth",
            "oidc",
            "saml",
            "jwt",
        ),
        *(
            "jwe",
            "jws",
            "mtls",
            "pgp",
            "gpg",
            "ntlm",
            "ntlmv",
            "scram",
            "md4",
            "krb",
            "kerberos",
            "totp",
            "key",
        ),
        *("keys", "algorithm", "alg", "size", "sk", "sntrup", "camellia", "aria", "seed", "cmac", "gmac"),
        *(
            "id",
            "rev",
            "ver",
            "version",
            "default",
            "type",
            "usage",
            "curve25519",
            "suite",
            "sealed",
            "certificate",
            "gost",
            "tpm",
            "bls",
        ),
        *(
            "ristretto",
            "mlkem",
            "gcmkw",
            "cbchs",
            "frp",
            "numsp",
            "pnb",
            "tnb",
            "nist",
            "salsa",
            "xsalsa",
            "rfc",
            "ph",
            "ctx",
            "wtls",
            "bn",
            "mgf",
            "padding",
            "no",
            "ocb",
            "xts",
            "plain",
            "iv",
            "tag",
            "nopadding",
            "spki",
            "der",
            "pem",
        ),
    )
)
_SINGLE: Final = frozenset("abcdikprstvx")
"""Letters between the numbers of a curve or a version."""

_KNOWN: Final = _ALGORITHMS | _SINGLE
_LETTERS: Final = re.compile("[A-Za-z]+")

_META: Final = frozenset(
    (
        *("access", "account", "admin", "api", "app", "apps", "at", "auth", "authorization", "bearer", "bot"),
        *("client", "config", "cookie", "core", "credential", "credentials", "csrf", "db", "default", "demo"),
        *(
            "dev",
            "env",
            "example",
            "expired",
            "field",
            "file",
            "form",
            "grant",
            "group",
            "header",
            "hint",
            "id",
        ),
        *("input", "key", "keys", "label", "level", "login", "method", "mode", "name", "namespace", "oauth"),
        *("object", "offline", "opaque", "param", "pass", "passcode", "passphrase", "password", "passwords"),
        *(
            "placeholder",
            "min",
            "max",
            "len",
            "length",
            "chars",
            "old",
            "new",
            "current",
            "confirm",
            "expires",
            "policy",
            "private",
            "prod",
            "profile",
            "provider",
            "public",
            "query",
            "ref",
            "refresh",
        ),
        *("required", "reset", "role", "rotate", "rule", "sample", "schema", "scheme", "scope", "secret"),
        *("secrets", "service", "session", "signing", "stage", "staging", "state", "status", "step", "store"),
        *(
            "string",
            "template",
            "test",
            "text",
            "tier",
            "token",
            "tokens",
            "type",
            "user",
            "username",
            "value",
        ),
        *("var", "variable", "variant", "vault", "version", "webhook", "workspace", "your"),
        *("primary", "secondary", "legacy", "readonly", "internal", "external", "main"),
    )
)
_NUMBERED: Final = re.compile(
    r"[A-Za-z]\d{1,2}|\d{1,3}[A-Za-z]{1,2}|[vV]\d{1,3}(?:(?:alpha|beta|rc)\d{1,2})?|k8s|1password|i18n|l10n|a11y|oauth2|b64|h264"
)
_IDENTIFIER: Final = re.compile(
    r"[a-z]{2,12}(?:[A-Z][a-z]{2,12}){1,3}\d{1,2}|(?:[A-Z][a-z]{2,12}){2,4}V\d{1,2}"
)
"""A name in code with a number: `oldPassword1`, `ApiKeyV2`."""

_ENDS_WITH_NUMBER: Final = re.compile(r"([A-Za-z]{2,})\d{1,2}")


_GENERATED: Final = re.compile(r"[bcdfghjklmnpqrstvwxz2456789]{4,5}")
"""The suffix that Kubernetes adds to a name: `shop-tls-k2x9`."""


_SUFFIX: Final = re.compile(r"[a-z0-9]{4,5}")
"""The suffix that programs add to a name of several words: `app-token-2chah`."""


def is_term(value: str) -> bool:
    """Tell whether a value names an algorithm, a curve, a kind of key: `EC_P384`, `rsa-sha2-512`, `secp256r1`."""
    letters, words = _LETTERS.findall(value), _PIECES.findall(value)
    if any(len(word) > 1 for word in letters) and all(word.lower() in _KNOWN for word in letters):
        words = letters  # `NTLMv2`
    elif any(len(word) > 1 and not word.isdecimal() and word.lower() not in _ALGORITHMS for word in words):
        return False  # told by the first such word of a long value
    words = [word.lower() for word in words if not word.isdecimal()]
    said = [word for word in words if len(word) > 1 or word not in _SINGLE]
    if not said or len(said) * 3 < len(words):
        return _MONTGOMERY.fullmatch(value) is not None
    if not all(word in _ALGORITHMS for word in said):
        return False
    return all(len(digits) <= _LONGEST_SIZE for digits in re.findall(r"[0-9]+", value))


_MONTGOMERY: Final = re.compile(r"[xX](?:25519|448)")
_LONGEST_SIZE: Final = 7
_MOST_DIGITS: Final = 10
"""The most digits of a term that is written without separators: `mlkem768x25519`."""


def is_technical(words: Iterable[str]) -> bool:
    """Tell whether one of these is a word about programs and their settings."""
    return not _META.isdisjoint(map(str.lower, words))


def is_word_with_digits(piece: str, words: frozenset[str]) -> bool:
    """Tell whether a part with digits is ordinary among words: `v2`, `30d`; `password2` next to such a word."""
    if _NUMBERED.fullmatch(piece):
        return True
    parts = [part.lower() for part in _PIECES.findall(piece) if not part.isdecimal()]
    parts = parts[:-1] if parts[-1:] == ["v"] else parts  # `TokenV2`
    if parts and _META.issuperset(parts):  # `min8max64`, `YourPassword1`
        return True
    if len(words) > 1 and _SUFFIX.fullmatch(piece) and not _META.isdisjoint(words):
        return True
    if _GENERATED.fullmatch(piece) and not (_META | _ALGORITHMS).isdisjoint(words):
        return True
    ends = _ENDS_WITH_NUMBER.fullmatch(piece)
    if _IDENTIFIER.fullmatch(piece) and not _META.isdisjoint(map(str.lower, _PIECES.findall(piece))):
        return True
    if ends is not None and (ends[1].lower() in _META or not _META.isdisjoint(words)):
        return True
    return sum(map(str.isdigit, piece)) <= _MOST_DIGITS and is_term(piece)
