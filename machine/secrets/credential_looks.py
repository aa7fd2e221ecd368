"""The look of a value: whether it could be a credential, or is a word, a number, a date or a path."""

from __future__ import annotations

import functools
import re
from collections import Counter
from math import log2
from typing import Final

from machine.secrets.encodings import is_plain
from machine.secrets.technical_terms import is_technical, is_term, is_word_with_digits
from machine.secrets.templates_and_examples import is_example, without_templates

_LONGEST: Final = 4096
SHORTEST: Final = 6
_SHORTEST_STRONG: Final = 20
_LONGER_STRONG: Final = 24
_LEAST_BITS: Final = 2.0
_LEAST_BITS_STRONG: Final = 3.3
_LONGEST_COUNT: Final = 4
"""The most digits of a number among words: `step-1`, `min:8`, `photo-2024`."""

_INNOCENT: Final = re.compile(
    r"""
      (?P<date>\d{4}-\d\d?-\d\d?(?:[T ]\d\d:\d\d.*)? | (?:19|20)\d\d[-_/. ][A-Za-z]{1,2}\d{0,2}(?:[-_/. ]\w{1,3})?)
    | (?P<number>[-+]?[0-9][0-9.,_ ]*(?:[eE][-+]?[0-9]+)?\s?%?)
    | (?P<url>[A-Za-z0-9][A-Za-z0-9+.-]*://[^\s@]*)
    | (?P<path>(?:[~.]{0,2}/|[A-Za-z]:\\)[\w.@:/\\ -]*)
    | (?P<email>[\w.+-]+@[\w-]+(?:\.[A-Za-z]{2,})+)
    | (?P<version>v?\d+(?:\.\d+)+(?:[-+][\w.]+)?)
    | (?P<title>-{3,}BEGIN[ A-Z.]*)
    | (?P<variable>[$#%@]\{[^{}]*\} | \$\([^()]*\) | \${1,2}\{?\{?[\w.: -]+\}{0,2} | %\w+% | \{\{?[^{}]*\}?\}
        | <[^<>]*>
        | \[[^\[\]]*\] | \([^()]*\) | %\([\w.-]+\)[sdr] | %-?\d*\$?[sdvq@] | @[\w.]+@
        | \$\{[\w.]+:[?+=-]\w* | \$\([\w.-]+ | \$[\w:]+\[\w*\]?
        | :{1,2}'?[a-z][\w-]*'?(?:\{.*)? | (?:[a-z][\w.:/-]*)?\{{1,2}[a-z_.]{2,}\}{1,2}[\w.:/-]*
        | (?:[$#%]?\{{1,2}[A-Za-z_][^{}\s]*+\}{1,2}[.:/_-]?)++)
    | (?P<masked>[*•.xX#?_-]+\w{0,4} | \w{1,12}[._-][xX]{3,}
        | \S{0,40}?(?:\*{3,}|•{3,}|\.{3}|…)\S{0,40} | _{2,}[A-Za-z_]+_{2,})
    | (?P<entity>&\w+; | @[A-Za-z_]+\d? | @[A-Za-z.]+\(.*\)
        | %\w+\([\w.:]+\)% | \$\{[\w.]+:[^\s]* | \$\([\w.]+ | \$[a-z]+:[\w./:-]+)
    | (?P<duration>(?:[a-z]+:)?P(?:\d+[YMWDT])+(?:\d+[HMS])*
        | (?:\d{1,6}[ ]?(?:ms|[smhdwyM]|secs?|seconds?|mins?|minutes?|hours?|days?|weeks?|months?|years?)[ ]?){1,6})
    | (?P<call>[A-Za-z_][\w.]*(?:\(.*|\[.*))
    | (?P<arn>arn:[\w:/.*!-]+)
    | (?P<rules>(?:[a-z_]+(?::[^|]*)?\|)+[a-z_]+(?::.*)? | [a-z_]{1,16}[<>]=?\d{1,4})
    | (?P<class>\[[^\]]*\][{+*].*)
    | (?P<pattern>/?\^.*\$/?\w* | .*\(\?[=!:<].* | \.[*+].* | \\[SsdwWDb].* | regex:.* )
    | (?P<array>[A-Z][a-z]+\d{1,3}[A-Z][a-z]+)
    | (?P<pkcs>pkcs11:.*)
    | (?P<type>(?i:u?int|bytes|float|char|varchar|string|blob|uuid)\d{1,3})
    | (?P<algorithm>(?i:(?:hmac|pbkdf2|rsa|ecdsa)?[-_]?(?:with[-_])?
            (?:md5|sha[-_]?\d+|sha3[-_]?\d+|blake\w{1,4})(?:with\w{1,9})?
        |argon2(?:id|i|d)?|bcrypt\d*|scrypt\d*|utf-?\d+|base\d\d|[rehp]s\d{3}|aes[-_]?\d+(?:[-_]\w{1,9})?|oauth\d\w{0,9}
        |x\.?509|ed\d+|p-?\d{3}|secp\d+\w\d|iso[-_]?\d+[-_]?\d*))
    """,
    re.VERBOSE | re.DOTALL,
)
_REFERENCE: Final = re.compile(
    r"@?(?i:env|file|vault|ref|secrets?|secretref|ssm|op|bw|pass|keyring|kms|kv|sm|gcp|gsm|aws|azure|akv|k8s|config|s3|gs"
    r"|doppler|infisical|keychain|sops|ejson|credstash|lastpass|prompt|exec|cmd|id|key_id|field|header|type):(?=[\w./])"
)
"""Prefixes of a reference to a secret: `k8s:default/app#key`, `env:DB_PASSWORD`."""

