"""Multipart boundaries that depend on what they separate, in what is sent and in what is stored of it.

A library draws a boundary at random, so that the same form is another request every time. It is replaced by a hash
of the parts; where a part holds a secret, what is stored has the hash of the parts as they are stored.
"""

from __future__ import annotations

import re
from typing import Any, Final

from blake3 import blake3

from machine.secrets.placeholder import MARK, TEXT

__all__ = ["boundary_of", "settled", "stored_boundary"]

_DRAWN: Final = re.compile(r"""(?i)^multipart/[^;]+;.*?\bboundary=["']?([0-9a-f]{32})(?![\w'()+,./:=?-])""")
"""A boundary that looks drawn at random, as that of httpx and of most other libraries; or has been replaced."""

_SEALED: Final = "0" * 32
"""The stored boundary of a body that is sealed whole: nothing else is known of it."""


def settled(content_type: str, body: bytes) -> tuple[str, bytes]:
    """Return a content type and its body with a drawn boundary replaced; as they are if none is."""
    drawn = _DRAWN.search(content_type)
    if drawn is None:
        return content_type, body
    boundary = boundary_of(body, drawn[1].encode())
    return content_type.replace(drawn[1], boundary.decode()), body.replace(drawn[1].encode(), boundary)


def stored_boundary(request: Any) -> Any:
    """Return an `http` request, as it is stored, with a boundary that tells nothing of the secrets in its parts.

    For requests whose secrets have been replaced. One without a placeholder in its body is returned as it is, and
    so is one whose boundary is not of the form that `settled` gives.
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
        case {"text": dict(leaf)} | {"base64": dict(leaf)} if MARK in leaf:
            content_type = _DRAWN.sub(lambda found: found[0].replace(found[1], _SEALED), given)
        case _:
            return request
    return {**request, "headers": {**request["headers"], "content-type": content_type}, "body": body}


def boundary_of(body: bytes, drawn: bytes) -> bytes:
    """Return a multipart boundary that depends on what it separates and nothing else."""
    parts = body.split(drawn)
    digest = blake3(b"\0".join(parts)).hexdigest(length=16).encode()
    while any(digest in part for part in parts):
        digest = blake3(digest).hexdigest(length=16).encode()
    return digest
