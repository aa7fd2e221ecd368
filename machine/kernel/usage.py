"""The amounts that a run has used, as its log says, and the limit that it has used up."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

import attrs

from machine.config import RunConfig
from machine.errors import Code, ConfigError, ErrorCategory, ErrorInfo, LogError
from machine.events import Entry, LimitReached
from machine.limits import Limits, exact, total, written

SPENT: Final = "spent"
"""Name in the info of a fact for what its call has spent: input tokens, output tokens and US dollars, as text."""

WALL_MS: Final = "wall_ms"
"""Name in the info of an event for the milliseconds in which attempts have been open."""


class Spent(NamedTuple):
    """The tokens and US dollars of one call."""

    input_tokens: int
    output_tokens: int
    cost: Decimal

    def text(self) -> str:
        """Return the text that stands in the info of its fact."""
        return f"{self.input_tokens} {self.output_tokens} {written(self.cost)}"

    @classmethod
    def read(cls, text: Any) -> Spent | None:
        """Return what a text in the info of a fact says, None for one that says nothing of the kind."""
        try:
            taken, made, cost = str(text).split(" ")
            return cls(int(taken), int(made), exact(cost))
        except ValueError:
            return None


BREAKER: Final = "breaker"
"""Name in the info of a fact for the circuit breaker that its outcome changed, as text."""


class Breaker(NamedTuple):
    """A circuit breaker: its rule and host, its failures in a row, and since when it is open, if it is."""

    place: str
    failures: int
    opened_ms: int | None = None

    def text(self) -> str:
        """Return the text that stands in the info of a fact."""
        opened = "" if self.opened_ms is None else self.opened_ms
        return f"{self.place} {self.failures} {opened}".rstrip()

    @classmethod
    def read(cls, text: Any) -> Breaker | None:
        """Return what a text in the info of a fact says, None for one that says nothing of the kind."""
        match str(text).split(" "):
            case [rule, host, failures, *opened] if failures.isdecimal() and len(opened) < 2:  # noqa: PLR2004
                opened_ms = int(opened[0]) if opened and opened[0].isdecimal() else None
                return cls(f"{rule} {host}", int(failures), opened_ms)
        return None


@attrs.define
class Usage:
    """The amounts that a run has used so far."""

    attempts: int = 0
    states: int = 0
    facts: int = 0
    retries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal = Decimal(0)
    wall_ms: int = 0
    work_ms: int | None = None
    """The part of that before the cleanup, None until it has begun."""
    breakers: dict[str, Breaker] = attrs.field(factory=dict)
    """The circuit breakers that are not closed, or have seen a failure, by rule and host."""
    reached: LimitReached | None = None
    """The limit that the run has used up."""
    reached_seq: int = 0
    """The event that says so."""

    @property
    def tokens(self) -> int:
        """The tokens of both kinds."""
        return self.input_tokens + self.output_tokens

    @property
    def limited(self) -> bool:
        """True once the run has used up a limit."""
        return self.reached is not None

    @property
    def spent(self) -> str | None:
        """The tokens and dollars so far as the info of a fact says them, None for nothing."""
        spent = Spent(self.input_tokens, self.output_tokens, self.cost)
        return spent.text() if any(spent) else None

    def count_fact(self, info: Mapping[str, Any]) -> None:
        """Count a fact, with what its info says."""
        self.facts += 1
        self.note(info)

    def note(self, info: Mapping[str, Any]) -> None:
        """Add what the info of an entry says of time and money."""
        if len(info) > 2:  # noqa: PLR2004 - nearly always it names only the run and the time
            if (spent := Spent.read(info[SPENT]) if SPENT in info else None) is not None:
                self.input_tokens += spent.input_tokens
                self.output_tokens += spent.output_tokens
                self.cost = total(self.cost, spent.cost)
            if (breaker := Breaker.read(info[BREAKER]) if BREAKER in info else None) is not None:
                if breaker.failures:
                    self.breakers[breaker.place] = breaker
                else:
                    self.breakers.pop(breaker.place, None)
            if str(ms := info.get(WALL_MS, "")).isdecimal():
                self.wall_ms = max(self.wall_ms, int(ms))

    def reach(self, entry: Entry, event: LimitReached) -> None:
        """Note the limit that the run has used up. Raises `LogError` for a second one."""
        if self.reached is not None:
            text = f"the limit {event.name} is reached after the limit {self.reached.name}"
            raise LogError(entry.seq, text, code=Code.LOG_LIMIT)
        self.reached, self.reached_seq = event, entry.seq

    def of(self, name: str, wall_ms: int = 0) -> str:
        """Return the amount that counts against a limit; `wall_ms` is the time as far as it is known here."""
        wall_ms = max(self.wall_ms, wall_ms)
        if name == "wall_seconds":
            return written(exact(wall_ms) / 1000)
        if name == "cleanup":
            return written(exact(wall_ms - (wall_ms if self.work_ms is None else self.work_ms)) / 1000)
        return written(self.cost) if name == "cost" else str(getattr(self, name))


def refuse_spent(limits: Limits, usage: Usage) -> None:
    """Raise `ConfigError` (`invalid_limit`) for limits of which a run has used more already."""
    for name, limit in limits.given.items():
        if exact(used := usage.of(name)) > exact(limit):
            raise ConfigError(
                f"limit {name} is {limit}, and {used} of it are used already",
                code=Code.INVALID_LIMIT,
                details={"limit": name, "value": used, "of": limit},
            )


_AT_EVERY_STEP: Final = ("tokens", "cost", "wall_seconds")


def limit_of_call(config: RunConfig, usage: Usage, wall_ms: int) -> LimitReached | None:
    """Return the limit that refuses a further call, None when it may be made."""
    return _used_up(config, usage, ("facts", *_AT_EVERY_STEP), wall_ms)


def limit_of_attempt(
    config: RunConfig, usage: Usage, wall_ms: int, *, first: bool = False, goes_on: bool = False
) -> LimitReached | None:
    """Return the limit that refuses a further attempt, None when it may begin.

    `first` says whether it is the first of its state, and `goes_on` whether it was suspended and is no new one.
    """
    own = () if goes_on else ("attempts", "states") if first else ("attempts",)
    return _used_up(config, usage, (*own, *_AT_EVERY_STEP), wall_ms)


def _used_up(config: RunConfig, usage: Usage, names: tuple[str, ...], wall_ms: int) -> LimitReached | None:
    limits = config.limits
    for name in names:
        limit = getattr(limits, name)
        if limit is not None and exact(used := usage.of(name, wall_ms)) >= exact(limit):
            return LimitReached(name, used)
    return None


def limit_of(error: ErrorInfo | None) -> str | None:
    """Return the limit because of which a run ended with an error, None for any other end."""
    reached = error is not None and error.code == Code.LIMIT_EXCEEDED and error.details
    return reached["limit"] if reached else None


def limit_error(reached: LimitReached) -> ErrorInfo:
    """Return why a run ends that has used up a limit."""
    return ErrorInfo(
        code=Code.LIMIT_EXCEEDED,
        category=ErrorCategory.UNKNOWN,
        retryable=False,
        message=f"the run has used up its limit {reached.name}: {reached.value}",
        details={"limit": reached.name, "value": reached.value},
    )