_ALNUM: Final = re.compile(r"(?=\S*+\Z)(?:[^A-Za-z0-9]*+[A-Za-z0-9]){5}")
"""A word with letters and digits."""

_CONSTANT: Final = re.compile(r"[A-Z]{2,}(?:_(?:[A-Z]+|[0-9]{1,2}))++")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_HEX: Final = re.compile(r"(?:sha\d+[:=-]|0x)?(?:[0-9a-f]+|[0-9A-F]+)|0x[0-9a-fA-F]{40}")
_ISSUED: Final = re.compile(r"(?:[0-9a-f]{32,128}|[0-9A-F]{32,128})")
_ENCODED: Final = re.compile(r"/(?:[A-Za-z0-9+]+/?){1,4}+(?<=\A.{40})|/[A-Za-z0-9+/]{42,86}={1,2}")
"""Base64 that begins with a slash, as a path does."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=|:-]+")
_PIECES: Final = re.compile(r"[^\W_]+")
_CAMEL: Final = re.compile(r"[A-Z]?[a-z]{2,}+(?:[A-Z][a-z]++|[A-Z]{2,4}+)*+|[A-Z]{2,}|[A-Z]?[a-z]|[A-Z]")
_TURN: Final = re.compile(
    r"(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])|(?<=[A-Z])(?=[a-z])"
)


def looks_like_credential(value: str) -> bool:
    """Tell whether a value under a secret name looks like a credential."""
    return " " not in value if len(value) > _LONGEST else _looks(value)


@functools.lru_cache(maxsize=8192)
def _looks(value: str) -> bool:
    if len(value) < SHORTEST or is_plain(value) or not _ALNUM.match(value):
        return False
    innocent = _INNOCENT.fullmatch(value)
    if innocent is not None and innocent.lastgroup == "path":
        return _ENCODED.fullmatch(value) is not None and any(map(_is_random, _PIECES.findall(value)))
    if innocent is not None or is_term(value) or _is_wordy(value) or is_example(value):
        return False
    rest = without_templates(value)
    if rest != value and not _looks(rest):
        return False
    refers = _REFERENCE.match(value)
    if refers is not None and not _looks(value[refers.end() :]):
        return False
    return _bits(value) >= _LEAST_BITS


def is_masked(value: str) -> bool:
    """Tell whether a value replaces a hidden one: `***`, `xxxxx`, `<password>`, `${PASSWORD}`."""
    found = _INNOCENT.fullmatch(value)
    return found is not None and found.lastgroup in {"masked", "variable"}


def is_constant(value: str) -> bool:
    """Tell whether a value is a template for another one: `YOUR_TOKEN_1`."""
    return _CONSTANT.fullmatch(value) is not None


def looks_chosen(value: str) -> bool:
    """Tell whether a value of words is like a password that somebody chose: `River.2578`, `copper-window-805`."""
    if not _SHORTEST_CHOSEN <= len(value) <= _LONGEST_CHOSEN or not _CHOSEN.fullmatch(value):
        return False
    if _YEAR.search(value) and not value[:2].istitle():  # `tbd-2026`
        return False
    return not (is_technical(_PIECES.findall(value)) or is_term(value) or _INNOCENT.fullmatch(value))


_SHORTEST_CHOSEN: Final = 8
_LONGEST_CHOSEN: Final = 64
_CHOSEN: Final = re.compile(
    r"[A-Za-z]{3,}+(?:[._+!#-][A-Za-z]{3,}+)*+[._+!#-][0-9]{2,4}+(?:[._+!#-][A-Za-z]{3,}+)*+[!?#]{0,3}"
)
_YEAR: Final = re.compile(r"(?:19|20)[0-9]{2}")


def looks_strong(value: str) -> bool:
    """Tell whether a value looks like a credential even under a weak name.

    It is long, has many different characters, and mixes letters and digits as words, numbers and hashes do not.
    """
    if not may_look_strong(value):
        return False
    if not _TOKEN.fullmatch(value) or not _looks(value) or _bits(value) < _LEAST_BITS_STRONG:
        return False
    pieces = _PIECES.findall(value)
    if any(map(_is_random, pieces)):
        return True
    if len(value) < _LONGER_STRONG or any(
        len(piece) > SHORTEST and _HEX.fullmatch(piece) for piece in pieces
    ):
        return False
    return len(_TURN.findall(value)) * 4 >= len(value)  # with signs within


def looks_issued(value: str) -> bool:
    """Tell whether a value looks like what programs issue as a token: hexadecimal as long as a hash, or a UUID."""
    if _UUID.fullmatch(value):
        return True
    return _ISSUED.fullmatch(value) is not None and _bits(value) >= _LEAST_BITS and not value.isdecimal()


def may_look_strong(value: str) -> bool:
    """Tell whether `looks_strong` has to be called: the value has the length of a credential and is not a hash."""
    return (
        _SHORTEST_STRONG <= len(value) <= _LONGEST
        and not _UUID.fullmatch(value)
        and not _HEX.fullmatch(value)
    )


def _is_random(piece: str) -> bool:
    """Tell whether a piece is long and not hexadecimal, and changes case or to digits as often as random text."""
    return (
        len(piece) >= _SHORTEST_STRONG - 4
        and not _HEX.fullmatch(piece)
        and len(_TURN.findall(piece)) * 5 >= len(piece)
    )


def _is_wordy(value: str) -> bool:
    """Tell whether a value consists of words: `required|min:8`, `change-me-1`, `PasswordField`."""
    if _SIGN_WITHIN.search(value):
        return False
    plain = _NO_ASCII.sub("a", value)
    pieces = _PIECES.findall(plain)
    rest = [piece for piece in pieces if not piece.isdecimal()]
    words = [piece for piece in rest if _CAMEL.fullmatch(piece)]
    if not rest or any(len(piece) > _LONGEST_COUNT for piece in pieces if piece.isdecimal()):
        return False
    if len(value) - sum(map(len, pieces)) > 2 * len(pieces):  # mostly signs
        return False
    if len(words) < len(rest):  # beside whole words, some may have digits
        if len(words) * 2 < len(rest) and len(rest) > 1:
            return False
        said = frozenset(map(str.lower, words))
        path = "/" in value  # `alias/aws/s3`
        for piece in rest:
            if not (_CAMEL.fullmatch(piece) or is_word_with_digits(piece, said)) and not (
                path and _CAMEL.fullmatch(piece.rstrip("0123456789"))
            ):
                return False
    signs = _SIGNS if "/" not in value else _IN_PATHS
    return set(plain) <= signs.union(*pieces)


_NO_ASCII: Final = re.compile(r"[^\W\x00-\x7f]")
_SIGN_WITHIN: Final = re.compile(r"[A-Za-z0-9][!?][A-Za-z0-9]")
"""Characters that do not occur within words: `Raven!maple`."""
_SIGNS: Final = frozenset(" _./:|,;=-'?!()#+")
_IN_PATHS: Final = _SIGNS | frozenset("@*")


def _bits(value: str) -> float:
    """Return the entropy of a value, in bits for each character."""
    total = len(value)
    return -sum(count / total * log2(count / total) for count in Counter(value).values())
