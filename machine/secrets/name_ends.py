"""Names with the ending of a secret name in running text, and the text between them and their values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from machine.secrets.substring_search import any_of, begun_in, parts_with

SIGN_OF_NAMES: Final = (
    r"(?i:pass|secret|token|key|pw|phrase|cred|auth|cook|sess|sig|bear|jwt|psk"
    r"|otp|mfa|saml|device.?code|kennw|ntrase|senha|htwoord|hmac|assert|verif|crumb|reco|back|fied)"
)
"""Pieces of which every secret name has one, in the syntax of RE2."""

_LAST_WORDS: Final = any_of(
    (
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
        *("secrets?", "tokens?", "keys?", r"key[_-]?base", r"key[_-]?data", "credentials?"),
        *("authorization", "authentication", "auth"),
        *("cookies?", "signature", "sig", "hmac", "jwt", "sessid", r"session[_-]?id", "session", "bearer"),
        *(r"secret[_-]?id", r"recovery[_-]?codes?", r"backup[_-]?codes?", "assertion", "verifier", "crumb"),
        *("csrfmiddlewaretoken", "passwd", "otp"),
    )
)
_PLAIN: Final = r"[:=][ \t]?+(?=[0-9\"'`ac-ik-prt-z])"
"""A sign before a value that begins as no longer separator goes on: it is tried first, since most are so."""

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
    r"|(?:[ \t]{1,4}+[\w:.-]{1,40}+=\"[^\"<>]{0,200}+\"){0,4}+>|,[ \t]{0,16}+(?=b?\\{0,15}+[\"'])"
    r"|&(?:quot|#34);[ \t]?:[ \t]?&(?:quot|#34);|%3d|%22(?:%20|\+)?%3a(?:%20|\+)?%22"
    r"|\((?=[\"'])|</(?:key|name|param-name)>\s{0,40}+<(?:string|value|param-value)>"
    r"(?:\s{0,40}+<string>)?+"
    r"|[ \t]{1,4}+(?:\(|-{1,2}[ \t])(?=[A-Za-z0-9])"
    r"|[ \t]{1,4}+(?:(?:for|of|to|on|in|at)(?:[ \t](?!(?:is|was)[ \t])[\w.@/-]{1,40}+){1,3}+[ \t])?+"
    r"(?:is|was|to)[ \t]{1,4}+(?=[\"'`]?[A-Za-z0-9+/])|[ \t]{1,40}+(?=[\"'`]?(?:[A-Za-z0-9+/]|\$[0-9]\$)))"
)
_VALUE: Final = (
    r"(?:(?=(?P<closed>[burfn@]{0,2}+(?P<slashes>\\{0,15}+)(?P<quote>[\"'`])"
    rf"(?![^\\\"'`]{{0,3}}(?:{_LAST_WORDS}))[^\\\"'`]{{0,5}}+(?P=slashes)(?P=quote)))"
    r"|(?![burfn@]{0,2}+\\{0,15}+[\"'`]|[|>\[{(]|<!\[cdata\[)"
    r"(?=(?P<short>[^\s\"'`<>]{0,5}+(?![^\s\"'`<>])))"
    r"|(?![burfn@]{1,2}+\\{0,15}+[\"'`])(?=(?P<words>[\"'`]?+[a-z]{0,19}+(?![^\s\"'`<>]))))?"
)
"""The beginning of a value. A group that matches says that it is no credential: a text in quotes or without that is
too short, or a word of letters."""

_NAME: Final = re.compile(
    rf"(?:{_LAST_WORDS})[0-9]{{0,4}}+(?![a-z0-9])(?:\\{{0,15}}+[\"'`])?+"
    rf"(?::(?:protected|[\w\\\":]{{0,80}}private)(?=\]))?+\]?+"
    rf"(?=[ \t]*+[\w<>*=:\u2192,%(\"'`+/.&-])(?![ \t]++--?[a-z]){_SEPARATOR}{_VALUE}"
)
_LONGEST_WORD: Final = 14
"""The most characters of a name before its sign: 14 in `csrfmiddlewaretoken`."""

_LONGEST_SEPARATOR: Final = 2000


def name_ends(low: str) -> Iterator[re.Match[str]]:
    """Yield the names with the ending of a secret name, and the text between each and its value.

    The last group of a match is the kind of the value, `sep` where only a closer look tells.
    """
    return begun_in(parts_with(SIGN_OF_NAMES, low, before=_LONGEST_WORD), _NAME, low, _LONGEST_SEPARATOR)
