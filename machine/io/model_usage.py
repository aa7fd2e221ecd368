"""The tokens that the answers of models say they have used, whole or in pieces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from machine.errors import OtherIoError
from machine.io.request_fields import unpack
from machine.model_prices import Tokens

_PATHS: Final = {
    "openai": ("/chat/completions", "/completions", "/responses", "/embeddings"),
    "anthropic": ("/messages", "/complete"),
}
_LONGEST_LINE: Final = 4 * 1024 * 1024
"""The most bytes of a line of a stream that may say what was used."""


@attrs.define
class Reading:
    """The model and the tokens that an answer has said so far, by the rules of one interface."""

    interface: str
    model: str | None = None
    tokens: Tokens | None = None

    def read(self, value: Any) -> None:
        """Read one JSON object of an answer; what it does not say stays."""
        if not isinstance(value, Mapping):
            return
        for part in (value, value.get("message"), value.get("response")):
            if isinstance(part, Mapping):
                if isinstance(model := part.get("model"), str):
                    self.model = model
                if isinstance(usage := part.get("usage"), Mapping):
                    read = _anthropic if self.interface == "anthropic" else _openai
                    self.tokens = read(usage, self.tokens or Tokens())


def interface_of(request: Any, interfaces: tuple[str, ...]) -> str | None:
    """Return the interface of a model that an HTTP request is for, None for any other request."""
    path = urlsplit(str(request.get("url", ""))).path if isinstance(request, Mapping) else ""
    for name in interfaces:
        if path.endswith(_PATHS[name]):
            return name
    return None


def model_of(request: Mapping[str, Any]) -> str | None:
    """Return the model that an HTTP request names, if it does."""
    body = request["json"] if "json" in request else _json_of(request.get("body"))
    model = body.get("model") if isinstance(body, Mapping) else None
    return model if isinstance(model, str) else None


def read_answer(interface: str, response: Any) -> Reading:
    """Return what a whole answer says; its body may also be a stream that was received at once."""
    reading, body = Reading(interface), response.get("body") if isinstance(response, Mapping) else None
    if (value := _json_of(body)) is not None:
        reading.read(value)
    elif (data := _bytes_of(body)) is not None:
        stream = StreamReading(reading)
        stream.feed(data + b"\n")
    return reading


class StreamReading:
    """The reading of an answer that comes in pieces, as server-sent events."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self._line = bytearray()

    def feed(self, data: bytes) -> None:
        """Read a piece."""
        self._line += data
        *lines, rest = bytes(self._line).split(b"\n")
        self._line = bytearray(rest if len(rest) <= _LONGEST_LINE else b"")
        for line in lines:
            if line.startswith(b"data:") and (b'"usage"' in line or b'"model"' in line):
                self.reading.read(_parsed(line[len(b"data:") :]))


def _bytes_of(body: Any) -> bytes | None:
    try:
        return unpack(body) if isinstance(body, Mapping) else None
    except OtherIoError:
        return None


def _json_of(body: Any) -> Any:
    data = _bytes_of(body)
    return None if data is None else _parsed(data)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _number(usage: Any, *names: str) -> int | None:
    for name in names:
        value = usage.get(name) if isinstance(usage, Mapping) else None
        if type(value) is int and value >= 0:
            return value
    return None


def _openai(usage: Mapping[str, Any], before: Tokens) -> Tokens:
    taken, made = (
        _number(usage, "prompt_tokens", "input_tokens"),
        _number(usage, "completion_tokens", "output_tokens"),
    )
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    cached = min(_number(details, "cached_tokens") or 0, taken or 0)
    if taken is None:
        return attrs.evolve(before, output=before.output if made is None else made)
    return Tokens(taken - cached, made or 0, cached)


def _anthropic(usage: Mapping[str, Any], before: Tokens) -> Tokens:
    # a later event of a stream repeats the totals that it knows better, and leaves out others
    found = {
        "input": _number(usage, "input_tokens"),
        "output": _number(usage, "output_tokens"),
        "cached": _number(usage, "cache_read_input_tokens"),
        "stored": _number(usage, "cache_creation_input_tokens"),
    }
    return attrs.evolve(before, **{name: number for name, number in found.items() if number is not None})
