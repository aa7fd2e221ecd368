"""An attempt that goes on after it was put away: a replay of its recording, which turns live at its end.

Everything that it did before is compared with the recording, event by event, and nothing is done again. A
difference ends the attempt, because its code has changed or is not deterministic.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NoReturn

import anyio
import attrs

from machine import codec
from machine.errors import Code, ErrorInfo
from machine.events import Entry, Event, FactRecorded
from machine.exception_to_error_info import refused
from machine.ids import stream_key
from machine.io.attempt_scope import AttemptScope, Log, Payloads
from machine.io.going_on_io import GoingOnIo
from machine.io.live_io import LiveIo
from machine.io.provider import IoProvider
from machine.io.replay_io import ReplayIo
from machine.kernel.history import History
from machine.kernel.linearize import AttemptParts, parts_of_attempt
from machine.kernel.outputs import Output
from machine.recordings.divergence import Diverged, Divergence
from machine.recordings.divergence_text import details_of
from machine.recordings.replay_log import ReplayLog
from machine.recordings.replay_recorder import ReplayRecorder


class GoingOnLog(ReplayLog):
    """The log of an attempt that goes on: its recording, and from its end on the log of the run."""

    def __init__(self, parts: AttemptParts, live: Log) -> None:
        before, own, _ = parts
        super().__init__([*before, *own], live.load, lambda _: None)
        self.history = History(in_seq=False, digested=False)
        self.live = live
        self._over = anyio.Event()
        self._consume_to(len(before) + 1)
        self._begin, self._end = len(before), len(self._recorded) - 1
        for entry in own[1:]:
            self._attempt.expect(entry)
        recorded = self._attempt
        self.keys = {*recorded.facts, *recorded.intents, *recorded.begins, *_streams(own)}
        if self.over:
            self._over.set()

    @property
    def over(self) -> bool:
        """True at the end of the recording, from where the attempt is live."""
        return self._at >= len(self._recorded)

    async def until_over(self) -> None:
        """Return at the end of the recording. Raises `Diverged` when that does not come."""
        while not self.over:
            self._raise_if_over()
            at = self._at
            with anyio.move_on_after(self.stall_seconds):
                await self._over.wait()
            if self._at == at and not self.over:
                self._missing()

    async def emit(
        self, events: Sequence[Event], payloads: Payloads | None = None, info: Mapping[str, str] | None = None
    ) -> None:
        """Compare events with the recording; those that it does not have are emitted after its end."""
        if not self.over:
            if self._has(events[0]):
                await super().emit(events, payloads, info)
                return
            await self.until_over()
        await self.live.emit(events, payloads, info)

    def _has(self, event: Event) -> bool:
        body = codec.encode_event(event)
        return bool(self._attempt.left.get(body)) or self.requests.same(self._recorded[self._at].body, body)

    def abort(self) -> BaseException | None:
        """Return the exception that ended the attempt, or the run."""
        return super().abort() or self.live.abort()

    def put(self, kind: str, data: bytes) -> str:
        """Store an artifact: what comes after the recording is live, and the rest is there already."""
        return self.live.put(kind, data)

    def output(self, name: str) -> Output | None:
        """Return the output that has a name in the run, or None."""
        return self.live.output(name)

    def now_ms(self) -> int:
        """Return the time by the clock of the store."""
        return self.live.now_ms()

    def let_rest_through(self) -> None:
        """Let the rest of the recording through, as far as somebody waits for it."""
        self._consume_to(self._turns.let_through_to(b"", self._recorded, self._at, len(self._recorded)))

    def _consume_to(self, end: int) -> None:
        super()._consume_to(end)
        if self.over and self._scope is not None:
            self._scope.log = self.live
            self._over.set()

    def _diverge(self, divergence: Divergence) -> NoReturn:
        self._over.set()
        super()._diverge(divergence)

    def _end_attempt(self) -> None:
        """Do nothing: the limit of a live attempt is that of its state."""


def _streams(entries: Iterable[Entry]) -> set[str]:
    """Return the keys of the streams whose parts an attempt recorded."""
    facts = (entry.event for entry in entries if isinstance(entry.event, FactRecorded))
    return {stream_key(fact.key) for fact in facts if fact.piece is not None}


class EarlierPart:
    """The recorded part of an attempt that was put away, as the driver of its run uses it."""

    def __init__(self, entries: Iterable[Entry], state_id: str, attempt: int, live: Log) -> None:
        self._state_id = state_id
        self._recording = GoingOnLog(parts_of_attempt(entries, state_id, attempt), live)

    @property
    def log(self) -> Log:
        """The log of the attempt."""
        return self._recording

    def io(self, scope: AttemptScope, live: IoProvider) -> IoProvider:
        """Return the `io` of the attempt, given the one that it has after the recording."""
        assert isinstance(live, LiveIo)
        log = self._recording
        log.attach(scope)
        if log.over:
            scope.log = log.live
        return GoingOnIo(scope, ReplayIo(scope, log, log.requests.like), live, log)

    def recorder(self, scope: AttemptScope) -> ReplayRecorder:
        """Return the `rec` of the attempt."""
        return ReplayRecorder(scope, self._recording, {})

    def changed(self) -> ErrorInfo | None:
        """Return the error of an attempt that does not do again what it did; None when it has."""
        log = self._recording
        if log.divergence is None and not log.over:
            with contextlib.suppress(Diverged):
                log.nothing_comes()
        return None if log.divergence is None else changed(self._state_id, log.divergence)


def changed(state_id: str, divergence: Divergence) -> ErrorInfo:
    """Return the error of a suspended attempt that does not do again what it did."""
    error = refused(
        f"{state_id} no longer does what it did before it was suspended: {divergence.summary}",
        Code.SUSPENDED_CODE_CHANGED,
    )
    return attrs.evolve(error, details=details_of(divergence))


def replay_up_to(
    parts: AttemptParts, ending: Entry, load: Callable[[str], bytes], *, whole: bool
) -> ReplayLog:
    """Return the log of a replay of one attempt, which stands where that begins.

    `ending` ends it: a suspension where it was suspended last or, with `whole`, what followed all its answers.
    """
    own = parts.own if whole else parts.own[: parts.seen]
    log = ReplayLog([*parts.before, *own, ending], load, lambda _: None)
    log.history = History(in_seq=False, digested=False)
    log.begin_at(len(parts.before))
    return log
