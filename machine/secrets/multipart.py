"""Multipart bodies: their parts, and boundaries made of a hash of the parts.

HTTP libraries draw a boundary at random, so the same form would be a different request every time. If a part holds
a secret, the stored boundary is the hash of the stored parts, or it would tell something about the secret.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from blake3 import blake3

from machine.secrets.placeholder import MARK, TEXT

_DRAWN: Final = re.compile(r"""(?i)^multipart/[^;]+;.*?\bboundary=["']?([0-9a-f]{32})(?![\w'()+,./:=?-])""")
"""A boundary of 32 hex digits: a random one of httpx and most other libraries, or one that replaced it."""

_ANY_DRAWN: Final = re.compile(
    r"""(?i)^multipart/[^;]+;.*?\bboundary=["']?"""
    r"""([\w.-]{30,70}|={10,}[0-9]{10,}==(?:\.[0-9]+)?)(?=["']?\s*(?:;|\Z))"""
)
"""A boundary of any library or browser: long words, with dashes before them or not, and that of Python's email."""

_SEALED: Final = "0" * 32
"""The stored boundary of a body that is sealed whole: there are no stored parts to hash."""

_FIRST: Final = re.compile(r"--([^\r\n]{1,1024}+)(?:\r?\n|\Z)")
_NEXT: Final = re.compile(r"\n--([^\r\n]{1,1024}+)(?=\r?\n|\Z)")
_HEAD: Final = re.compile(r"(?:(?!--|\r?\n)[^\n]++\n)*+")
"""The lines of a part up to an empty line or a delimiter; no two matches overlap, so each line is read once."""

_BEGUN: Final = re.compile(
    r"--(?<![^\n]--)[^\r\n]{1,1024}+\r?\n(?:(?!--|\r?\n|(?i:content-[a-z]))[^\n]++\n)*+(?i:content-[a-z])"
)
"""The first delimiter, with a field behind it."""

_CONTENT: Final = re.compile(r"^content-[a-z]", re.IGNORECASE | re.MULTILINE)
_FIELD: Final = re.compile(
    r"^(content-(?:disposition|type))[ \t]*+:((?:[^\n]++|\n[ \t])*+)", re.IGNORECASE | re.MULTILINE
)
_PARAMETER: Final = re.compile(
    r""";[ \t\r\n]*+([\w-]++)\*?+[ \t]*+=[ \t]*+(?:"((?:[^"\\\r\n]|\\.){0,1024}+)"|([^;\r\n]*+))"""
)
_NAMES: Final = {"content-disposition": "name", "content-type": "boundary"}


class Part(NamedTuple):
    """A part of a multipart body: where its head and its own body begin, its end, and the names of its field."""

    head: int
    begin: int
    end: int
    names: tuple[str, ...]


def may_have_parts(text: str) -> bool:
    """Tell whether a text could be a multipart body."""
    return text.startswith("--") or "\n--" in text


def parts(text: str) -> Iterator[Part]:
    """Yield the parts of a multipart body, whatever is wrong with it; none for any other text.

    Its boundary is in the first line that begins with `--` and is followed by a field `Content-...`. The parts of a
    multipart within a part stand between those of the outer one; where they have no name, they have that of its
    field. A body that does not end has its last part up to the end.
    """
    known: dict[str, tuple[str, ...]] = {}
    """The boundaries, each with the names of the part that it divides."""
    last: Part | None = None
    begun = _BEGUN.search(text)
    for at, after, line in _delimiters(text, max(begun.start() - 1, 0)) if begun else ():
        boundary = line.rstrip(" \t")
        closes = boundary not in known and boundary.removesuffix("--") in known
        boundary = boundary.removesuffix("--") if closes else boundary
        head = _HEAD.match(text, after)
        assert head is not None  # it may be empty
        if boundary not in known:
            if known or not _CONTENT.search(head[0]):
                continue
            known[boundary] = ()
        if last is not None:
            yield _ended(text, last, at)
        last = None
        if not closes:
            said = _said(head[0])
            last = Part(after, head.end(), len(text), tuple(said["name"]) or known[boundary])
            for inner in said["boundary"]:
                known.setdefault(inner, last.names)
    if last is not None:
        yield _ended(text, last, len(text))


