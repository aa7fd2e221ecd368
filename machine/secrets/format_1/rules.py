"""The secret names and patterns of format 1: the built-in rules, and those that a user adds and allows.

Nothing here knows a value.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import unquote_plus

import attrs

from machine.secrets.policy import SecretPolicy, joined

LONGEST_NAME: Final = 100
"""The length of the longest name that is considered: a longer one is a sentence."""


class Pattern(NamedTuple):
    """A pattern of text that is secret anywhere; every text that matches has one of `needles` in it."""

    name: str
    regex: re.Pattern[str]
    needles: tuple[str, ...]


def _pattern(name: str, regex: str, *needles: str) -> Pattern:
    return Pattern(name, re.compile(regex), needles)


PATTERNS: Final = (
    _pattern(
        "private_key",
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)",
        "-----BEGIN ",
    ),
    _pattern("jwt", r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}", "eyJ"),
    _pattern("aws_access_key_id", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b", "AKIA", "ASIA"),
    _pattern(
        "github_token",
        r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255})\b",
        *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    ),
    _pattern("gitlab_token", r"\bglpat-[\w-]{20,}", "glpat-"),
    _pattern(
        "slack_token",
        r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
        "xoxa-",
        "xoxb-",
        "xoxe-",
        "xoxo-",
        "xoxp-",
        "xoxr-",
        "xoxs-",
    ),
    _pattern("slack_webhook", r"\bhooks\.slack\.com/services/([A-Za-z0-9/]{20,})", "hooks.slack"),
    _pattern("stripe_key", r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{10,}", "k_live_", "k_test_"),
    _pattern("openai_key", r"\bsk-(?=[\w-]*\d)[\w-]{20,}", "sk-"),
    _pattern("google_api_key", r"\bAIza[\w-]{35}", "AIza"),
    _pattern("npm_token", r"\bnpm_[A-Za-z0-9]{36}\b", "npm_"),
    _pattern("bearer_token", r"\b[Bb]earer +((?=[A-Za-z._~+/=-]*\d)[\w.~+/=-]{16,})", "earer "),
)
"""The patterns of secrets that are recognised by their shape, anywhere in a text."""

_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

_EXACT: Final = frozenset(
    {"sessionid", "phpsessid", "bearer", "xamzsignature", "xgoogsignature"}
    | {
        f"{kind}token"
        for kind in ("access", "refresh", "auth", "api", "id", "csrf", "xsrf", "session", "user")
    }
)
_TAILS: Final = ("password", "passwd", "secret", "apikey", "secretkey", "privatekey", "accesskey")
"""Endings of secret names that are written as one word."""

_ENDS: Final = (
    ("authorization",),
    ("cookie",),
    ("password",),
    ("passwd",),
    ("pwd",),
    ("passphrase",),
    ("passcode",),
    ("secret",),
    ("token",),
    ("apikey",),
    ("api", "key"),
    ("private", "key"),
    ("secret", "key"),
    ("access", "key"),
    ("session", "key"),
    ("subscription", "key"),
    ("credential",),
    ("credentials",),
)
"""The last words of secret names, also when the name is these words written as one."""

_TOKENS_OF_A_PARSER: Final = frozenset(
    {"page", "next", "prev", "previous", "continuation", "cursor", "sync", "cancel", "cancellation"}
    | {"stop", "start", "end", "eos", "bos", "pad", "unk", "mask", "sep", "cls", "special", "per"}
)
"""Words before `token` in names that are not secret: positions in a list, and parts of a text."""

_MEMBER_NAMES: Final = re.compile(rb'"([^"\\]{1,100}+)\\*+"\s*+:')
_PAIR_NAMES: Final = re.compile(rb'\["([^"\\]{1,100}+)","')
_OPTION_NAMES: Final = re.compile(rb'"--([A-Za-z][\w-]{1,99})"')
_LONG_TAILS: Final = (re.compile(rb"_[A-Za-z0-9_]{10}"), re.compile(rb"-[A-Za-z0-9_-]{9}"))
"""The characters after `_` or `-` in the prefix of most credentials; two expressions are searched for quickly."""

_TAILED: Final = re.compile(rb"[_-]")
_LAST_WORDS: Final = (
    *(
        b"authorization",
        b"cookie",
        b"password",
        b"passwd",
        b"pwd",
        b"passphrase",
        b"passcode",
        b"secret",
        b"token",
    ),
    *(b"key", b"credential", b"credentials", b"sessionid", b"phpsessid", b"bearer", b"signature"),
)
"""The last words of a secret name before `=`."""

_IN_LINES: Final = (b"authorization", b"cookie", b"token: ", b"-key: ", b"secret: ")


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORDS.findall(name)]


@attrs.frozen
class Rules:
    """A policy, compiled for queries."""

    names: frozenset[str]
    allowed: frozenset[str]
    allowed_paths: frozenset[str]
    stable: frozenset[str]
    patterns: tuple[Pattern, ...]
    needles: tuple[tuple[bytes, tuple[bytes, ...]], ...]
    """Texts of which every match of a pattern has one, grouped by a byte that they have in common."""
    tailed: tuple[bytes, ...]
    """The same for patterns whose prefix ends with `_` or `-`."""
    last_words: tuple[bytes, ...]
    """The last words of secret names, in lower case."""
    looks_always: bool
    """True when a user's pattern could match anywhere, so that no text can be skipped without a search."""
    _known: dict[str, bool] = attrs.field(factory=dict, init=False, repr=False, eq=False)
    _raw: dict[bytes, bool] = attrs.field(factory=dict, init=False, repr=False, eq=False)

    def is_stable(self, name: str) -> bool:
        """Say whether the hash in a placeholder of this name depends on the name alone."""
        return bool(self.stable) and joined(name) in self.stable

    def is_secret(self, name: str) -> bool:
        """Say whether the text of a header, field or variable of this name is secret."""
        known = self._known.get(name)
        if known is None:
            known = self._judge(name)
            if len(self._known) < 10_000:  # noqa: PLR2004 - names come from outside, and memory is not endless
                self._known[name] = known
        return known

    def _judge(self, name: str) -> bool:
        if len(name) > LONGEST_NAME or name == "$secret":  # what makes an object a placeholder
            return False
        whole = joined(name)
        if whole in self.allowed:
            return False
        if whole in self.names:
            return True
        if name == "PWD":  # the shell's working directory
            return False
        words = _words(name)
        while words and words[-1].isdigit():
            words.pop()
        if whole in _EXACT or whole.endswith(_TAILS):
            return True
        for end in _ENDS:
            if tuple(words[-len(end) :]) == end or whole == "".join(end):
                return end != ("token",) or not _TOKENS_OF_A_PARSER.intersection(words[-2:-1])
        return False

    def may_hold(self, data: bytes) -> bool:
        """Say whether a text or encoded JSON could hold a secret name, a secret pattern or a placeholder.

        It is a cheap test before the search, and may say yes where the search finds nothing.
        """
        if self.looks_always or b"secret" in data:
            return True
        if self._names_one(_MEMBER_NAMES.findall(data)):
            return True
        if b"=" in data:
            for piece in data.lower().split(b"=")[:-1]:
                if piece.rstrip(b"0123456789[]'").endswith(self.last_words):
                    return True
        # a single byte is found in a fraction of the time, and most data lack one of these
        if b"@" in data and b"://" in data:
            return True
        if b"[" in data and b'"headers":[' in data and self._names_one(_PAIR_NAMES.findall(data)):
            return True
        if b"-" in data and b'"--' in data and self._names_one(_OPTION_NAMES.findall(data)):
            return True
        if b'"base64":' in data:
            return True
        if b" " in data and b": " in data:
            low = data.lower()
            if any(name in low for name in _IN_LINES):
                return True
        for byte, needles in self.needles:
            if byte in data and any(needle in data for needle in needles):
                return True
        if _LONG_TAILS[0].search(data) is None and _LONG_TAILS[1].search(data) is None:
            return False
        return any(needle in data for needle in self.tailed)

    def _names_one(self, names: list[bytes]) -> bool:
        raw = self._raw
        for name in names:
            known = raw.get(name)
            if known is None:
                known = self.is_secret(unquote_plus(name.decode("utf-8", "replace")))
                if len(raw) < 10_000:  # noqa: PLR2004 - as above
                    raw[name] = known
            if known:
                return True
        return False


