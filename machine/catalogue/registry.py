"""Kinds of domain events by name and version, as an immutable value.

A catalogue only looks names up and passes payloads on for validation; it must never change once made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Final

import attrs

from machine.catalogue.field_types import in_words
from machine.errors import Code, CodecError, UsageError
from machine.events import KERNEL_EVENTS

_NAME: Final = re.compile("[a-z][a-z0-9_]{0,62}")


class Level(StrEnum):
    """The importance of a kind: a minimal profile has the essential ones, a normal one all but the verbose."""

    ESSENTIAL = "essential"
    NORMAL = "normal"
    VERBOSE = "verbose"


@attrs.frozen
class Custom:
    """An event of a type that only the caller knows."""

    event_type: str
    data: Any


@attrs.frozen
class Kind:
    """One version of one known event: its name, the attrs class of its payload, and its level.

    `kernel` says what the engine records for the same happening, without anybody emitting it; empty for nothing.
    """

    name: str
    payload: type[Any]
    level: Level = Level.NORMAL
    version: int = 1
    kernel: str = ""


@attrs.frozen
class Catalogue:
    """The known kinds of domain events, in the order in which they were registered.

    Raises `UsageError` (`invalid_domain_event`) for a name that is invalid or belongs to a kernel event, for a
    version below 1, and for a duplicate name and version, or a duplicate payload class.
    """

    kinds: tuple[Kind, ...] = ()
    _by_version: Mapping[tuple[str, int], Kind] = attrs.field(init=False, eq=False, repr=False)
    _latest: Mapping[str, Kind] = attrs.field(init=False, eq=False, repr=False)
    _by_type: Mapping[type[Any], Kind] = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        by_version: dict[tuple[str, int], Kind] = {}
        latest: dict[str, Kind] = {}
        by_type: dict[type[Any], Kind] = {}
        for kind in self.kinds:
            _check_name(kind.name)
            if kind.version < 1:
                raise _refuse(f"version {kind.version} of {kind.name!r} is invalid: versions count from 1")
            if (kind.name, kind.version) in by_version:
                raise _refuse(f"version {kind.version} of {kind.name!r} is registered already")
            if kind.payload in by_type:
                other = by_type[kind.payload].name
                raise _refuse(
                    f"{kind.payload.__name__} is the payload of {other!r} already, not of {kind.name!r}"
                )
            by_version[kind.name, kind.version] = by_type[kind.payload] = kind
            if kind.name not in latest or latest[kind.name].version < kind.version:
                latest[kind.name] = kind
        object.__setattr__(self, "_by_version", by_version)
        object.__setattr__(self, "_latest", latest)
        object.__setattr__(self, "_by_type", by_type)

    def __iter__(self) -> Iterator[Kind]:
        return iter(self.kinds)

    def __len__(self) -> int:
        return len(self.kinds)

    def __contains__(self, name: object) -> bool:
        return name in self._latest

    def register(
        self, name: str, payload: type[Any], *, version: int = 1, level: Level = Level.NORMAL
    ) -> Catalogue:
        """Return a catalogue with one more kind.

        `payload` is an attrs class whose fields JSON can hold exactly. Raises `UsageError`
        (`invalid_domain_event`) when it is not, and in the cases where a catalogue does.
        """
        if not attrs.has(payload):
            raise _refuse(f"the payload of {name!r} must be an attrs class, not {payload!r}")
        try:
            in_words(payload)
        except (TypeError, NameError) as exc:
            raise _refuse(f"the payload of {name!r} cannot be JSON: {exc}") from None
        return attrs.evolve(self, kinds=(*self.kinds, Kind(name, payload, Level(level), version)))

    def validate(self, name: str, payload: Any, version: int | None = None) -> dict[str, Any]:
        """Return the payload as a plain JSON object, with optional fields that are None left out.

        `payload` is an instance of the kind's class or a mapping. Without `version` an instance is checked
        against the version it is made of, a mapping against the latest one. An unknown name takes any JSON
        object. Raises `CodecError` (`malformed`) with every problem and its path, and `UsageError`
        (`invalid_domain_event`) for a name that no domain event may have.
        """
        from machine.catalogue import payload_converter  # noqa: PLC0415 - it brings cattrs, which is slow to import

        kind = self._kind(name, payload, version)
        what = f"payload of {name}"
        if kind is None:
            return payload_converter.plain_json(payload, what)
        return payload_converter.plain(payload, kind.payload, what)

    def structure(self, name: str, payload: Mapping[str, Any], version: int | None = None) -> Any:
        """Return the typed instance of a payload; for an unknown name a `Custom` that holds it.

        Raises as `validate` does.
        """
        from machine.catalogue import payload_converter  # noqa: PLC0415 - it brings cattrs, which is slow to import

        kind = self._kind(name, payload, version)
        what = f"payload of {name}"
        if kind is None:
            return Custom(name, payload_converter.plain_json(payload, what))
        return payload_converter.typed(payload, kind.payload, what)

    def level(self, name: str) -> Level:
        """Return the level of events of this name; unknown names are normal."""
        kind = self._latest.get(name)
        return kind.level if kind else Level.NORMAL

    def name_of(self, payload: type[Any]) -> str:
        """Return the name under which a payload class is registered. Raises `UsageError` when it is not."""
        kind = self._by_type.get(payload)
        if kind is None:
            raise _refuse(f"{payload.__name__} is not the payload of any registered kind")
        return kind.name

    def _kind(self, name: str, payload: Any, version: int | None) -> Kind | None:
        """Return the kind to check a payload against, or None for an unknown name.

        Without a `version`, that is the kind of the payload's class, else the latest. Raises `CodecError` for an
        unknown version.
        """
        _check_name(name)
        if name not in self._latest:
            return None
        if version is None:
            made_of = self._by_type.get(type(payload))
            return made_of if made_of and made_of.name == name else self._latest[name]
        if (name, version) not in self._by_version:
            known = ", ".join(str(kind.version) for kind in self.kinds if kind.name == name)
            raise CodecError(f"payload of {name}", [f"no version {version}, known are: {known} @ $"])
        return self._by_version[name, version]


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        rule = "a lowercase letter, then up to 62 of a-z, 0-9 and _"
        raise _refuse(f"event name {name!r} is invalid: {rule}")
    if name in KERNEL_EVENTS:
        raise _refuse(f"{name!r} is a kernel event: only the engine writes it")


def _refuse(message: str) -> UsageError:
    return UsageError(message, code=Code.INVALID_DOMAIN_EVENT)
