"""Multipart boundaries made of a hash of the parts, in the request that is sent and in what is stored of it.

HTTP libraries draw a boundary at random, so the same form would be a different request every time. If a part holds
a secret, the stored boundary is the hash of the stored parts, or it would tell something about the secret.
"""

from __future__ import annotations

import re
from typing import Any, Final

from blake3 import blake3

from machine.secrets.placeholder import MARK, TEXT

__all__ = ["boundary_of", "settled", "stored_boundary"]

_DRAWN: Final = re.compile(r"""(?i)^multipart/[^;]+;.*?\bboundary=["']?([0-9a-f]{32})(?![\w'()+,./:=?-])""")
"""A boundary of 32 hex digits: random, as httpx and most other libraries make them, or one that replaced such."""

_SEALED: Final = "0" * 32
"""The stored boundary of a body that is sealed whole: there are no stored parts to hash."""


def settled(content_type: str, body: bytes) -> tuple[str, bytes]:
    """Return a content type and its body with a random boundary replaced; both unchanged if there is none."""
    drawn = _DRAWN.search(content_type)
    if drawn is None:
        return content_type, body
    boundary = boundary_of(body, drawn[1].encode())
    return content_type.replace(drawn[1], boundary.decode()), body.replace(drawn[1].encode(), boundary)


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
