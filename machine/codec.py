"""The one converter between this library's types and JSON, and the one for values a handler types itself.

Models know nothing of JSON; every rule about it is here. Reading is strict: nothing is coerced, unknown fields
are refused, and all problems of a document are reported at once, each with its path.
"""

from __future__ import annotations

import base64
import binascii
import collections.abc
import datetime as dt
import decimal
import enum
import functools
import re
import typing
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import attrs
import cattrs
import orjson
from cattrs.cols import (
    homogenous_tuple_structure_factory,
    list_structure_factory,
    mapping_structure_factory,
)
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from machine import canonical, events
from machine.bounded import in_parts
from machine.config import (
    AfterEveryState,
    EventProfile,
    ExponentialBackoff,
    FanOutJoin,
    FixedBackoff,
    RunConfig,
    Sequential,
)
from machine.errors import Code, CodecError, ErrorInfo, LogError, MachineError
from machine.events import (
    EVENT_TYPES,
    EffectWait,
    Entry,
    Event,
    FactError,
    FactValue,
    PlanWait,
    StateCompleted,
    StateEntered,
)
from machine.ids import _Id

__all__ = [
    "decode_entry",
    "encode_event",
    "event_from_json",
    "event_to_json",
    "from_json",
    "structure_typed",
    "to_json",
    "unstructure_typed",
]

T = TypeVar("T")

_ANY_JSON: Final = (Mapping[str, Any], Mapping[str, Any] | None)


def _strict(kind: type) -> Callable[[Any, Any], Any]:
    def structure(value: Any, asked: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
        if asked is kind:
            return value
        # cattrs finds this hook for subclasses too: ids and string enums
        return _string_enum(value, asked) if issubclass(asked, enum.StrEnum) else asked(value)

    return structure


def _float(value: Any, _: Any) -> float:
    if type(value) not in {int, float}:
        raise TypeError(f"expected number, got {type(value).__name__}")
    return float(value)


def _string_enum(value: Any, kind: Any) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"expected one of {', '.join(kind)}, got {value!r}") from None


