"""Canonical JSON (RFC 8785) and BLAKE3 ids: the bytes of everything that is hashed.

`rfc8785` defines the correct result. `encode` lets orjson write the text and corrects the few spellings in which
the two differ. A text it cannot correct is written again, value by value, which also yields the path of a value
that must be refused.

Nothing is guessed: a value that JSON cannot hold is refused, not converted, and no input is changed. This module
knows nothing of events or types, and does no IO.
"""

from __future__ import annotations

import enum
import json
import re
from math import isfinite
from typing import Any, Final, NamedTuple

import orjson
import rfc8785
from blake3 import blake3

from machine.errors import CanonicalError, Code, CodecError, CorruptionError
from machine.unstorable_values import known_remedy

MAX_DEPTH: Final = 900
"""The number of nested containers that have canonical bytes, whatever the depth of the caller's own stack."""

_MAX_INT: Final = 2**53 - 1


# -- the fast way: orjson, and corrections -------------------------------------------------------------------
#
# orjson differs from RFC 8785 silently in four ways only: it spells some floats otherwise, writes NaN and the
# infinities as null, sorts keys by code point instead of UTF-16, and converts UUIDs and Enums. So a guard
# looks at the types before orjson sees the value (an Enum whose `value` raises would even crash it), and
# checks on the text find the rest. `number in bytes` is a memchr, which makes most checks nearly free.


def _options() -> int:
    """Return the options for orjson, or raise if its spellings of floats are unknown.

    Before 3.12 it wrote `1e21` for `1e+21`. After a refusal every value is written the exact way: slower, and
    right.
    """
    known = (
        b"[1.0,-0.0,1e+16,1.5e+20,1e+21,0.00001,0.000015,1e-6,1.25e-6,1e-7,5e-324,1.7976931348623157e+308]"
    )
    if orjson.dumps(json.loads(known)) != known:
        return -1
    return (  # the guard lets nothing pass through; the last three are for what another thread may do meanwhile
        orjson.OPT_SORT_KEYS
        | orjson.OPT_STRICT_INTEGER
        | orjson.OPT_PASSTHROUGH_SUBCLASS
        | orjson.OPT_PASSTHROUGH_DATETIME
        | orjson.OPT_PASSTHROUGH_DATACLASS
    )


_OPTIONS: Final = _options()

_PLAIN: Final = frozenset({str, int, bool, type(None)})

# Of lists and dicts within each other orjson refuses more than 254, but with every tuple it begins to count anew.
# Beyond a depth of about 1000 orjson 3.13 writes past the end of its memory. These many cannot lead there.
_TUPLES: Final = 2

_DOT, _PLUS, _MINUS, _BACKSLASH = b".+-\\"
_IS_INTEGRAL: Final = float.is_integer
_BMP_LEADS: Final = b"\xee\xef"  # what UTF-8 starts U+E000..U+FFFF with
_ASTRAL_LEADS: Final = b"\xf0\xf1\xf2\xf3\xf4"  # and what lies beyond U+FFFF

# The first two, which nearly every document meets, start with a literal: without one `re` is 10 times slower.
_POINT_ZERO: Final = re.compile(rb"\.0(?=[]},]|\Z)")
_EXPONENT: Final = re.compile(rb"e(?:-6|\+(?:1[6-9]|20))(?!\d)")
_MANTISSA: Final = re.compile(rb"[-.\d]+\Z")
_KEY: Final = re.compile(rb'"[^"]*"(?!:)|("[^"]*"):')


def encode(value: Any) -> bytes:
    """Return the canonical bytes (RFC 8785) of a JSON value, exactly those of `rfc8785.dumps`.

    A value is None, a bool, an int within +-(2**53 - 1), a finite float, a str without lone surrogates, a
    list or tuple of values, or a dict from str to values; a subclass counts as what it is a subclass of. The
    value is not changed, and must not be changed by another thread meanwhile.

    Raises `CanonicalError` with the path of the first offending value, in canonical order, for anything else,
    and for more than `MAX_DEPTH` containers within each other.
    """
    floats: list[float] = []
    try:
        if _is_simple(value, floats, _TUPLES):
            text = orjson.dumps(value, None, _OPTIONS)
            if floats:
                if not isfinite(sum(floats)):
                    return _encode_exactly(value)
                text = _respell(text, floats)
            if text.isascii() or _keys_are_in_order(text):
                # a copy: what orjson returns holds 4 kB or more for as long as it lives
                return b"%b" % text
    except (TypeError, ValueError, RecursionError):
        pass
    return _encode_exactly(value)


def _is_simple(value: Any, floats: list[float], tuples: int) -> bool:
    """Say whether a value has exact JSON types and no more nested tuples than allowed, and list its floats."""
    kind = type(value)
    if kind is dict:
        value = value.values()  # orjson itself refuses keys that are not exactly str
    elif kind is not list:
        if kind is float:
            floats.append(value)
            return True
        if kind is not tuple:
            return kind in _PLAIN
        if not tuples:
            return False
        tuples -= 1
    for item in value:
        if type(item) not in _PLAIN:
            if type(item) is float:
                floats.append(item)
            elif not _is_simple(item, floats, tuples):
                return False
    return True