def _by_byte(needles: Iterable[bytes]) -> tuple[tuple[bytes, tuple[bytes, ...]], ...]:
    """Return texts grouped by a byte that they contain: a rare one, not a lower-case letter, where there is one."""
    found: dict[bytes, list[bytes]] = {}
    for needle in needles:
        found.setdefault(min(re.findall(rb"[^a-z]", needle) or [needle[:1]]), []).append(needle)
    return tuple((byte, tuple(alike)) for byte, alike in found.items())


@functools.lru_cache(maxsize=64)
def rules_of(policy: SecretPolicy) -> Rules:
    """Return the rules of a policy."""
    paths = frozenset(path for path in policy.allow if path.startswith("$"))
    allowed = frozenset(joined(name) for name in policy.allow if name not in paths)
    patterns = tuple(pattern for pattern in PATTERNS if joined(pattern.name) not in allowed)
    own = tuple(Pattern("pattern", re.compile(regex), ()) for regex in policy.patterns)
    needles = [needle.encode() for pattern in patterns for needle in pattern.needles]
    return Rules(
        names=frozenset(joined(name) for name in policy.names),
        allowed=allowed,
        allowed_paths=paths,
        stable=frozenset(joined(name) for name in policy.stable),
        patterns=(*own, *patterns),
        needles=_by_byte([needle for needle in needles if not _TAILED.search(needle)]),
        tailed=tuple(needle for needle in needles if _TAILED.search(needle)),
        last_words=(
            *_LAST_WORDS,
            *(
                re.split(r"[^a-z]+", name.lower().rstrip("0123456789_-"))[-1].encode()
                for name in policy.names
            ),
        ),
        looks_always=bool(own),
    )