def _delimiters(text: str, begin: int) -> Iterator[tuple[int, int, str]]:
    """Yield where lines begin and end that have `--` at their beginning, and the rest of them."""
    if begin == 0 and (first := _FIRST.match(text)):
        yield 0, first.end(), first[1]
    for line in _NEXT.finditer(text, begin):
        after = text.find("\n", line.end())
        yield line.start(), len(text) if after < 0 else after + 1, line[1]


def _ended(text: str, part: Part, end: int) -> Part:
    """Return a part whose body is between the empty line behind its head and the line break before a delimiter."""
    begin = part.begin + (2 if text.startswith("\r\n", part.begin) else text.startswith("\n", part.begin))
    end -= end < len(text) and text[end - 1] == "\r"
    return part._replace(head=min(part.head, end), begin=min(begin, end), end=end)


def _said(head: str) -> dict[str, list[str]]:
    """Return the field names and the boundaries in the head of a part of a form, under `name` and `boundary`."""
    found: dict[str, list[str]] = {"name": [], "boundary": []}
    for field, parameters in _FIELD.findall(head):
        wanted = _NAMES[field.lower()]
        for name, quoted, bare in _PARAMETER.findall(parameters):
            value = re.sub(r"\\(.)", r"\1", quoted) or bare.strip().strip('"')
            if name.lower() == wanted and value:
                found[wanted].append(unquote(value.rpartition("''")[2]))
    return found


def settled(content_type: str, body: bytes) -> tuple[str, bytes]:
    """Return a content type and its body with a random boundary replaced; both unchanged if there is none."""
    drawn = _DRAWN.search(content_type)
    if drawn is None:
        return content_type, body
    boundary = boundary_of(body, drawn[1].encode())
    return content_type.replace(drawn[1], boundary.decode()), body.replace(drawn[1].encode(), boundary)


def with_settled_boundary(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an `http` request with a drawn boundary of any form replaced; the request itself if it has none."""
    headers, body = request.get("headers"), request.get("body")
    if not isinstance(headers, dict) or not isinstance(body, dict):
        return request
    name = next((name for name in headers if name.lower() == "content-type"), "")
    drawn = _ANY_DRAWN.search(headers[name]) if isinstance(headers.get(name), str) else None
    if drawn is None:
        return request
    match body:
        case {"text": str(text)}:
            boundary = boundary_of(text.encode(), drawn[1].encode()).decode()
            body = {"text": text.replace(drawn[1], boundary)}
        case {"base64": str(packed)}:
            data = base64.b64decode(packed)
            boundary = boundary_of(data, drawn[1].encode()).decode()
            data = data.replace(drawn[1].encode(), boundary.encode())
            body = {"base64": base64.b64encode(data).decode()}
        case _:
            boundary = _SEALED
    content_type = headers[name].replace(drawn[1], boundary)
    return {**request, "headers": {**headers, name: content_type}, "body": body}


def stored_boundary(request: Any) -> Any:
    """Return a stored `http` request whose boundary tells nothing about the secrets in its parts.

    The secrets have been replaced already. A request without a placeholder in its body is returned as it is, and so
    is one whose boundary is not of the form that `settled` makes.
    """
    match request:
        case {"headers": {"content-type": str(given)}, "body": dict(body)} if _DRAWN.search(given):
            pass
        case _:
            return request
    match body:
        case {"text": str(text)} if TEXT.search(text):
            content_type, data = settled(given, text.encode())
            body = {"text": data.decode()}
        case {"base64": str(packed)} if TEXT.search((data := base64.b64decode(packed)).decode("latin-1")):
            content_type, data = settled(given, data)
            body = {"base64": base64.b64encode(data).decode()}
        case {"text": dict(leaf)} | {"base64": dict(leaf)} if MARK in leaf:
            content_type = _DRAWN.sub(lambda found: found[0].replace(found[1], _SEALED), given)
        case _:
            return request
    return {**request, "headers": {**request["headers"], "content-type": content_type}, "body": body}


def boundary_of(body: bytes, drawn: bytes) -> bytes:
    """Return a multipart boundary that depends only on the parts between occurrences of the `drawn` one."""
    parts = body.split(drawn)
    digest = blake3(b"\0".join(parts)).hexdigest(length=16).encode()
    while any(digest in part for part in parts):
        digest = blake3(digest).hexdigest(length=16).encode()
    return digest
