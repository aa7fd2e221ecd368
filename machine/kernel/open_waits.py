"""The waits of handlers that are not over: for an approval, a signal, a timer or a child run."""

from __future__ import annotations

from collections.abc import Container
from typing import Final, NamedTuple

import attrs

from machine.errors import Code, LogError
from machine.events import Entry, FactRecorded, WaitBegun
from machine.waits import WAIT_KINDS, HandlerWait

DUE: Final = "due_ms"
"""Name in the info of `wait_begun` for the end of its time limit, in milliseconds since the epoch, as text."""

CHILD: Final = "child"
"""Name in the info of `wait_begun` for the id of the child run."""

WAKE: Final = "wake_ms"
"""Name in the info of `run_suspended` for the time at which a child run of it can go on by itself, as text."""

MESSAGE: Final = "message"
"""Name in the info of an answer for the number of the message that it hands out, as text."""


class OpenWait(NamedTuple):
    """A wait that has no answer yet. `since_ms` is when it was first begun, `child` the id of a child run.

    `due_ms` is the end of its time limit, None without one. Both times are in milliseconds since the epoch. An
    attempt that begins it again, because the one before has failed or was interrupted, changes neither.
    """

    begun: WaitBegun
    since_ms: int
    due_ms: int | None
    child: str | None

    @property
    def as_wait(self) -> HandlerWait:
        """The wait as an event names it."""
        begun = self.begun
        return WAIT_KINDS[begun.namespace](begun.key, begun.state_id, self.due_ms)


@attrs.define
class OpenWaits:
    """The open waits of a run's handlers, in `by_key` in the order they were begun."""

    by_key: dict[str, OpenWait] = attrs.field(factory=dict)
    heard: dict[int, int] = attrs.field(factory=dict)
    """The numbers of the messages that facts have handed out, each with the time of the fact."""
    children: dict[str, OpenWait] = attrs.field(factory=dict)
    """The waits for child runs, as they were last begun, whether or not they are over."""
    every_child: dict[str, OpenWait] = attrs.field(factory=dict)
    """The waits for child runs by the ids of those: several have one key where one was given up and replaced."""
    latest_ms: int = 0
    """The time of the last answer, in milliseconds since the epoch; 0 without one."""

    def any_beyond(self, states: Container[str]) -> bool:
        """Say whether a wait is open of a state that is none of these."""
        return any(wait.begun.state_id not in states for wait in self.by_key.values())

    def begin(self, entry: Entry, event: WaitBegun) -> None:
        """Open a wait. Raises `LogError` when its attempt has begun it already."""
        before = self.by_key.get(event.key)
        if before is not None:
            known = before.begun
            if (known.state_id, known.attempt) == (event.state_id, event.attempt):
                text = f"the wait {event.key!r} was begun already"
                raise LogError(entry.seq, text, code=Code.LOG_DUPLICATE_FACT)
            self._open(before._replace(begun=event))
            return
        if event.namespace not in WAIT_KINDS:
            raise LogError(entry.seq, f"{event.namespace!r} is no kind of wait", code=Code.LOG_WAIT)
        child = entry.info.get(CHILD)
        self._open(
            OpenWait(event, entry.ts_millis, _number(entry, DUE), child if isinstance(child, str) else None)
        )

    def _open(self, wait: OpenWait) -> None:
        self.by_key[wait.begun.key] = wait
        if wait.child is not None:
            self.children[wait.begun.key] = self.every_child[wait.child] = wait

    def end(self, entry: Entry, event: FactRecorded) -> None:
        """Close a wait with its outcome. Raises `LogError` for a fact that is no answer to it."""
        begun = self.by_key.pop(event.key).begun
        asked = begun.state_id, begun.attempt, begun.namespace, begun.request_digest
        if asked != (event.state_id, event.attempt, event.namespace, event.request_digest):
            text = f"the fact {event.key!r} is no answer to the wait of that key"
            raise LogError(entry.seq, text, code=Code.LOG_WAIT)
        self.latest_ms = max(self.latest_ms, entry.ts_millis)
        if (number := _number(entry, MESSAGE)) is not None:
            self.heard[number] = entry.ts_millis

    def has_heard(self, number: int, ts_millis: int) -> bool:
        """Say whether a fact has handed out the message with this number that was posted then.

        A copy of the run in another store has an inbox of its own, whose messages are later and count from 1 again.
        """
        return number in self.heard and ts_millis <= self.heard[number]

    def of_state(self, state_id: str) -> tuple[HandlerWait, ...]:
        """Return the open waits of a state, in the order they were begun."""
        return tuple(wait.as_wait for wait in self.by_key.values() if wait.begun.state_id == state_id)

    def close(self, state_id: str) -> None:
        """Close the waits of a state that has ended."""
        for wait in self.of_state(state_id):
            del self.by_key[wait.key]

    def check_suspended(self, seq: int, state_id: str, attempt: int) -> None:
        """Raise `LogError` unless an attempt that is suspended waits for something."""
        place = state_id, attempt
        if not any((wait.begun.state_id, wait.begun.attempt) == place for wait in self.by_key.values()):
            text = f"{state_id} is suspended and waits for nothing"
            raise LogError(seq, text, code=Code.LOG_WAIT)


def _number(entry: Entry, name: str) -> int | None:
    text = entry.info.get(name)
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() else None
