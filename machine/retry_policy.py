"""The retries of a state: how many, after what delay, and after which failures.

Values only. A class of exceptions is held by its name, `module:Class`: a recorded policy needs no import.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final, TypeAlias

import attrs

from machine.errors import Code, ConfigError, IdError, PlanError
from machine.ids import ErrorCode
from machine.importable_names import class_name, found_class

LONGEST_SECONDS: Final = 365 * 24 * 3600.0
"""The largest delay or timeout: one year."""

Failures: TypeAlias = Iterable[str | type[BaseException]]
"""Failures as a user names them: by error code, by class, or by `module:Class`."""

_NEVER: Final = frozenset(
    str(code)
    for code in (
        Code.ORPHAN_ATTEMPT_RECOVERED,
        Code.ATTEMPT_INTERRUPTED,
        Code.ATTEMPT_SUSPENDED,
        Code.RUN_CANCELLED,
        Code.LIMIT_EXCEEDED,
    )
)
"""The codes of attempts that ended without failing."""


def refused(name: str, problem: str) -> ConfigError:
    """Return the error for a value that a configuration cannot have."""
    return ConfigError(f"{name} {problem}", code=Code.INVALID_CONFIG)


def _seconds(_: Any, field: attrs.Attribute[Any], value: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and 0 <= value <= LONGEST_SECONDS):
        raise refused(field.name, f"must be a number of seconds from 0 to one year, not {value!r}")


def _share(_: Any, field: attrs.Attribute[Any], value: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and 0 <= value <= 1):
        raise refused(field.name, f"must be a number from 0 (none) to 1 (the whole delay), not {value!r}")


def check_count(_: Any, field: attrs.Attribute[Any], value: int) -> None:
    """Raise `ConfigError` unless a value is a whole number from 1 to 1000000."""
    if type(value) is not int or not 1 <= value <= 1_000_000:  # noqa: PLR2004 - the rule itself
        raise refused(field.name, f"must be a whole number from 1 to 1000000, not {value!r}")


@attrs.frozen
class FixedBackoff:
    """Wait `delay` seconds before every further attempt."""

    type: ClassVar[str] = "fixed"

    delay: float = attrs.field(default=0.0, validator=_seconds)

    def seconds(self, attempt: int) -> float:
        """Return the delay after attempt `attempt` (from 0), in seconds."""
        del attempt
        return self.delay


@attrs.frozen
class ExponentialBackoff:
    """Wait `min(max_delay, base_delay * 2**n)` seconds after attempt n (from 0)."""

    type: ClassVar[str] = "exponential"

    base_delay: float = attrs.field(default=0.1, validator=_seconds)
    max_delay: float = attrs.field(default=60.0, validator=_seconds)

    def seconds(self, attempt: int) -> float:
        """Return the delay after attempt `attempt` (from 0), in seconds."""
        # beyond 2**64 every non-zero base is past the cap of a year; the bound keeps the power a float
        return min(self.max_delay, self.base_delay * 2.0 ** min(attempt, 64))


def _backoff(_: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, FixedBackoff | ExponentialBackoff):
        raise refused(field.name, f"must be a FixedBackoff or an ExponentialBackoff, not {value!r}")


def _failures(value: Failures) -> tuple[str, ...]:
    if isinstance(value, str | type):
        raise refused("retry_on or give_up_on", f"must be a list of error codes and classes, not {value!r}")
    return tuple(dict.fromkeys(_failure(each) for each in value))


def _failure(named: Any) -> str:
    """Return the recorded name of a failure. Raises `ConfigError`, and `PlanError` for a class without a name."""
    if isinstance(named, type):
        return _of_class(named)
    if isinstance(named, str):
        module, colon, qualified = named.partition(":")
        dotted = [*module.split("."), *qualified.split(".")]
        if colon and all(part.isidentifier() for part in dotted):
            return named
        try:
            code = str(ErrorCode(named))
        except IdError:
            code = ""
        if code in _NEVER:
            raise refused(
                f"error code {code}", "is of attempts that end without a failure, so it is never retried"
            )
        if code:
            return code
    raise refused(
        f"{named!r}", "is no error code and no class of exceptions: a class is written module:Class"
    )


def _of_class(cls: type) -> str:
    name = class_name(cls)
    if not issubclass(cls, BaseException):
        raise _unknown(name, "is no class of exceptions")
    if "<" in name or name.startswith("__main__:"):
        raise _unknown(name, "cannot be imported: define it at the top of a module")
    return name


def _unknown(name: str, problem: str) -> PlanError:
    return PlanError(
        f"the class {name} of a retry policy {problem}",
        code=Code.RETRY_CLASS_UNKNOWN,
        hint="give a class that a module has under its own name, or the error code of the failure",
        details={"class": name},
    )


@attrs.frozen
class RetryPolicy:
    """The number of attempts of a state (the first included), the delays between them, and what is retried.

    `jitter` is the share of each delay that is left to chance: with 0.2 it is between 80 % and all of what
    `backoff` says. `retry_on` lists the failures that are retried, by error code or class of exceptions, in place
    of what the failure itself says; `give_up_on` lists those that never are.
    """

    max_attempts: int = attrs.field(default=1, validator=check_count)
    backoff: FixedBackoff | ExponentialBackoff = attrs.field(factory=FixedBackoff, validator=_backoff)
    jitter: float = attrs.field(default=0.0, validator=_share, kw_only=True)
    retry_on: tuple[str, ...] = attrs.field(default=(), converter=_failures, kw_only=True)
    give_up_on: tuple[str, ...] = attrs.field(default=(), converter=_failures, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.jitter and not self.backoff.seconds(0):
            raise refused("jitter", "is a share of the delay, and the backoff has none")
        if both := [name for name in self.retry_on if name in self.give_up_on]:
            raise refused(f"{both[0]}", "is both in retry_on and in give_up_on")

    def delay_ms(self, attempt: int) -> int:
        """Return the longest delay after attempt `attempt` (from 0), in whole milliseconds."""
        return round(self.backoff.seconds(attempt) * 1000)

    def least_delay_ms(self, attempt: int) -> int:
        """Return the shortest delay after attempt `attempt` (from 0), in whole milliseconds."""
        return round(self.backoff.seconds(attempt) * (1 - self.jitter) * 1000)

    @property
    def selects(self) -> bool:
        """True when the policy says which failures are retried."""
        return bool(self.retry_on or self.give_up_on)

    def retries(self, names: Iterable[str], *, retryable: bool) -> bool:
        """Say whether a failure is retried: `names` are its code and its classes, `retryable` is what it says."""
        names = set(names)
        if not names.isdisjoint(self.give_up_on):
            return False
        return not names.isdisjoint(self.retry_on) if self.retry_on else retryable

    def check_classes(self, owner: str) -> None:
        """Raise `PlanError` for a class that cannot be imported. Not for the policy of a recording."""
        for name in (*self.retry_on, *self.give_up_on):
            if ":" not in name:
                continue
            try:
                found = found_class(name)
            except Exception as exc:  # noqa: BLE001 - importing a user's module may raise anything
                problem = f"cannot be imported for {owner}: {type(exc).__name__}: {exc}"
                raise _unknown(name, problem) from None
            if not (isinstance(found, type) and issubclass(found, BaseException)):
                raise _unknown(name, f"is no class of exceptions, for {owner}")
            if class_name(found) != name:
                raise _unknown(name, f"is {class_name(found)}, for {owner}: write that")