def _respell(text: bytes, floats: list[float]) -> bytes:
    """Return JSON text with its floats as in RFC 8785 section 3.2.2.3; `floats` are all in it."""
    plus, minus = _PLUS in text, _MINUS in text
    if (plus and _EXPONENT.search(text)) or (minus and text.find(b"e-6") > 0):
        text = _without_exponents(text)
    elif not (plus or (minus and 0.0 in floats)):
        # As many floats end in `.0` as are integral, so if no more is found none of it is in a string.
        shorter, count = _POINT_ZERO.subn(b"", text)
        if not count or count == sum(map(_IS_INTEGRAL, floats)):
            return shorter
    return _without_point_zero(text) if _DOT in text else text


def _without_point_zero(text: bytes) -> bytes:
    """Return JSON text with `1` for each `1.0` and `0` for each `-0.0`; strings are unchanged."""
    pieces = _POINT_ZERO.split(text)
    if len(pieces) == 1:
        return text
    bare = _POINT_ZERO.split(_without_escapes(text)) if _BACKSLASH in text else pieces
    quotes = 0
    for index in range(len(pieces) - 1):
        quotes += bare[index].count(b'"')
        if quotes % 2:  # inside a string
            pieces[index] += b".0"
        elif pieces[index].endswith(b"-0"):
            pieces[index] = pieces[index][:-2] + b"0"
    return b"".join(pieces)


def _without_exponents(text: bytes) -> bytes:
    """Return JSON text with digits for exponents where RFC 8785 section 3.2.2.3 asks for them."""
    parts: list[bytes] = []
    bare = b""
    done = quotes = counted = 0
    for found in _EXPONENT.finditer(text):
        bare = bare or _without_escapes(text)
        quotes += bare.count(b'"', counted, counted := found.start())
        mantissa = _MANTISSA.search(
            text, max(counted - 24, 0), counted
        )  # 17 digits, a sign and a dot at most
        if mantissa and quotes % 2 == 0:  # not inside a string
            parts += text[done : mantissa.start()], rfc8785.dumps(float(mantissa[0] + found[0]))
            done = found.end()
    return b"".join((*parts, text[done:])) if parts else text


def _without_escapes(text: bytes) -> bytes:
    r"""Return JSON text of the same length without escapes, so that every `"` begins or ends a string."""
    return text.replace(rb"\\", b"__").replace(rb"\"", b"__")


def _keys_are_in_order(text: bytes) -> bool:
    """Say whether keys sorted by code point are surely also sorted by UTF-16 (RFC 8785 section 3.2.3)."""
    if not _mixes_planes(text):
        return True
    return not _mixes_planes(b"".join(_KEY.findall(_without_escapes(text))))


def _mixes_planes(text: bytes) -> bool:
    return any(lead in text for lead in _BMP_LEADS) and any(lead in text for lead in _ASTRAL_LEADS)


# -- the exact way, and what it says when it refuses ---------------------------------------------------------


class _Place(NamedTuple):
    """The place of a container: the step to it from its parent, and its depth."""

    around: _Place | None
    step: str | int
    container: Any
    depth: int


_Step = tuple[Any, str | int, _Place | None]
_WRITTEN: Final = _Place(None, "", None, 0)  # is stacked with bytes that only wait to be written


def _encode_exactly(value: Any) -> bytes:
    """Return the canonical bytes the exact way: a walk without recursion, each scalar written by `rfc8785`."""
    parts: list[bytes] = []
    todo: list[_Step] = [(value, "", None)]
    while todo:
        value, step, around = todo.pop()
        if around is _WRITTEN:
            parts.append(value)
            continue
        try:
            if isinstance(value, (dict, list, tuple)):
                place = _enter(value, step, around)
                todo += reversed(_members(value, place))
            else:
                parts.append(rfc8785.dumps(value))
        except CanonicalError:
            raise
        except Exception as exc:  # noqa: BLE001 - a subclass may raise anything when it is read
            raise CanonicalError(_path(step, around), _problem(value, exc)) from None
    return b"".join(parts)


def _enter(container: Any, step: str | int, around: _Place | None) -> _Place:
    place = around
    while place:
        if place.container is container:
            raise CanonicalError(
                _path(step, around), f"{type(container).__name__} contains itself; JSON is a tree"
            )
        place = place.around
    depth = around.depth + 1 if around else 1
    if depth > MAX_DEPTH:  # its path would be of no help
        raise CanonicalError("$", f"nested too deep, more than {MAX_DEPTH} containers; make it flatter")
    return _Place(around, step, container, depth)


