"""Validated identifiers: each refuses a bad value with `IdError` naming the kind, the value and the rule.

They are strings at run time (an id in an event costs nothing to write) and distinct types to a type checker.
"""

from __future__ import annotations

import re
from typing import Final, Self

from machine.errors import IdError

_SEGMENT: Final = "[a-z][a-z0-9_]{0,62}"
RESERVED_FACT_PREFIX: Final = "@"
"""Fact keys that the engine assigns begin with this; callers may not."""

CALL_KEY: Final = re.compile(
    rf"{RESERVED_FACT_PREFIX}[^/]*/([0-9]{{1,9}})(?:/(?:.*/)?[0-9]{{1,9}})?", re.DOTALL
)
"""A key that the engine gave to a call of a handler: the state, the attempt, ..., the number of the call."""


def piece_key(key: str, number: int) -> str:
    """Return the key of a part of a stream, given that of its call; no caller and no other call can have it."""
    return f"{key if key.startswith(RESERVED_FACT_PREFIX) else f'{RESERVED_FACT_PREFIX}#{key}'}#{number}"


def stream_key(piece: str) -> str:
    """Return the key of the call that a part of a stream belongs to."""
    return piece.rpartition("#")[0].removeprefix(f"{RESERVED_FACT_PREFIX}#")


STANDARD_TAGS: Final = frozenset(
    {"config", "fetch_data", "compute", "execute", "report", "apply_side_effect", "impure"}
)
"""Tags with an agreed meaning; any other valid tag may be used too."""


class _Id(str):
    """A string that has passed its kind's rule."""

    __slots__ = ()
    rule: str
    _match: re.Pattern[str]

    def __new__(cls, value: str) -> Self:
        if type(value) is cls:
            return value
        if not isinstance(value, str) or cls._match.fullmatch(value) is None:
            raise IdError(f"{cls.__name__} {value!r} is invalid: {cls.rule}")
        return super().__new__(cls, value)


class OpId(_Id):
    """A named operation a user can run; stable, never random."""

    __slots__ = ()
    rule = "a lowercase letter, then up to 62 of a-z, 0-9 and _"
    _match = re.compile(_SEGMENT)


class OpPath(_Id):
    """A step of an operation: `<machine>.<step>`."""

    __slots__ = ()
    rule = "two segments joined by a dot, each a lowercase letter, then up to 62 of a-z, 0-9 and _"
    _match = re.compile(rf"{_SEGMENT}\.{_SEGMENT}")


class StateId(_Id):
    """A state of a plan: `<machine>.<step>.<state>`; assigned by the plan."""

    __slots__ = ()
    rule = "three segments joined by dots, each a lowercase letter, then up to 62 of a-z, 0-9 and _"
    _match = re.compile(rf"{_SEGMENT}\.{_SEGMENT}\.{_SEGMENT}")


class RunId(_Id):
    """A UUID in its usual lowercase spelling; version 7 when generated, so that ids sort by creation."""

    __slots__ = ()
    rule = "a lowercase UUID such as 01932d4e-7c1a-7b3f-9a41-3f0c5f1a2b3c"
    _match = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class ArtifactId(_Id):
    """The BLAKE3-256 of an artifact's bytes."""

    __slots__ = ()
    rule = "64 lowercase hex digits"
    _match = re.compile(r"[0-9a-f]{64}")


class Tag(_Id):
    """A label on a state."""

    __slots__ = ()
    rule = "1 to 64 of a-z, 0-9, _ . : and -"
    _match = re.compile(r"[a-z0-9_.:-]{1,64}")


class ScheduleName(_Id):
    """The name of a schedule: a part of the invocation keys of its runs, which a colon separates."""

    __slots__ = ()
    rule = "1 to 64 of a-z, 0-9, _ . and -"
    _match = re.compile(r"[a-z0-9_.-]{1,64}")


class ErrorCode(_Id):
    """A stable error code."""

    __slots__ = ()
    rule = "a lowercase letter, then up to 62 of a-z, 0-9 and _"
    _match = re.compile(_SEGMENT)


class _Printable(_Id):
    __slots__ = ()
    longest: int

    def __new__(cls, value: str) -> Self:
        if type(value) is cls:
            return value
        if not isinstance(value, str) or not 1 <= len(value) <= cls.longest or not value.isprintable():
            raise IdError(f"{cls.__name__} {value!r} is invalid: {cls.rule}")
        return str.__new__(cls, value)


class ContextKey(_Printable):
    """A key of the context."""

    __slots__ = ()
    longest = 256
    rule = "1 to 256 printable characters"


class StreamName(_Printable):
    """A stream that a run publishes."""

    __slots__ = ()
    longest = 128
    rule = "1 to 128 printable characters"


class VersionId(_Printable):
    """A change of a handler's code."""

    __slots__ = ()
    longest = 128
    rule = "1 to 128 printable characters"


class ArtifactName(_Printable):
    """The name that a handler gives to an artifact of its run: of a file, and never of a path."""

    __slots__ = ()
    longest = 128
    rule = "1 to 128 printable characters, no '/', '\\' or ':', not beginning with '.' or '-', no blank at an end"

    def __new__(cls, value: str) -> Self:
        """Return `value` as a name. Raises `IdError`."""
        if isinstance(value, str) and (
            set(value) & set("/\\:") or value.startswith((".", "-")) or value.strip() != value
        ):
            raise IdError(f"{cls.__name__} {value!r} is invalid: {cls.rule}")
        return super().__new__(cls, value)


class FactKey(_Printable):
    """An explicit name for a fact, given by a caller; single-assignment for its run."""

    __slots__ = ()
    longest = 512
    rule = "1 to 512 printable characters, not beginning with '@' (reserved for the engine)"

    def __new__(cls, value: str) -> Self:
        """Return `value` as a fact key. Raises `IdError`."""
        if isinstance(value, str) and value.startswith(RESERVED_FACT_PREFIX):
            raise IdError(f"FactKey {value!r} is invalid: {cls.rule}")
        return super().__new__(cls, value)
