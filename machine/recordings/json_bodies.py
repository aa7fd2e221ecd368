"""The bodies of two HTTP requests, compared as JSON: texts of JSON differ in their values, not in their letters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from machine import canonical
from machine.errors import CanonicalError, CodecError
from machine.io.json_pointers import read_json


def with_json_bodies(recorded: dict[str, Any], now: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return two calls with the values of their bodies in the place of the texts, if both are texts of JSON."""
    bodies = [_document(call) for call in (recorded, now)]
    if any(body is None for body in bodies):
        return recorded, now
    first, second = (
        {
            **call,
            "request": {**call["request"], "body": {"json": canonical.decode(canonical.encode(body[0]))}},
        }
        for call, body in zip((recorded, now), bodies, strict=True)
        if body is not None
    )
    return first, second


def same_json(recorded: dict[str, Any], now: dict[str, Any]) -> str:
    """Return how the bodies of two calls differ that are texts of the same JSON."""
    texts = [call["request"]["body"]["text"] for call in (recorded, now)]
    first, second = (json.dumps(json.loads(text, parse_int=float)) for text in texts)
    return "in another order" if first != second else "written in another way"


def _document(call: Mapping[str, Any]) -> tuple[Any] | None:
    request = call.get("request")
    body = request.get("body") if call.get("namespace") == "http" and isinstance(request, Mapping) else None
    text = body.get("text") if isinstance(body, Mapping) else None
    read = read_json(text) if isinstance(text, str) else None
    if read is None:
        return None
    try:
        canonical.encode(read[0])
    except (CanonicalError, CodecError):  # a number that canonical JSON cannot hold
        return None
    return read