def _from(container: type, inner: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return `inner` for a JSON array or object only: cattrs by itself makes the best of any iterable."""
    kinds, name = ({dict}, "object") if container is dict else ({list, tuple}, "array")

    def structure(value: Any, kind: Any) -> Any:
        if type(value) not in kinds:
            raise TypeError(f"expected {name}, got {type(value).__name__}")
        return inner(value, kind)

    return structure


_MOST_NAMED: Final = 20


def _origin(kind: Any) -> Any:
    return typing.get_origin(kind)


def _strict_containers(converter: cattrs.Converter) -> None:
    def array(kind: Any, _: Any = None) -> Callable[[Any, Any], Any]:
        if typing.get_origin(kind) is not tuple:
            return _from(list, in_parts(_problems, list_structure_factory(kind, converter)))
        if typing.get_args(kind)[-1:] == (Ellipsis,):
            return _from(list, in_parts(_problems, homogenous_tuple_structure_factory(kind, converter)))
        return _from(list, fixed_tuple)

    def fixed_tuple(value: Any, kind: Any) -> Any:
        kinds = typing.get_args(kind)
        if len(value) != len(kinds):
            raise ValueError(f"expected {len(kinds)} items, got {len(value)}")
        return tuple(converter.structure(item, asked) for item, asked in zip(value, kinds, strict=True))

    def mapping(kind: Any, _: Any = None) -> Callable[[Any, Any], Any]:
        return _from(dict, in_parts(_problems, mapping_structure_factory(kind, converter)))

    converter.register_structure_hook_factory(lambda kind: _origin(kind) in {list, tuple}, array)
    converter.register_structure_hook_factory(
        lambda kind: _origin(kind) in {dict, collections.abc.Mapping}, mapping
    )


def _strict_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind in (int, str, bool):
        converter.register_structure_hook(kind, _strict(kind))
    converter.register_structure_hook(float, _float)
    # a field of any JSON is JSON already: it is passed on as it is, however deep
    converter.register_unstructure_hook_func(lambda kind: kind in _ANY_JSON, lambda value: value)
    # ids and string enums are written as plain strings, which is what the fast canonical encoder takes
    converter.register_unstructure_hook(_Id, str)
    converter.register_unstructure_hook(enum.StrEnum, lambda value: value.value)
    _strict_containers(converter)
    return converter


def _tagged(converter: cattrs.Converter, union: Any, variants: tuple[type[Any], ...]) -> None:
    """Carry a union as objects with a `type` field that names the variant."""
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
    converter = _strict_converter()
    _tagged(converter, FixedBackoff | ExponentialBackoff, (FixedBackoff, ExponentialBackoff))
    _tagged(converter, Sequential | FanOutJoin, (Sequential, FanOutJoin))
    _tagged(converter, FactValue | FactError, (FactValue, FactError))
    _tagged(converter, EffectWait | PlanWait, (EffectWait, PlanWait))
    # an optional field that is absent stays absent, so that a field added later moves no old digest
    aside: dict[str, Any] = {"causes": override(omit=True)}  # which stands in the info of an event
    converter.register_structure_hook(
        ErrorInfo, make_dict_structure_fn(ErrorInfo, converter, _cattrs_forbid_extra_keys=True, **aside)
    )
    for cls in (ErrorInfo, FactValue, *EVENT_TYPES.values()):  # inner first: cattrs inlines what it knows
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
    # absent when nothing was said, so that the configurations of before keep their bytes
    unsaid: dict[str, Any] = dict.fromkeys(
        ("secrets", "undeclared_io", "paranoid"), override(omit_if_default=True)
    )
    converter.register_unstructure_hook(RunConfig, make_dict_unstructure_fn(RunConfig, converter, **unsaid))
    return converter


def _alone(converter: cattrs.Converter, cls: type[Any]) -> None:
    """Carry a variant that has no sibling yet with its tag, so that siblings can join it."""
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
    """Return the value of type `kind` that a JSON object stands for.

    Raises `CodecError` naming every problem with its path; `what` says what was being read.
    """
    try:
        if attrs.has(kind):
            _from(dict, lambda item, _: item)(value, kind)
        return _converter().structure(value, kind)
    except Exception as exc:  # noqa: BLE001 - whatever a hook trips over, the JSON is what is wrong
        raise CodecError(what or kind.__name__, _problems(exc)) from None


def _problems(exc: BaseException) -> list[str]:
    def describe(error: BaseException, _: Any) -> str:
        if isinstance(error, KeyError) and not isinstance(error, MachineError):
            return f"required field {error.args[0]!r} is missing"
        if isinstance(error, cattrs.ForbiddenExtraKeysError):
            unknown = sorted(error.extra_fields)
            more = f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
            return f"unknown fields: {', '.join(unknown[:_MOST_NAMED])}{more}"
        return str(error)

    return cattrs.transform_error(exc, format_exception=describe)


def event_to_json(event: Event) -> dict[str, Any]:
    """Return the tagged JSON object of an event."""
    return {"type": event.type, **_converter().unstructure(event)}


def encode_event(event: Event) -> bytes:
    """Return the canonical body of an event."""
    # the two of every step, spelled as `_STEP` reads them
    if type(event) is StateEntered:
        if event.state_id.isascii() and event.base_snapshot_id.isascii():
            ids = orjson.dumps(event.base_snapshot_id), orjson.dumps(event.state_id)
            return b'{"attempt":%d,"base_snapshot_id":%b,"state_id":%b,"type":"state_entered"}' % (
                event.attempt,
                *ids,
            )
    elif (
        type(event) is StateCompleted
        and event.wrote is None
        and event.not_taken is None
        and event.state_id.isascii()
        and event.context_snapshot_id.isascii()
    ):
        ids = orjson.dumps(event.context_snapshot_id), orjson.dumps(event.state_id)
        return b'{"context_snapshot_id":%b,"state_id":%b,"type":"state_completed"}' % ids
    return canonical.encode(event_to_json(event))


def event_from_json(value: Mapping[str, Any], *, what: str = "event") -> Event:
    """Return the event a tagged JSON object stands for. Raises `CodecError`."""
    if not isinstance(value, Mapping):
        raise CodecError(what, [f"expected object, got {type(value).__name__} @ $"])
    tag = value.get("type")
    cls = EVENT_TYPES.get(tag) if isinstance(tag, str) else None
    if cls is None:
        raise CodecError(what, [f"unknown event type {tag!r} @ $.type"])
    return from_json({key: item for key, item in value.items() if key != "type"}, cls, what=what)


_NUMBER: Final = rb"(0|[1-9][0-9]{0,14})"
_HASH: Final = rb'"([0-9a-f]{64})"'
_STEP: Final = re.compile(
    rb'\{"event":(\{(?:"attempt":%b,"base_snapshot_id":%b,"state_id":"([a-z0-9_.]+)","type":"state_entered"'
    rb'|"context_snapshot_id":%b,"state_id":"([a-z0-9_.]+)","type":"state_completed")\})'
    rb',"info":\{"run_id":"([0-9a-f-]+)","ts_millis":%b\},"seq":%b\}'
    % (_NUMBER, _HASH, _HASH, _NUMBER, _NUMBER)
)
"""The two envelopes of every step, in their one canonical spelling: what fits needs no decoding to be checked."""


def decode_entry(seq: int, data: bytes) -> Entry:
    """Return the entry kept at `seq`. Raises `LogError` (`log_bad_event`) for anything that is not one."""
    step = _STEP.fullmatch(data)
    if step is not None and int(step[9]) == seq:
        body, attempt, base, entered, after, completed, run, ts, _ = step.groups()
        event: Event = (
            StateEntered(entered.decode(), int(attempt), base.decode())
            if attempt is not None
            else StateCompleted(completed.decode(), after.decode())
        )
        run_id, ts_millis = run.decode(), int(ts)
        return Entry(seq, event, body, run_id, ts_millis, {"run_id": run_id, "ts_millis": ts_millis})
    value, body, info = events.split_envelope(seq, data)
    try:
        event = event_from_json(value)
    except CodecError as exc:
        raise LogError(seq, f"it is malformed: {exc}", code=Code.LOG_BAD_EVENT) from None
    return Entry(seq, event, body, info["run_id"], info["ts_millis"], info)


# -- values a handler types itself: ctx.write_typed, ctx.read_typed ------------------------------------------


def _bytes_in(value: Any, _: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError) as exc:
        raise ValueError(f"expected base64 text ({exc})") from None


def _decimal_in(value: Any, _: Any) -> decimal.Decimal:
    if not isinstance(value, str):
        raise TypeError(f"expected the text of a decimal, got {type(value).__name__}")
    try:
        return decimal.Decimal(value)
    except decimal.InvalidOperation:
        raise ValueError(f"expected the text of a decimal, got {value!r}") from None


def _member(value: Any, kind: Any) -> Any:
    for member in kind:
        carried = _typed().unstructure(member.value)
        if type(carried) is type(value) and carried == value:
            return member
    if issubclass(kind, enum.Flag) and type(value) is int:
        return kind(value)
    raise ValueError(f"expected a value of {kind.__name__}, got {value!r}")


@functools.cache
def _typed() -> cattrs.Converter:
    converter = _strict_converter()
    converter.register_unstructure_hook(bytes, lambda value: base64.b64encode(value).decode())
    converter.register_structure_hook(bytes, _bytes_in)
    converter.register_unstructure_hook(decimal.Decimal, str)
    converter.register_structure_hook(decimal.Decimal, _decimal_in)
    converter.register_unstructure_hook(uuid.UUID, str)
    converter.register_structure_hook(uuid.UUID, lambda value, _: uuid.UUID(value))
    for kind in (dt.datetime, dt.date, dt.time):
        converter.register_unstructure_hook(kind, lambda value: value.isoformat())
        converter.register_structure_hook(kind, lambda value, kind: kind.fromisoformat(value))
    # by the JSON of its value: that may be a Decimal or a tuple, which cattrs would not carry
    converter.register_unstructure_hook(enum.Enum, lambda member: converter.unstructure(member.value))
    converter.register_structure_hook(enum.Enum, _member)
    converter.register_unstructure_hook(
        dt.timedelta, lambda value: [value.days, value.seconds, value.microseconds]
    )
    converter.register_structure_hook(dt.timedelta, lambda value, _: dt.timedelta(*value))
    return converter


def unstructure_typed(value: Any, kind: Any = None) -> Any:
    """Return the JSON of an attrs instance, datetime, Decimal, bytes, UUID, Enum, tuple or a nest of them."""
    return _typed().unstructure(value, unstructure_as=kind)


def structure_typed(value: Any, kind: Any) -> Any:
    """Return the value of type `kind` that `unstructure_typed` made `value` from. Raises `CodecError`."""
    try:
        return _typed().structure(value, kind)
    except Exception as exc:  # noqa: BLE001 - the same
        raise CodecError(getattr(kind, "__name__", str(kind)), _problems(exc)) from None
