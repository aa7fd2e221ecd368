"""The class of a plan's input: what is given is checked against it before anything is written.

The class is an attrs class, a dataclass or a model of pydantic. What a run has is JSON all the same: that of the
instance, with the defaults of the class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from machine import canonical, codec
from machine.errors import CanonicalError, Code, CodecError, PlanError, UsageError
from machine.typed_values import is_model


def input_class(kind: Any, op_id: str) -> type | None:
    """Return the class of a plan's input, None for any JSON object. Raises `PlanError` for anything else."""
    if kind is None or (isinstance(kind, type) and is_input_class(kind)):
        return kind
    raise PlanError(
        f"input of plan {op_id!r} must be an attrs class, a dataclass or a model of pydantic, not {kind!r}",
        hint="give the class itself, such as input=Order",
    )


def is_input_class(kind: type) -> bool:
    """Say whether a class is one whose fields are known."""
    return attrs.has(kind) or dataclasses.is_dataclass(kind) or is_model(kind)


def checked_input(kind: type | None, given: Any) -> Any:
    """Return the input of a run as JSON, complete with the defaults of its class; as given without a class.

    `given` is a JSON object, an instance of the class, or None for no input. Raises `UsageError` (`invalid_input`)
    with every problem and its path.
    """
    value = {} if given is None else given
    if kind is None:
        return value
    if isinstance(value, kind):
        return _plain(kind, value)
    if not isinstance(value, Mapping):
        raise _refused(kind, [f"expected object or {kind.__name__}, got {type(value).__name__} @ $"])
    try:
        plain = canonical.decode(canonical.encode(dict(value)))
    except CanonicalError as exc:
        raise _refused(kind, [f"{exc.problem} @ {exc.path}"]) from None
    stored = _plain(kind, _instance(kind, plain))
    if lost := list(_lost(plain, stored, "$")):
        raise _refused(kind, lost)
    return stored


def _instance(kind: type, value: Mapping[str, Any]) -> Any:
    try:
        if is_model(kind):
            return kind.model_validate_json(canonical.encode(value))  # type: ignore[attr-defined]  # pydantic is optional
        return codec.structure_typed(value, kind)
    except CodecError as exc:
        raise _refused(kind, exc.problems) from None
    except ValueError as exc:
        raise _refused(kind, _problems_of_model(exc)) from None


def _plain(kind: type, value: Any) -> Any:
    try:
        return canonical.decode(codec.typed_bytes(value, kind))
    except CanonicalError as exc:
        raise _refused(kind, [f"{exc.problem} @ {exc.path}"]) from None
    except CodecError as exc:
        raise _refused(kind, exc.problems) from None


def _problems_of_model(exc: ValueError) -> list[str]:
    errors: Any = getattr(exc, "errors", None)
    if errors is None:
        return [f"{exc} @ $"]
    return [
        f"{each['msg']} @ ${''.join(map(_step, each['loc']))}"
        for each in errors(include_input=False, include_url=False)
    ]


def _step(step: str | int) -> str:
    return f"[{step}]" if isinstance(step, int) else f".{step}"


def _lost(given: Any, stored: Any, path: str) -> Iterator[str]:
    """Yield the fields that were given and that the class has ignored."""
    if isinstance(given, dict) and isinstance(stored, dict):
        unknown = sorted(given.keys() - stored.keys())
        if unknown:
            yield f"unknown fields: {', '.join(unknown)} @ {path}"
        for name in given.keys() & stored.keys():
            yield from _lost(given[name], stored[name], f"{path}.{name}")
    elif isinstance(given, list) and isinstance(stored, list):
        for number, (one, other) in enumerate(zip(given, stored, strict=False)):
            yield from _lost(one, other, f"{path}[{number}]")


def _refused(kind: type, problems: list[str]) -> UsageError:
    return UsageError(
        f"the input does not fit {kind.__name__}: {'; '.join(problems)}",
        code=Code.INVALID_INPUT,
        details={"class": kind.__name__, "problems": problems},
        hint="`machine plan TARGET` lists its fields, with --schema as a JSON schema",
    )
