"""The converter that all others are derived from: it reads strictly, and coerces nothing."""

from __future__ import annotations

import collections.abc
import enum
import itertools
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final

import cattrs
from cattrs.cols import homogenous_tuple_structure_factory, list_structure_factory, mapping_structure_factory

from machine.errors import MachineError
from machine.ids import _Id

_MOST_NAMED: Final = 20
_MOST_ITEMS: Final = 1000
"""The size of the parts in which a larger array or object is read, up to the first part with a problem: reporting
every problem of millions of items would cost a thousand times as much as reading them."""

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


def json_only(container: type, inner: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return `inner` for a JSON array or object only: cattrs itself accepts any iterable."""
    kinds, name = ({dict}, "object") if container is dict else ({list, tuple}, "array")

    def structure(value: Any, kind: Any) -> Any:
        if type(value) not in kinds:
            raise TypeError(f"expected {name}, got {type(value).__name__}")
        return inner(value, kind)

    return structure


def object_only(inner: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return `inner`, a reader of the fields of a class, for an object only."""

    def structure(value: Any, kind: Any) -> Any:
        if type(value) is not dict and not isinstance(value, Mapping):
            raise TypeError(f"expected object, got {type(value).__name__}")
        return inner(value, kind)

    return structure


class _StrictConverter(cattrs.Converter):
    def gen_structure_attrs_fromdict(self, cl: type[Any]) -> Callable[[Any, Any], Any]:
        return object_only(super().gen_structure_attrs_fromdict(cl))

    def gen_structure_typeddict(self, cl: Any) -> Callable[[Any, Any], Any]:
        return object_only(super().gen_structure_typeddict(cl))


def _origin(kind: Any) -> Any:
    return typing.get_origin(kind)


def in_parts(inner: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return `inner`, a reader of containers, with a bound on the problems it reports."""

    def structure(value: Any, kind: Any) -> Any:
        if len(value) <= _MOST_ITEMS:
            return inner(value, kind)
        items = iter(value.items() if type(value) is dict else value)
        parts: list[Any] = []
        while part := type(value)(itertools.islice(items, _MOST_ITEMS)):
            try:
                read = inner(part, kind)
            except Exception as exc:  # noqa: BLE001 - whatever a hook trips over, the JSON is what is wrong
                text = f"of {len(value)} items, one after the first {len(parts)}: {problems_of(exc)[0]}"
                raise ValueError(text) from None
            parts += read.items() if type(read) is dict else read
        return type(read)(parts)

    return structure


def _strict_containers(converter: cattrs.Converter) -> None:
    def array(kind: Any, _: Any = None) -> Callable[[Any, Any], Any]:
        if typing.get_origin(kind) is not tuple:
            return json_only(list, in_parts(list_structure_factory(kind, converter)))
        if typing.get_args(kind)[-1:] == (Ellipsis,):
            return json_only(list, in_parts(homogenous_tuple_structure_factory(kind, converter)))
        return json_only(list, fixed_tuple)

    def fixed_tuple(value: Any, kind: Any) -> Any:
        kinds = typing.get_args(kind)
        if len(value) != len(kinds):
            raise ValueError(f"expected {len(kinds)} items, got {len(value)}")
        return tuple(converter.structure(item, asked) for item, asked in zip(value, kinds, strict=True))

    def mapping(kind: Any, _: Any = None) -> Callable[[Any, Any], Any]:
        return json_only(dict, in_parts(mapping_structure_factory(kind, converter)))

    converter.register_structure_hook_factory(lambda kind: _origin(kind) in {list, tuple}, array)
    converter.register_structure_hook_factory(
        lambda kind: _origin(kind) in {dict, collections.abc.Mapping}, mapping
    )


def strict_converter() -> cattrs.Converter:
    """Return a converter that reads JSON as the requested types, or refuses it."""
    converter = _StrictConverter(forbid_extra_keys=True)
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


def problems_of(exc: BaseException) -> list[str]:
    """Return the problems of a JSON value, each with its path."""

    def describe(error: BaseException, _: Any) -> str:
        if isinstance(error, KeyError) and not isinstance(error, MachineError):
            return f"required field {error.args[0]!r} is missing"
        if isinstance(error, cattrs.ForbiddenExtraKeysError):
            unknown = sorted(map(str, error.extra_fields))
            more = f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
            return f"unknown fields: {', '.join(unknown[:_MOST_NAMED])}{more}"
        if isinstance(error, RecursionError):
            return "nested too deeply"
        if isinstance(error, cattrs.StructureHandlerNotFoundError):  # its message already says what to do
            return f"{getattr(error.type_, '__name__', error.type_)} is no type that can be read"
        return str(error)

    return cattrs.transform_error(exc, format_exception=describe)
