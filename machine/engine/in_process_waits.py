"""Waiting in the process of a driver, where only waits for external input are left, before the run is suspended.

An answer is one that the caller gave in advance, one that comes meanwhile, or the time: a driver can wait for that
or, in a test, jump over it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol, TypeAlias

import anyio
import attrs

from machine import canonical
from machine.engine.cancellation_origin import Stopped
from machine.engine.reporter import Reporter
from machine.engine.stop_signal import Control
from machine.errors import Code, UsageError
from machine.events import FactRecorded, WaitBegun
from machine.ids import RESERVED_FACT_PREFIX
from machine.kernel.history import History
from machine.kernel.known_after_apply import mark_of
from machine.kernel.open_waits import OpenWait
from machine.secrets.policy import SecretPolicy
from machine.secrets.refused_answer import refuse_in_answer

Clock: TypeAlias = Literal["wall", "skip"]
"""The clock of the timers: that of the store, or one that jumps to the next time that is waited for."""

LOOK_SECONDS: Final = 0.2
"""Seconds between two looks into the inbox."""

_ANSWERED: Final = frozenset({"wait.approval", "wait.signal"})
"""The kinds of waits that are answered in advance."""

_APPROVAL_FIELDS: Final = frozenset({"approved", "by", "comment", "value"})


@attrs.frozen
class Waiting:
    """The choice of a caller: `seconds` to wait in the process (None: no limit), the clock, answers in advance."""

    seconds: float | None = 0
    skips: bool = False
    answers: Mapping[str, Any] = MappingProxyType({})
    used: set[str] = attrs.field(factory=set, eq=False)
    """The names of the answers that a wait has taken, in the run or in a child of it."""

    @property
    def here(self) -> bool:
        """True when an answer may come before the driver returns."""
        return self.skips or bool(self.answers) or self.seconds != 0

    @classmethod
    def of(
        cls,
        wait: float | None,
        clock: Clock = "wall",
        answers: Mapping[str, Any] | None = None,
        policy: SecretPolicy | None = None,
    ) -> Waiting:
        """Return the checked choice. Raises `UsageError` and `CanonicalError`."""
        number = isinstance(wait, int | float) and not isinstance(wait, bool)
        if wait is not None and not (number and 0 <= wait < math.inf):
            raise UsageError(f"wait is {wait!r}: it must be a number of seconds from 0, or None for no limit")
        if clock not in {"wall", "skip"}:
            raise UsageError(f"clock is {clock!r}: it must be 'wall' or 'skip'")
        if not isinstance(answers or {}, Mapping):
            raise UsageError(f"answers must be a mapping, not {type(answers).__name__}")
        given = dict(answers or {})
        canonical.encode(given)
        refuse_in_answer(given, policy=policy)
        return cls(wait, clock == "skip", MappingProxyType(given))


class WaitingLog(Protocol):
    """The log of a run whose waits are answered in the process of its driver."""

    history: History

    def deliver(self) -> int:
        """Record the answers that have come by now, and return how many."""
        ...

    def now_ms(self) -> int:
        """Return the time, in milliseconds since the epoch."""
        ...

    def skip_to(self, ms: int) -> None:
        """Let the time be at least this."""
        ...

    def asked(self, wait: OpenWait) -> Any:
        """Return the request of a wait."""
        ...

    def answer(self, wait: OpenWait, payload: Mapping[str, Any]) -> None:
        """Record an answer to a wait."""
        ...

    async def durable(self) -> None:
        """Return when all emitted events are durable."""
        ...


class Patience:
    """The waits of one driver in its process; `woken` says which states can go on because of a child run."""

    def __init__(
        self,
        waiting: Waiting,
        log: WaitingLog,
        woken: Callable[[History], AbstractSet[str]],
        *,
        dry: bool = False,
    ) -> None:
        """Take `dry`, true for a dry run, whose waits nobody else answers."""
        self._dry = dry
        self._waiting = waiting
        self._log = log
        self._woken = woken
        if waiting.skips:  # an earlier driver may have been further
            log.skip_to(max(log.history.open_waits.latest_ms, log.history.started_ms or 0))
        self._left = math.inf if waiting.seconds is None else waiting.seconds

    @property
    def left(self) -> float | None:
        """The number of seconds that may still be waited here, None without limit."""
        return None if self._left == math.inf else max(self._left, 0)

    async def goes_on(self) -> bool:
        """Return True once a wait is answered, False when the run is to be suspended."""
        if self._answer_given() or self._known_later() or self._skip():
            return True
        if self._left > 0:
            await self._log.durable()
        while self._left > 0:
            if self._log.deliver() or self._woken(self._log.history):
                return True
            began = time.monotonic()
            await anyio.sleep(min(LOOK_SECONDS, self._left, self._seconds_to_next()))
            self._left -= time.monotonic() - began
        return bool(self._log.deliver() or self._woken(self._log.history))

    def _answer_given(self) -> bool:
        """Answer the first wait that the caller has given an answer to, if there is any."""
        for wait in self._log.history.open_waits.by_key.values() if self._waiting.answers else ():
            for name in self._names(wait):
                if name in self._waiting.answers:
                    self._waiting.used.add(name)
                    self._log.answer(wait, self._payload(wait, self._waiting.answers[name]))
                    return True
        return False

    def _known_later(self) -> bool:
        """Answer a wait of a dry run that nobody has given an answer to: what it will be is known after apply."""
        for wait in self._log.history.open_waits.by_key.values() if self._dry else ():
            if wait.begun.namespace in {"wait.approval", "wait.signal"}:
                self._log.answer(wait, {**mark_of(wait.begun.state_id), "at_ms": self._log.now_ms()})
                return True
        return False

    def _names(self, wait: OpenWait) -> list[str]:
        """Return the names under which a wait may be answered in advance."""
        begun = wait.begun
        if begun.namespace == "wait.approval":
            return [begun.key, begun.state_id]
        return (
            [begun.key, self._log.asked(wait)["name"], begun.state_id]
            if begun.namespace == "wait.signal"
            else []
        )

    def _payload(self, wait: OpenWait, given: Any) -> dict[str, Any]:
        at = {"at_ms": self._log.now_ms()}
        if wait.begun.namespace == "wait.signal":
            return {"number": 0, "value": given, **at}
        return {**approval_of(given), **at}

    def _skip(self) -> bool:
        """Jump to the next time that is waited for, if the clock does."""
        if not (self._waiting.skips or self._dry) or (next_ms := self._next_ms()) is None:
            return False
        self._log.skip_to(next_ms)
        return bool(self._log.deliver())

    def _seconds_to_next(self) -> float:
        next_ms = self._next_ms()
        return math.inf if next_ms is None else max(next_ms - self._log.now_ms(), 1) / 1000

    def _next_ms(self) -> int | None:
        """Return the next time that is waited for, None without one."""
        waits = self._log.history.open_waits.by_key.values()
        return min((wait.due_ms for wait in waits if wait.due_ms is not None), default=None)


def report_unused(
    waiting: Waiting, history: History, load: Callable[[str], bytes], reporter: Reporter
) -> None:
    """Report the answers given in advance that no wait has taken: a wrong name must not go unnoticed."""
    if not (left := waiting.answers.keys() - waiting.used):
        return
    asked: list[FactRecorded | WaitBegun] = [*history.facts.values()]
    asked += [wait.begun for wait in history.open_waits.by_key.values()]
    names: dict[str, None] = {}
    for each in (one for one in asked if one.namespace in _ANSWERED):
        own = [] if each.key.startswith(RESERVED_FACT_PREFIX) else [each.key]
        if each.namespace == "wait.signal":
            own.append(canonical.decode_stored(each.request_digest, load(each.request_digest))["name"])
        names |= dict.fromkeys(own or [each.state_id])
        if isinstance(each, FactRecorded):
            left -= {*own, each.key, each.state_id}
    if left:
        reporter.unused_answers(sorted(left), list(names))


def approval_of(given: Any) -> dict[str, Any]:
    """Return the answer to an approval: `given` is True or False, or an object with `approved` and more.

    Raises `UsageError` (`invalid_input`).
    """
    answer = {"approved": given} if isinstance(given, bool) else given
    valid = isinstance(answer, Mapping) and isinstance(answer.get("approved"), bool)
    texts = [answer.get(name) for name in ("by", "comment")] if valid else []
    if (
        not valid
        or answer.keys() - _APPROVAL_FIELDS
        or not all(isinstance(text, str | None) for text in texts)
    ):
        raise UsageError(
            f"the answer to an approval is true, false, or an object with {', '.join(sorted(_APPROVAL_FIELDS))}, "
            f"not {given!r}",
            code=Code.INVALID_INPUT,
        )
    return {name: answer.get(name) for name in ("approved", "by", "comment", "value")}


async def answered_or(
    goes_on: Callable[[], Awaitable[bool]] | None, suspend: Callable[[], Awaitable[bool]], control: Control
) -> None:
    """Wait for an answer in this process, and suspend the run if there is none; also one that is stopped meanwhile.

    It is not suspended over a message that came since, which may be an answer.
    """
    try:
        if goes_on is not None and await goes_on():
            return
    except (Stopped, KeyboardInterrupt, anyio.get_cancelled_exc_class()):
        if not control.cancelling:
            with anyio.CancelScope(shield=True):
                await suspend()
        raise
    await suspend()
