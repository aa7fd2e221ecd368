"""Calls of steps in words, for people to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from machine import canonical
from machine.io.step_transport import STEP


def step_text(request: Mapping[str, Any]) -> str:
    """Return a call of a step as it would be written in a program: its function and its arguments."""
    return f"{short_name(request)}({', '.join(f'{name}={_value(value)}' for name, value in _given(request))})"


def result_text(response: Mapping[str, Any]) -> str:
    """Return the result of a step, from its response."""
    ((form, result),) = response.items()
    return f"happened, result lost: {result}" if form == "lost" else _value(result)


def short_name(request: Mapping[str, Any]) -> str:
    """Return the name of a step without its module."""
    return str(request["function"]).rpartition(":")[2]


def named(namespace: str, request: Any) -> str:
    """Return the namespace of a call, and for a step its name."""
    return f"{namespace} {short_name(request)}" if is_step(namespace, request) else namespace


def changed_request(namespace: str, recorded: Any, now: Any) -> str:
    """Return in words what has changed from a recorded request to the one of a replay."""
    if is_step(namespace, recorded) and is_step(namespace, now) and recorded["function"] == now["function"]:
        before, after = dict(_given(recorded)), dict(_given(now))
        differ = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        if differ:
            plural = "s" * (len(differ) > 1)
            return f"the argument{plural} {', '.join(differ)} of the step {short_name(now)} changed"
    return f"the request of a call of {named(namespace, now)} has changed"


def is_step(namespace: str, request: Any) -> bool:
    """Say whether a request is one of a step."""
    return namespace == STEP and isinstance(request, dict) and isinstance(request.get("args"), dict)


def _given(request: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from request["args"].items()
    yield from request.get("cells", {}).items()


def _value(value: Any) -> str:
    match value:
        case {"$object": str(name), "value": inner}:
            return f"{name}({canonical.encode(inner).decode()})"
    if isinstance(value, dict) and len(value) == 1:
        ((tag, inner),) = value.items()
        if tag.startswith("$"):
            return _value(inner)
    return canonical.encode(value).decode()
