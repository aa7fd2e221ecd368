"""Stand-ins: invented values that a handler is given, live as in a replay, in the place of secrets."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["put_in", "taken_out"]


def put_in(
    stand_ins: Mapping[str, str], document: Any, *, name: str | None = None
) -> tuple[Any, dict[str, str]]:
    """Return an answer with stand-ins for the fields they are given for, and what each stands for.

    `stand_ins` are by field name: members of JSON, of JSON in a text, and of forms; `name` is that of a secret
    whose answer this is. A stand-in that stands for two values stands for the last.
    """
    stood_in: dict[str, str] = {}
    if not stand_ins:
        return document, stood_in
    if name is not None and name in stand_ins and isinstance(document.get("value"), str):
        stood_in[stand_ins[name]] = document["value"]
        return {"value": stand_ins[name]}, stood_in

    def put(value: Any, field: str | None) -> Any:
        if isinstance(value, str):
            if field is not None and field in stand_ins:
                stood_in[stand_ins[field]] = value
                return stand_ins[field]
            return _in_text(stand_ins, value, stood_in)
        if isinstance(value, dict):
            return {key: put(item, key) for key, item in value.items()}
        if isinstance(value, list):
            return [put(item, None) for item in value]
        return value

    return put(document, None), stood_in


def _in_text(stand_ins: Mapping[str, str], text: str, stood_in: dict[str, str]) -> str:
    for name, stand_in in stand_ins.items():
        if name not in text:
            continue
        quoted = re.escape(json.dumps(name))

        def member(found: re.Match[str], stand_in: str = stand_in) -> str:
            stood_in[stand_in] = json.loads(found[2], strict=False)
            return found[1] + json.dumps(stand_in)

        def field(found: re.Match[str], stand_in: str = stand_in) -> str:
            stood_in[stand_in] = found[2]
            return found[1] + stand_in

        text = re.sub(rf'({quoted}\s*:\s*)("(?:[^"\\]|\\.)*+")', member, text)
        text = re.sub(rf"((?:^|&){re.escape(name)}=)([^&\s]+)", field, text)
    return text


def taken_out(stood_in: Mapping[str, str], value: Any) -> Any:
    """Return a request with the true values where the texts of stand-ins stand, in packed bytes too."""
    if isinstance(value, str):
        for stand_in, true in stood_in.items():
            value = value.replace(stand_in, true)
        return value
    if isinstance(value, dict):
        if value.keys() == {"base64"} and isinstance(value["base64"], str):
            return {"base64": _in_bytes(stood_in, value["base64"])}
        return {key: taken_out(stood_in, item) for key, item in value.items()}
    if isinstance(value, list):
        return [taken_out(stood_in, item) for item in value]
    return value


def _in_bytes(stood_in: Mapping[str, str], packed: str) -> str:
    try:
        data = base64.b64decode(packed, validate=True)
    except (binascii.Error, ValueError):
        return packed
    for stand_in, true in stood_in.items():
        data = data.replace(stand_in.encode(), true.encode())
    return base64.b64encode(data).decode()
