"""The clock and the randomness that a test gives the recording of its golden."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from blake3 import blake3

from machine.errors import UsageError
from machine.io.clock import SLEEP, ClockTransport
from machine.io.entropy import EntropyTransport
from machine.io.transport import Transport


class FixedClock(ClockTransport):
    """A clock that stands still, but for sleeps: one moves it to the time at which it began plus its seconds.

    A sleep is waited for as always.
    """

    __slots__ = ("_now",)

    def __init__(self, start_ms: int) -> None:
        self._now = start_ms

    async def perform(self, namespace: str, request: Any) -> int | None:
        """Return the time in milliseconds since 1970, or sleep and return None."""
        if namespace == "clock.now":
            return self._now
        began = self._now
        await super().perform(namespace, request)
        if namespace == SLEEP:
            self._now = max(self._now, began + round(request["seconds"] * 1000))
        return None


class SeededRandomness(EntropyTransport):
    """Random bytes that depend on a seed and on the number of draws before, and on nothing else."""

    __slots__ = ("_draws", "_seed")

    def __init__(self, seed: int | str) -> None:
        self._seed = f"{type(seed).__name__}:{seed}"
        self._draws = 0

    async def perform(self, namespace: str, request: Any) -> dict[str, str]:
        """Return `{"hex": ...}` with the requested number of bytes."""
        wanted = len((await super().perform(namespace, request))["hex"]) // 2
        self._draws += 1
        return {"hex": blake3(f"{self._draws}:{self._seed}".encode()).hexdigest(wanted)}


def clock_of(clock: Any, transports: Any) -> int | None:
    """Return the time of a check in milliseconds since 1970, None without one. Raises `UsageError`."""
    if clock is None:
        return None
    _refuse_two("clock", "clock", transports)
    if isinstance(clock, datetime) and clock.tzinfo is not None:
        clock = round(clock.timestamp() * 1000)
    if type(clock) is not int or clock < 0:
        raise UsageError(
            f"clock must be a datetime with a time zone, or whole milliseconds since 1970, not {clock!r}",
            hint="datetime(2026, 1, 31, 12, 0, tzinfo=UTC)",
        )
    return clock


def seed_of(seed: Any, transports: Any) -> int | str | None:
    """Return the seed of a check, None without one. Raises `UsageError`."""
    if seed is None:
        return None
    _refuse_two("seed", "random", transports)
    if isinstance(seed, bool) or not isinstance(seed, int | str):
        raise UsageError(f"seed must be a whole number or a text, not {seed!r}")
    return seed


def _refuse_two(option: str, namespace: str, transports: Any) -> None:
    if any(name.partition(".")[0] == namespace for name in transports or ()):
        raise UsageError(
            f"{option}= and a transport of {namespace} are two answers to one call",
            hint="give one of the two",
        )


def world_of(
    transports: Mapping[str, Transport] | None, clock_ms: int | None, seed: int | str | None
) -> Mapping[str, Transport] | None:
    """Return the transports of a live run of a check, with its clock and its randomness."""
    own: dict[str, Transport] = {}
    if clock_ms is not None:
        own["clock"] = FixedClock(clock_ms)
    if seed is not None:
        own["random"] = SeededRandomness(seed)
    return {**(transports or {}), **own} if own else transports
