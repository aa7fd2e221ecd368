"""The delivery of answers: what the inbox of a run, the clock and its child runs say becomes facts of its waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from machine import canonical
from machine.events import ArtifactKind, FactRecorded, FactValue
from machine.io.attempt_scope import Log, Payloads
from machine.kernel.history import History
from machine.kernel.open_waits import MESSAGE
from machine.kernel.wait_answers import WAIT_MESSAGES, WaitAnswer, correlation_of, due_answers
from machine.stores.base import Message, Store

Children = Mapping[str, Mapping[str, Any]]
"""The results of child runs that have ended, by the keys of the waits for them."""


class Delivery(NamedTuple):
    """An answer on its way into the log."""

    fact: FactRecorded
    payloads: Payloads
    info: Mapping[str, str]
    at_ms: int
    takes: tuple[int, ...] = ()
    """The number of the signal by correlation that it hands out, if it does."""


class Inbox:
    """The messages to one run that no fact has handed out; `seen` is the number of the last one that was read."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.seen = 0
        self._store = store
        self._run_id = run_id
        self._messages: list[Message] = []

    def read(self) -> list[Message]:
        """Return the messages that may answer waits, those that came since the last look included."""
        for message in self._store.inbox(self._run_id, self.seen):
            self.seen = message.number
            if message.kind in WAIT_MESSAGES:
                self._messages.append(message)
        return self._messages

    def due(
        self, history: History, load: Callable[[str], bytes], now_ms: int, children: Children
    ) -> list[Delivery]:
        """Return the answers that the waits of a run have by now, but for those of open attempts.

        An attempt that is open gets its answers once it was put away.
        """
        waits = history.open_waits
        signals = [
            signal
            for asked in dict.fromkeys(self.awaits(history, load))
            for signal in self._store.signals(*asked)
        ]
        found = due_answers(waits, _requests(load), self.read(), now_ms, children, signals=signals)
        self._messages = [
            message for message in self._messages if not waits.has_heard(message.number, message.ts_millis)
        ]
        return [delivery(each) for each in found if each.wait.begun.state_id not in history.open]

    @staticmethod
    def awaits(history: History, load: Callable[[str], bytes]) -> list[tuple[str, str]]:
        """Return the names and the correlations of the signals that the handlers of a run wait for."""
        request = _requests(load)
        asked = (correlation_of(wait, request) for wait in history.open_waits.by_key.values())
        return [pair for pair in asked if pair is not None]


def delivery(answer: WaitAnswer) -> Delivery:
    """Return the fact of an answer, with what belongs to it."""
    begun, payloads = answer.wait.begun, Payloads()
    payload_id = payloads.add(ArtifactKind.FACT_PAYLOAD, canonical.encode(answer.payload))
    fact = FactRecorded(
        begun.key, begun.namespace, begun.request_digest, FactValue(payload_id), begun.state_id, begun.attempt
    )
    info = {} if answer.message is None else {MESSAGE: str(answer.message)}
    takes = () if answer.signal is None else (answer.signal,)
    return Delivery(fact, payloads, info, answer.payload.get("at_ms", 0), takes)


def _requests(load: Callable[[str], bytes]) -> Callable[[str], Any]:
    """Return what reads the request of a wait, by its digest."""
    return lambda digest: canonical.decode_stored(digest, load(digest))


class DeliveringLog(Log, Protocol):
    """A log that can be given the answers that are due."""

    def deliver(self) -> int:
        """Record the answers that open waits have by now, and return how many."""
        ...


async def deliver(log: DeliveringLog) -> int:
    """Record the answers that the waits of a run have by now, durably, and return how many."""
    count = log.deliver()
    if count:
        await log.durable()
    return count
