"""The converter between this library's types and JSON, and the use of the one for typed values.

Models know nothing of JSON; every rule about it is here. Reading is strict: nothing is coerced, unknown fields are
refused, and all problems of a document are reported at once, each with its path.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from machine import canonical
from machine.config import (
    AfterEveryState,
    EventProfile,
    ExponentialBackoff,
    FanOutJoin,
    FixedBackoff,
    RetryPolicy,
    RunConfig,
    RunManifest,
    Sequential,
)
from machine.envelope import split_envelope
from machine.errors import CanonicalError, Code, CodecError, ErrorInfo, LogError
from machine.event_bytes import read, spelled
from machine.events import (
    EVENT_TYPES,
    Entry,
    Event,
    FactError,
    FactValue,
)
from machine.limits import NAMES as LIMITS
from machine.limits import Limits
from machine.policy import Policy, Rule
from machine.secrets.policy import SecretPolicy
from machine.strict_converter import json_only, object_only, problems_of, strict_converter
from machine.typed_converter import typed_converter
from machine.typed_values import (
    Unkept,
    difference,
    excluded,
    kind_of,
    kind_text,
    part_at,
    remedy,
    remedy_declared,
)
from machine.waits import (
    WAIT_KINDS,
    EffectWait,
    PauseWait,
    PlanWait,
    SecretWait,
    Wait,
)

T = TypeVar("T")


def _tagged(converter: cattrs.Converter, union: Any, variants: tuple[type[Any], ...]) -> None:
    """Encode a union as objects with a `type` field that names the variant."""
    by_tag = {variant.type: variant for variant in variants}

    def unstructure(value: Any) -> dict[str, Any]:
        return {"type": value.type, **converter.unstructure(value)}

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise TypeError(f"expected object, got {type(value).__name__}")
        variant = by_tag.get(value.get("type"))
        if variant is None:
            raise ValueError(f"type must be one of {', '.join(sorted(by_tag))}, not {value.get('type')!r}")
        return converter.structure({key: item for key, item in value.items() if key != "type"}, variant)

    converter.register_unstructure_hook_func(lambda kind: kind == union, unstructure)
    converter.register_structure_hook_func(lambda kind: kind == union, structure)


@functools.cache
def _converter() -> cattrs.Converter:
    converter = strict_converter()
    _tagged(converter, FixedBackoff | ExponentialBackoff, (FixedBackoff, ExponentialBackoff))
    _tagged(converter, Sequential | FanOutJoin, (Sequential, FanOutJoin))
    _tagged(converter, FactValue | FactError, (FactValue, FactError))
    waits = (EffectWait, PlanWait, SecretWait, PauseWait, *WAIT_KINDS.values())
    _tagged(converter, Wait, waits)
    # an optional field that is absent stays absent, so that a field added later moves no old digest
    aside: dict[str, Any] = {"causes": override(omit=True)}  # it is in the info of an event
    error = make_dict_structure_fn(ErrorInfo, converter, _cattrs_forbid_extra_keys=True, **aside)
    converter.register_structure_hook(ErrorInfo, object_only(error))
    for cls in (
        ErrorInfo,
        FactValue,
        *waits,
        *EVENT_TYPES.values(),
    ):  # inner first: cattrs inlines what it knows
        absent: dict[str, Any] = dict(aside) if cls is ErrorInfo else {}
        absent |= {
            field.name: override(omit_if_default=True)
            for field in attrs.fields(typing.cast("Any", cls))
            if field.default is None
        }
        converter.register_unstructure_hook(
            cls, make_dict_unstructure_fn(typing.cast("Any", cls), converter, **absent)
        )
    profile = converter.get_structure_hook(EventProfile)
    converter.register_structure_hook(
        EventProfile,
        lambda value, kind: EventProfile(value) if isinstance(value, str) else profile(value, kind),  # type: ignore[arg-type]
    )
    _alone(converter, AfterEveryState)
    later: dict[str, Any] = dict.fromkeys(("pointers", "stand_ins"), override(omit_if_default=True))
    converter.register_unstructure_hook(
        SecretPolicy, make_dict_unstructure_fn(SecretPolicy, converter, **later)
    )
    policy = converter.get_structure_hook(SecretPolicy)
    converter.register_structure_hook(SecretPolicy, functools.partial(_recorded_policy, policy))
    unset: dict[str, Any] = {
        field.name: override(omit_if_default=True) for field in attrs.fields(Rule) if field.default is None
    }
    converter.register_unstructure_hook(Rule, make_dict_unstructure_fn(Rule, converter, **unset))
    converter.register_unstructure_hook(Policy, make_dict_unstructure_fn(Policy, converter))
    of_limits: dict[str, Any] = dict.fromkeys(LIMITS, override(omit_if_default=True))
    converter.register_unstructure_hook(Limits, make_dict_unstructure_fn(Limits, converter, **of_limits))
    # absent when unset, so that older configurations keep their bytes
    unsaid: dict[str, Any] = dict.fromkeys(
        ("secrets", "undeclared_io", "paranoid", "recoveries", "limits", "policy", "retry_budget"),
        override(omit_if_default=True),
    )
    of_retries: dict[str, Any] = dict.fromkeys(
        ("jitter", "retry_on", "give_up_on"), override(omit_if_default=True)
    )
    converter.register_unstructure_hook(
        RetryPolicy, make_dict_unstructure_fn(RetryPolicy, converter, **of_retries)
    )
    converter.register_unstructure_hook(RunConfig, make_dict_unstructure_fn(RunConfig, converter, **unsaid))
    format_1: dict[str, Any] = dict.fromkeys(
        ("secret_format", "context_format", "request_format", "ignore"), override(omit_if_default=True)
    )
    converter.register_unstructure_hook(
        RunManifest, make_dict_unstructure_fn(RunManifest, converter, **format_1)
    )
    return converter


def _recorded_policy(structure: Any, value: Any, kind: Any) -> SecretPolicy:
    """Return a policy with its patterns and paths unchanged: an old run has them in the syntax of its time."""
    if not isinstance(value, Mapping):
        structure(value, kind)  # it raises
    fields = dict(value)
    stand_ins = fields.get("stand_ins")
    if isinstance(stand_ins, Mapping):  # as a user writes them; a manifest has pairs
        fields["stand_ins"] = [[name, text] for name, text in stand_ins.items()]
    old = {name: fields.pop(name, ()) for name in ("patterns", "allow")}
    said = attrs.asdict(structure(fields, kind), filter=lambda field, _: field.name not in old)
    return SecretPolicy.recorded(**old, **said)


def _alone(converter: cattrs.Converter, cls: type[Any]) -> None:
    """Encode a variant that has no sibling yet with its tag, so that siblings can join it."""
    carried = {"type": cls.type}

    def structure(value: Any, _: Any) -> Any:
        if value != carried:
            raise ValueError(f'expected {{"type": "{cls.type}"}}, got {value!r}')
        return cls()

    converter.register_unstructure_hook(cls, lambda _: dict(carried))
    converter.register_structure_hook(cls, structure)


def to_json(value: Any) -> Any:
    """Return the JSON object of a configuration, manifest, provenance or event value."""
    return _converter().unstructure(value)


def from_json(value: Any, kind: type[T], *, what: str | None = None) -> T:
    """Return the value of type `kind` that a JSON object represents.

    Raises `CodecError` naming every problem with its path; `what` says what was being read.
    """
    try:
        if attrs.has(kind):
            json_only(dict, lambda item, _: item)(value, kind)
        return _converter().structure(value, kind)
    except Exception as exc:  # noqa: BLE001 - whatever a hook trips over, the JSON is what is wrong
        raise CodecError(what or kind.__name__, problems_of(exc)) from None


def event_to_json(event: Event) -> dict[str, Any]:
    """Return the tagged JSON object of an event."""
    return {"type": event.type, **_converter().unstructure(event)}


def encode_event(event: Event) -> bytes:
    """Return the canonical body of an event."""
    return spelled(event) or canonical.encode(event_to_json(event))


def event_from_json(value: Mapping[str, Any]) -> Event:
    """Return the event that a tagged JSON object represents. Raises `CodecError`."""
    if not isinstance(value, Mapping):
        raise CodecError("event", [f"expected object, got {type(value).__name__} @ $"])
    tag = value.get("type")
    cls = EVENT_TYPES.get(tag) if isinstance(tag, str) else None
    if cls is None:
        raise CodecError("event", [f"unknown event type {tag!r} @ $.type"])
    return from_json({key: item for key, item in value.items() if key != "type"}, cls, what="event")


def decode_entry(seq: int, data: bytes) -> Entry:
    """Return the stored entry at `seq`. Raises `LogError` (`log_bad_event`) for anything that is not one."""
    entry = read(seq, data)
    if entry is not None:
        return entry
    value, body, info = split_envelope(seq, data)
    try:
        event = event_from_json(value)
    except CodecError as exc:
        raise LogError(seq, f"it is malformed: {exc}", code=Code.LOG_BAD_EVENT) from None
    return Entry(seq, event, body, info["run_id"], info["ts_millis"], info)


# -- values a handler types itself: ctx.write_typed, ctx.read_typed ------------------------------------------


def unstructure_typed(value: Any, kind: Any = None) -> Any:
    """Return the JSON of an attrs instance, datetime, Decimal, bytes, UUID, Enum, tuple or a nest of them."""
    return typed_converter().unstructure(value, unstructure_as=kind)


def typed_bytes(value: Any, kind: Any = None) -> bytes:
    """Return the canonical bytes of a typed value, from which `structure_typed` makes an equal one of equal types.

    Raises `CanonicalError` with the path of a part that would not survive, and the remedy.
    """
    try:
        return _bytes_that_come_back(value, kind)
    except CanonicalError as exc:
        if kind is None and getattr(type(value), "__parameters__", None):
            name = type(value).__name__
            problem = f"{name} is generic, and is read with its types; give them: kind={name}[...]"
            raise CanonicalError("$", problem) from None
        if kind is not None or (kinder := _kind_that_keeps(value)) is None:
            raise
        problem = exc.problem.partition(";")[0]
        raise CanonicalError(exc.path, f"{problem}; give kind={kind_text(kinder)}") from None


def _kind_that_keeps(value: Any) -> Any:
    """Return the inferred type with which a container can be written and read back equal, or None."""
    if type(value) not in {list, tuple, dict}:
        return None
    try:
        kind = kind_of(value)
        _bytes_that_come_back(value, kind)
    except (CanonicalError, RecursionError):  # the latter from what contains itself
        return None
    return kind


def _bytes_that_come_back(value: Any, kind: Any) -> bytes:
    try:
        plain = unstructure_typed(value, kind)
    except NameError as exc:
        problem = (
            f"{type(value).__name__} cannot be written: {exc}; define it where the class is, in its module"
        )
        raise CanonicalError("$", problem) from None
    except Exception as exc:  # noqa: BLE001 - hooks meet values of any class
        raise CanonicalError(
            "$", f"{type(value).__name__} cannot be written: {exc}; {remedy(value)}"
        ) from None
    try:
        data = canonical.encode(plain)
    except CanonicalError as exc:
        raise _not_kept(plain, exc) from None
    _check_comes_back(value, kind, canonical.decode(data))
    return data


def _not_kept(plain: Any, exc: CanonicalError) -> CanonicalError:
    """Return the error for a value without a JSON form for its declared type, with a remedy."""
    if "ctx.write_typed" not in exc.problem:
        return exc
    todo: list[tuple[str, Any]] = [("$", plain)]
    while todo:
        path, value = todo.pop()
        if path == exc.path and isinstance(value, Unkept):
            return CanonicalError(path, value.problem)
        if path == exc.path and not isinstance(value, str | int | float | dict | list | tuple):
            return CanonicalError(path, f"{type(value).__name__} is not JSON; {remedy(value)}")
        if isinstance(value, dict) and len(path) < len(exc.path):
            todo += [
                (path + canonical.path_of(str(key)).removeprefix("$"), item) for key, item in value.items()
            ]
        elif isinstance(value, list | tuple) and len(path) < len(exc.path):
            todo += [(f"{path}[{at}]", item) for at, item in enumerate(value)]
    return exc


def _check_comes_back(value: Any, kind: Any, plain: Any) -> None:
    """Raise `CanonicalError` unless reading the JSON `plain` returns `value`."""
    if kind is None and value is None:
        return
    try:
        back = typed_converter().structure(plain, type(value) if kind is None else kind)
    except Exception as exc:  # noqa: BLE001 - the same
        problem, _, where = problems_of(exc)[0].rpartition(" @ ")
        culprit = part_at(value, where)
        name = type(culprit).__name__
        raise CanonicalError(
            where,
            excluded(culprit)
            or f"{name} is not what is declared there ({problem}); {remedy_declared(culprit)}",
        ) from None
    lost = difference(value, back)
    if lost is not None:
        raise CanonicalError(*lost)


def structure_typed(value: Any, kind: Any) -> Any:
    """Return the value of type `kind` that `unstructure_typed` made `value` from. Raises `CodecError`."""
    try:
        return typed_converter().structure(value, kind)
    except Exception as exc:  # noqa: BLE001 - the same
        raise CodecError(getattr(kind, "__name__", str(kind)), problems_of(exc)) from None
