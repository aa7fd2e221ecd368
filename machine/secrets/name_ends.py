"""Names with the ending of a secret name in running text, and the text between them and their values."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Final

from machine.secrets.pattern_search import any_of, parts_with
from machine.secrets.redacted_text import Work

SIGN_OF_NAMES: Final = (
    r"(?i:pass|secret|token|key|pw|phrase|cred|auth|cook|sess|sig|bear|jwt|psk"
    r"|otp|mfa|saml|device.?code|kennw|ntrase|senha|htwoord|hmac|assert|verif|crumb|reco|back|fied)"
)
"""Pieces of which every secret name has one, in the syntax of RE2."""

_ALWAYS: Final = (
    *(
        r"passwords?(?:[_-]?(?:confirm(?:ed)?|again|repeat(?:ed)?|retyped?|verify|new|old|current))?",
        "passwds?",
        "passphrases?",
        "passcodes?",
        "pass",
        "pwd",
        "pw",
        "psk",
    ),
    *("secrets?", "token", r"key[_-]?base", r"key[_-]?data", "credentials?"),
    *("authorization", "authentication", "cookie"),
    *(r"secret[_-]?id", r"recovery[_-]?codes?", r"backup[_-]?codes?"),
    *("csrfmiddlewaretoken", "passwd", "otp"),
)
"""The last words of secret names; a word with a longer one behind it is tried first."""

_WEAK: Final = (
    "tokens",
    "auth",
    "cookies",
    "jwt",
    "session[_-]id",
    "sessionid",
    "session",
    "bearer",
    "assertion",
)
"""Words that, when they are the whole name, need a long value."""

_SILENT: Final = ("key", "keys", "signature", "sig", "hmac", "sessid", "verifier", "crumb")
"""Words that say nothing when they are the whole name."""

_END: Final = "[0-9]{0,4}+(?![a-z0-9])"
_LAST_WORDS: Final = any_of((*_ALWAYS, *_WEAK, *_SILENT))
_ANY_NAME: Final = any_of((*_ALWAYS, *_WEAK, *_SILENT), _END)
_WHOLE: Final = r"\"'`</>(,;&?{\[:=\n"
"""Characters before a name that is not the rest of a longer word."""

_SECOND: Final = frozenset(("auth", "assertion", "key", "sig", "verifier"))
"""Words that say more with the word before: `API key`."""

_SHORT_VALUE: Final = (
    r"(?![\"'`]?[:=][ \t]?(?:[\"'`][\w.~+/=|:-]{0,19}+[\"'`\s,;]|[\w.~+/=:-]{1,19}+(?:[\s,;)}\]]|\Z)))"
)
"""Not before a value of so few characters that a weak name makes it no secret."""


def _not_alone(word: str) -> str:
    """Return an expression that matches behind a word unless it is the whole name."""
    if word in _SECOND:
        return rf"(?<![{_WHOLE}]{word})(?<![^a-z] {word})"
    return rf"(?<![{_WHOLE} ]{word})"


_SEARCHED: Final = any_of(
    (
        *_ALWAYS,
        *(f"{word}(?:{_not_alone(word)}|{_SHORT_VALUE})" for word in _WEAK),
        *(word + _not_alone(word) for word in _SILENT),
    ),
    _END,
)
_PLAIN: Final = r"[:=][ \t]?+(?=[0-9\"'`ac-ik-prt-z])"
"""A sign before a value that begins as no longer separator goes on: it is tried first, since most are so."""

_NO_MEMBER: Final = r"(?![ \t]{0,16}+\\{0,15}+[\"'][\w.-]{1,40}+\\{0,15}+[\"'][ \t]?:)"
"""Not before the name of a further member: `"logger": "auth.session", "key": 1`."""

_SEPARATOR: Final = (
    rf"(?P<sep>{_PLAIN}|"
    r"[: \t]{0,4}+(?:</?(?:b|strong|i|em|td|th|dt|dd|code|span|tt|kbd|label)(?: [^<>]{0,100})?>"
    r"[: \t]{0,4}+){1,4}+(?=[^\s<])"
    r"|(?:\*\*|__)?+"
    r"(?:[ \t](?:is|was)[ \t][a-z]{2,20}(?=[ \t]))?"
    r"(?:[ \t](?:for|of|to|on|in|at)(?:[ \t][\w.@/-]{1,40}+){1,2}+)?(?:[ \t]{0,16}+|[ \t]{1,4}+is)"
    r"(?:=>|:=|->|\u2192|::(?=[ \t]{1,4}[A-Za-z0-9+/])"
    r"|:[ \t]?(?:&?str|string|bytes)[ \t]?=|[:=](?:(?:\*{1,2}|_{1,2})(?=[ \t]))?+)"
    r"[ \t]{0,32}+(?:<<(?=\"))?+(?:\r?\n[ \t]{1,64}+(?=\\{0,15}+[\"'\[{]|string\())?+"
    r"(?:string\([0-9]{1,6}\)[ \t]|(?:some|just|str|secret|secretstr|quote)\((?=[\"']))?+"
    r"(?:(?:&[\w.-]{1,60}+|!![a-z]{1,20}+)[ \t]{1,4}+){0,2}+"
    r"|[ \t]{1,16}+(?:value|content)[ \t]?=[ \t]?"
    r"|(?:[ \t]{1,4}+[\w:.-]{1,40}+=\"[^\"<>]{0,200}+\"){0,4}+>"
    rf"|,{_NO_MEMBER}[ \t]{{0,16}}+(?=b?\\{{0,15}}+[\"'])"
    r"|&(?:quot|#34);[ \t]?:[ \t]?&(?:quot|#34);|%3d|%22(?:%20|\+)?%3a(?:%20|\+)?%22"
    r"|</(?:key|name|param-name)>\s{0,40}+<(?:string|value|param-value)>"
    r"(?:\s{0,40}+<string>)?+"
    r"|(?P<blank>\((?=[\"'])|[ \t]{1,4}+(?:\(|-{1,2}[ \t])(?=[A-Za-z0-9])"
    r"|[ \t]{1,4}+(?:(?:for|of|to|on|in|at)(?:[ \t](?!(?:is|was)[ \t])[\w.@/-]{1,40}+){1,3}+[ \t])?+"
    r"(?:is|was|to)[ \t]{1,4}+(?=[\"'`]?[A-Za-z0-9+/])|[ \t]{1,40}+(?=[\"'`]?(?:[A-Za-z0-9+/]|\$[0-9]\$))))"
)
_NOTHING: Final = (
    r"(?P<nothing>(?=[burfn@]{0,2}+(?P<slashes>\\{0,15}+)(?P<quote>[\"'`])"
    rf"(?![^\\\"'`]{{0,3}}(?:{_LAST_WORDS}))[^\\\"'`]{{0,5}}+(?P=slashes)(?P=quote)"
    r"|(?(sign)(?!)|(?![\r\n]|[burfn@]{0,2}+\\{0,15}+[\"'`]|[|>\[{(]|<!\[cdata\[)[^\s\"'`<>]{0,5}+(?![^\s\"'`<>]))"
    r"|(?(blank)(?![burfn@]{1,2}+\\{0,15}+[\"'`])[\"'`]?+[a-z]{0,19}+(?![^\s\"'`<>])|(?!))))?"
)
"""A value that is no credential: a text in quotes or without that is too short, or a word behind a blank."""

_LONGEST_WORD: Final = 14
"""The most characters of a name before its sign: 14 in `csrfmiddlewaretoken`."""

_LONGEST_SEPARATOR: Final = 2000


def _pattern(names: str, signs: str) -> str:
    """Return an expression for one of these ends of names, and for what stands before its value."""
    return (
        rf"(?:{names})(?:\\{{0,15}}+[\"'`])?+"
        rf"(?::(?:protected|[\w\\\":]{{0,80}}private)(?=\]))?+\]?+"
        r"(?=[<>*_=:\u2192%(&-]|,[ \t]{0,16}+[b\\\"']|[ \t]++[\w<>*=:\u2192%(\"'`+/.&-])(?![ \t]++--?[a-z])"
        rf"(?P<sign>(?=[ \t]{{0,32}}+[{signs}]))?{_SEPARATOR}"
    )


@functools.cache
def _regex(*, own: bool, request: bool) -> re.Pattern[str]:
    """Return the expression for names in a request or an answer; if the user has `own` names it omits none."""
    if own:
        return re.compile(_pattern(_ANY_NAME, "=") + r"(?P<nothing>(?!))?")
    # behind one of these a short word may be part of a longer value, as in a header field, or be a value that its
    # name alone makes secret, as of a variable in a request
    return re.compile(_pattern(_SEARCHED, ":,=" if request else ":,") + _NOTHING)


def name_ends(low: str, work: Work, *, own: bool, request: bool) -> Iterator[re.Match[str]]:
    """Yield the names with the ending of a secret name, and the text between each and its value.

    Names whose value is short are left out, unless the user has names of his `own`, which need no long one.
    """
    regex = _regex(own=own, request=request)
    last = 0
    for begin, end in parts_with(SIGN_OF_NAMES, low, before=_LONGEST_WORD):
        for near in regex.finditer(low, max(begin, last), end + _LONGEST_SEPARATOR):
            work.spend(1)
            found: re.Match[str] | None = near
            if near.end() >= end:
                found = regex.match(low, near.start()) if last <= near.start() < end else None
            if found is not None:
                last = found.end()
                if found.lastgroup != "nothing":
                    work.spend(1)
                    yield found