def _members(container: Any, place: _Place) -> list[_Step]:
    """Return the steps that encode a container, in order: its members, and the bytes around and between them."""
    steps: list[_Step] = []
    if not isinstance(container, dict):
        for index, item in enumerate(list(container)):
            steps += (item, index, place), (b",", "", _WRITTEN)
        return [(b"[", "", _WRITTEN), *steps[:-1], (b"]", "", _WRITTEN)]
    members = dict(container)
    for key in members:
        if not isinstance(key, str):
            problem = f"key {key!r} is {type(key).__name__}, and JSON keys are strings; use str(key)"
            raise CanonicalError(_path(place.step, place.around), problem)
    for key, item in sorted(members.items(), key=lambda member: member[0].encode("utf-16be")):
        steps += (rfc8785.dumps(key) + b":", "", _WRITTEN), (item, key, place), (b",", "", _WRITTEN)
    return [(b"{", "", _WRITTEN), *steps[:-1], (b"}", "", _WRITTEN)]


def path_of(key: str) -> str:
    """Return the JSONPath-like name of a member of the whole document."""
    return _path(key, _WRITTEN)


def _path(step: str | int, around: _Place | None) -> str:
    """Return the JSONPath-like name of the member at a step."""
    steps: list[str] = []
    while around:
        if isinstance(step, int):
            steps.append(f"[{step}]")
        else:
            key = str.__str__(step)  # an Enum that is a str has a name of its own
            if key.isidentifier():
                steps.append(f".{key}")
            else:  # escaped if it cannot be printed
                steps.append(f"[{json.dumps(key, ensure_ascii=not key.isprintable())}]")
        step, around = around.step, around.around
    steps.reverse()
    return "$" + "".join(steps)


def _problem(value: Any, exc: Exception) -> str:
    """Return in words why a value cannot be written, and the remedy; the type is named, the value is not shown."""
    name = type(value).__name__
    if isinstance(exc, UnicodeEncodeError):
        return f"key {exc.object!a} holds a lone surrogate, which UTF-8 cannot; use well-formed text"
    if isinstance(exc, rfc8785.IntegerDomainError) or (isinstance(value, int) and abs(value) > _MAX_INT):
        return f"{name} beyond +-(2**53 - 1) is not JSON that every reader keeps exact; use a str"
    if isinstance(exc, rfc8785.FloatDomainError):
        return f"{name} {float(value)} is not JSON; use None or a str"
    if isinstance(value, str):
        return f"{name} holds a lone surrogate, which UTF-8 cannot; use well-formed text, or bytes"
    if isinstance(value, (dict, list, tuple, int, float)):
        return f"{name} cannot be read: {type(exc).__name__}: {exc}"
    if isinstance(value, (set, frozenset)):
        return f"{name} is not JSON, it has no order; use a sorted list"
    if isinstance(value, enum.Enum):
        return f"{name} is an Enum and not JSON; use its .value, or ctx.write_typed"
    if name == "coroutine":
        return "a coroutine is not JSON; is an await missing?"
    return f"{name} is not JSON; {known_remedy(value) or 'use ctx.write_typed'}"


# -- the way back --------------------------------------------------------------------------------------------


def decode(data: bytes) -> Any:
    """Return the value of JSON bytes (RFC 8259); for canonical bytes, a value equal to the original.

    Numbers are doubles, as in RFC 8785: one without fraction or exponent becomes an int within +-(2**53 - 1) and a
    float beyond, so that `encode(decode(data)) == data` for all canonical bytes. The last of equal keys in one
    object counts.

    Raises `CodecError` if the bytes are not JSON or not UTF-8, or hold a number beyond the range of doubles.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise CodecError("JSON", [str(exc)]) from None
    try:
        orjson.dumps(value, None, orjson.OPT_STRICT_INTEGER)  # the quickest search for a large int
    except orjson.JSONEncodeError:
        return _with_large_ints_as_floats(value)
    return value


def _with_large_ints_as_floats(value: Any) -> Any:
    root = [value]
    todo: list[Any] = [root]
    while todo:
        container = todo.pop()
        for step, item in container.items() if type(container) is dict else enumerate(container):
            if type(item) is dict or type(item) is list:
                todo.append(item)
            elif type(item) is int and abs(item) > _MAX_INT:
                container[step] = float(item)
    return root[0]


def decode_stored(artifact_id: str, data: bytes) -> Any:
    """Return the JSON value of an artifact. Raises `CorruptionError` (`artifact_corrupt`) when it is not JSON."""
    try:
        return decode(data)
    except CodecError as exc:
        raise CorruptionError(
            f"artifact {artifact_id} is not JSON: {exc}", code=Code.ARTIFACT_CORRUPT
        ) from exc


def artifact_id(data: bytes) -> str:
    """Return the BLAKE3-256 of bytes as 64 lowercase hex digits."""
    return blake3(data).hexdigest()
