"""The log of a replay: everything emitted is compared with the recording, byte for byte, in its order.

It writes nothing. Inside an attempt, an emission that was recorded later is held back until its turn, so a
handler that races calls sees the same winner; one that can never have its turn is a divergence, not a hang.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

import anyio

from machine import canonical, codec
from machine.errors import Code, StoreError
from machine.events import (
    EffectIntended,
    Entry,
    Event,
    FactRecorded,
    RunCompleted,
    RunStarted,
    StateCompleted,
    StateEntered,
    StateFailed,
)
from machine.io.call import Call
from machine.io.scope import AttemptScope, Payloads
from machine.kernel.history import History
from machine.kernel.status import RunStatus
from machine.plan import Graph, PlanState
from machine.replay.asked import asked
from machine.replay.compare import context_changes, likeliest, near_calls, plan_shape
from machine.replay.divergence import Divergence, DivergenceKind, NearCall
from machine.replay.pointer import Change, diff
from machine.replay.requests import RecordedRequests

__all__ = ["Diverged", "RecordingEnds", "ReplayLog"]

STALL_SECONDS: Final = 1.0
"""How long a handler that races tasks may make no progress, beyond the time its attempt took when recorded."""

PATIENCE_SECONDS: Final = 30.0
PATIENCE: Final = 10
"""How long a whole attempt may take in replay: this many times as long as recorded, and the seconds besides."""


class Diverged(BaseException):
    """Carries a divergence out of a handler. Not an `Exception`, so that no handler takes it for a failed call."""

    def __init__(self, divergence: Divergence) -> None:
        super().__init__(str(divergence))
        self.divergence = divergence


class RecordingEnds(BaseException):
    """The recording ends here, without the run having ended."""


class ReplayLog:
    """The recording of a run, and how far a replay has come in it."""

    def __init__(
        self,
        recorded: Sequence[Entry],
        load: Callable[[str], bytes],
        on_entry: Callable[[Entry], None],
        graphs: Mapping[str, Graph] | None = None,
    ) -> None:
        """`graphs` are the plans that the run went by, by id, where there was more than one."""
        self.history = History()
        self.divergence: Divergence | None = None
        self._recorded = recorded
        self._load = load
        self._on_entry = on_entry
        self._graphs = graphs or {}
        self._payloads: Mapping[str, tuple[str, bytes]] = {}
        self._at = 0
        self._begin = self._end = 0
        self._facts: dict[str, list[FactRecorded]] = {}
        self._intents: dict[str, EffectIntended] = {}
        self.requests = RecordedRequests(load)
        self._left: Counter[bytes] = Counter()
        self._waiting: dict[bytes, list[anyio.Event]] = {}
        self._scope: AttemptScope | None = None
        self._ended = False
        self._damage: StoreError | None = None

    # -- what the driver asks ----------------------------------------------------------------------------

    def outside(self, graph: Graph) -> tuple[Graph, bool]:
        """Take over what an operator said, and what was asked of the run at this point of the recording."""
        while self.history.status is RunStatus.SUSPENDED and isinstance(self._next(), FactRecorded):
            self._consume_to(self._at + 1)
        plan_id, cancel = asked(self._next())
        return (self._graphs.get(plan_id, graph) if plan_id else graph), cancel

    def _next(self) -> Event | None:
        return self._recorded[self._at].event if self._at < len(self._recorded) else None

    def carry(self, state_id: str, attempt: int) -> bool:
        """Take over the attempt that is next in the recording when it was cut, or is still open.

        What cut it came from outside and is not in any handler to reproduce; its facts are inputs like others.
        """
        self._begin = self._end = min(self._at, len(self._recorded) - 1)
        self._facts, self._intents, self._left = {}, {}, Counter()
        if self._at >= len(self._recorded):
            return False
        first = self._recorded[self._at].event
        if not isinstance(first, StateEntered) or (first.state_id, first.attempt) != (state_id, attempt):
            return False
        for index in range(self._at + 1, len(self._recorded)):
            event = self._recorded[index].event
            self._end = index
            self._left[self._recorded[index].body] += 1
            self.requests.note(event)
            if isinstance(event, FactRecorded):
                self._facts.setdefault(event.key, []).append(event)
            elif isinstance(event, EffectIntended):
                self._intents[event.key] = event
            elif isinstance(event, StateCompleted):
                return False
            elif isinstance(event, StateFailed):
                if event.cut:
                    self._consume_to(index + 1)
                return event.cut
        self._consume_to(len(self._recorded))
        return True

    def abort(self) -> BaseException | None:
        """Return why the replay cannot go on, whatever a handler made of the exception."""
        if self.divergence is not None:
            return Diverged(self.divergence)
        if self._damage is not None:
            return self._damage
        return RecordingEnds() if self._ended else None

    def limit(self, timeout: float | None) -> float | None:
        """Return how long an attempt may take: replay never sleeps, so far less than this is enough."""
        del timeout
        return PATIENCE_SECONDS + PATIENCE * (self.stall_seconds - STALL_SECONDS)

    def overdue(self, state: PlanState, timeout: float | None) -> BaseException:
        """Return the divergence of an attempt that was recorded to its end and does not come to one."""
        del state, timeout
        with contextlib.suppress(Diverged):
            if self.divergence is None:
                self._missing(
                    self._recorded[self._at], "the handler waits for something that is no call of io"
                )
        return self.abort() or RecordingEnds()

    def attach(self, scope: AttemptScope) -> None:
        """Note the attempt that is about to be replayed."""
        self._scope = scope

    # -- what io asks ------------------------------------------------------------------------------------

    async def emit(
        self, events: Sequence[Event], payloads: Payloads | None = None, info: Mapping[str, str] | None = None
    ) -> None:
        """Compare events with the recording, each in its turn. Raises `Diverged` or `RecordingEnds`."""
        del info
        if payloads is not None:
            self._payloads = payloads.items
        for event in events:
            await self._match(event, codec.encode_event(event))

    async def durable(self) -> None:
        """Return at once: a replay writes nothing."""

    def load(self, artifact_id: str) -> bytes:
        """Return an artifact of the recording, or one this replay has just made."""
        made = self._payloads.get(artifact_id)
        if made is not None:
            return made[1]
        try:
            return self._load(artifact_id)
        except StoreError as exc:  # no fault of the handler that happened to read: the recording is damaged
            self._damage = exc
            raise

    def fact(self, key: str) -> FactRecorded | None:
        """Return the fact the open attempt recorded under a key."""
        left = self._facts.get(key)
        return left[0] if left else None

    def intended(self, key: str) -> EffectIntended | None:
        """Return the intent of an effect that the open attempt recorded under a key."""
        return self._intents.get(key)

    def unrecorded(self, call: Call) -> NoReturn:
        """Raise: the handler made a call that was never recorded."""
        left = [
            (entry, entry.event)
            for entry in self._recorded[self._at : self._end]
            if isinstance(entry.event, FactRecorded)
        ]
        fitting = likeliest(left, call, self._request)
        now = {"namespace": call.namespace, "request": call.request}
        if not fitting:
            seq = left[0][0].seq if left else self._seq()
            summary = f"a call of {call.namespace} that was never recorded"
            near = near_calls(left, call, self._request)
            self._diverge(DivergenceKind.CALL_ADDED, seq, summary, None, now, nearest=near)
        entry, fact = fitting[0]
        recorded = {"namespace": fact.namespace, "request": self._request(fact)}
        self._diverge(
            DivergenceKind.REQUEST_CHANGED,
            entry.seq,
            f"the request of a call of {call.namespace} has changed",
            recorded,
            now,
            nearest=near_calls([item for item in left if item[1] is not fact], call, self._request),
        )

    def not_given_up(self, fact: FactRecorded) -> NoReturn:
        """Raise: the handler waits for a call that it had cancelled when it was recorded."""
        entry = next(entry for entry in self._recorded[self._at : self._end] if entry.event == fact)
        self._diverge(
            DivergenceKind.EVENT_DIFFERS,
            entry.seq,
            f"the handler waits for a call of {fact.namespace} that it had given up when it was recorded",
            codec.event_to_json(fact),
            {"namespace": fact.namespace, "request": self._request(fact)},
            changes=(),
        )

    @property
    def stall_seconds(self) -> float:
        """How long to wait for a handler that races tasks before calling it stuck."""
        span = self._recorded[self._end].ts_millis - self._recorded[self._begin].ts_millis
        return STALL_SECONDS + max(span, 0) / 1000

    def stuck(self) -> NoReturn:
        """Raise: what the recording says comes next is never asked for."""
        entry = self._recorded[self._at]
        self._missing(entry, "the handler waits for something that was recorded after it")

    # -- comparing ---------------------------------------------------------------------------------------

    async def _match(self, event: Event, body: bytes) -> None:
        inside = self._scope is not None and not self._scope.closed and not isinstance(event, StateEntered)
        while True:
            self._raise_if_over()
            entry = self._recorded[self._at]
            if entry.body == body or self.requests.same(entry.body, body):
                self._consume_to(self._at + 1)
                return
            if not inside or not self._left[body]:
                self._differs(entry, event)
            if not self._waiting and self._alone() and self._scope and not self._scope.state.blocking:
                self.stuck()
            await self._turn(body)

    async def _turn(self, body: bytes) -> None:
        """Wait until the recording has come to `body`. Raises when nothing comes any nearer."""
        come = anyio.Event()
        self._waiting.setdefault(body, []).append(come)
        try:
            while not come.is_set():
                at = self._at
                with anyio.move_on_after(self.stall_seconds):
                    await come.wait()
                if not come.is_set() and self._at == at:
                    self.stuck()
        finally:
            waiting = self._waiting[body]
            waiting.remove(come)
            if not waiting:
                del self._waiting[body]

    def _alone(self) -> bool:
        return self._scope is None or self._scope.quiet.alone

    def _raise_if_over(self) -> None:
        reason = self.abort()
        if reason is None and self._at >= len(self._recorded):
            self._ended = True
            reason = RecordingEnds()
        if reason is not None:
            raise reason

    def _consume_to(self, end: int) -> None:
        for entry in self._recorded[self._at : end]:
            self.history.advance(entry)
            self._on_entry(entry)
            self._left[entry.body] -= 1
            if isinstance(entry.event, FactRecorded) and (left := self._facts.get(entry.event.key)):
                left.pop(0)
        self._at = end
        if self._waiting and end < len(self._recorded):
            for come in self._waiting.get(self._recorded[end].body, ())[:1]:
                come.set()

    # -- saying what differs -----------------------------------------------------------------------------

    def _differs(self, entry: Entry, event: Event) -> NoReturn:
        recorded, now = entry.event, codec.event_to_json(event)
        then = codec.event_to_json(recorded)
        if now.get("error", {}).get("code") == Code.UNDECLARED_IO != then.get("error", {}).get("code"):
            summary = f"the attempt ends with {now['error']['message']}"
            self._diverge(DivergenceKind.UNDECLARED_IO, entry.seq, summary, then, now)
        if isinstance(recorded, RunStarted) and isinstance(event, RunStarted):
            self._plan_changed(entry, recorded, event)
        if isinstance(event, StateCompleted | StateFailed) and isinstance(
            recorded, FactRecorded | EffectIntended
        ):
            self._missing(entry, f"the handler ended ({event.type}) without making a recorded call", event)
        if isinstance(event, StateCompleted) and isinstance(recorded, StateCompleted):
            self._snapshot_differs(entry, recorded, event)
        if asked(recorded)[0] is not None:
            summary = "the recording goes on with another plan here, which is not the one of this replay"
            self._diverge(DivergenceKind.PLAN_CHANGED, entry.seq, summary, codec.event_to_json(recorded), now)
        if isinstance(event, RunCompleted) and not isinstance(recorded, RunCompleted):
            summary = f"the run ends ({event.status}) where the recording goes on with {recorded.type}"
            self._diverge(DivergenceKind.ENDED_EARLY, entry.seq, summary, codec.event_to_json(recorded), now)
        if recorded.type == event.type:
            summary = f"{event.type} differs"
        else:
            summary = f"the recording has {recorded.type} where there is now {event.type}"
        if isinstance(event, StateFailed):
            summary += f" ({event.error.code}: {event.error.message})"
        self._diverge(DivergenceKind.EVENT_DIFFERS, entry.seq, summary, codec.event_to_json(recorded), now)

    def _missing(self, entry: Entry, summary: str, event: Event | None = None) -> NoReturn:
        recorded: Any = codec.event_to_json(entry.event)
        if isinstance(entry.event, FactRecorded):
            recorded = {"namespace": entry.event.namespace, "request": self._request(entry.event)}
        now = None if event is None else codec.event_to_json(event)
        kind = DivergenceKind.CALL_MISSING
        if not isinstance(entry.event, FactRecorded | EffectIntended):
            kind = DivergenceKind.EVENT_DIFFERS
        self._diverge(kind, entry.seq, summary, recorded, now, changes=())

    def _snapshot_differs(self, entry: Entry, recorded: StateCompleted, event: StateCompleted) -> NoReturn:
        keys, before, after, changes = context_changes(
            (self._load, recorded.context_snapshot_id), (self.load, event.context_snapshot_id)
        )
        self._diverge(
            DivergenceKind.SNAPSHOT_DIFFERS,
            entry.seq,
            f"the context differs in {', '.join(keys)}",
            before,
            after,
            changes=changes,
        )

    def _plan_changed(self, entry: Entry, recorded: RunStarted, event: RunStarted) -> NoReturn:
        if recorded.plan_id == event.plan_id and recorded.op_id == event.op_id:
            self._diverge(
                DivergenceKind.EVENT_DIFFERS,
                entry.seq,
                "the run begins differently",
                codec.event_to_json(recorded),
                codec.event_to_json(event),
            )
        shapes = [plan_shape(self.load, plan_id) for plan_id in (recorded.plan_id, event.plan_id)]
        self._diverge(
            DivergenceKind.PLAN_CHANGED, entry.seq, "the plan has changed since the recording", *shapes
        )

    def _diverge(
        self,
        kind: DivergenceKind,
        seq: int,
        summary: str,
        recorded: Any,
        now: Any,
        *,
        nearest: Sequence[NearCall] = (),
        changes: Sequence[Change] | None = None,
    ) -> NoReturn:
        attempt = self.history.open
        self.divergence = Divergence(
            kind=kind,
            seq=seq,
            summary=summary,
            state_id=attempt.state_id if attempt else None,
            attempt=attempt.attempt if attempt else None,
            recorded=recorded,
            now=now,
            changes=diff(recorded, now) if changes is None else changes,
            nearest=nearest,
        )
        for come in [come for waiting in self._waiting.values() for come in waiting]:
            come.set()  # it will find that its turn never comes
        if self._scope is not None and self._scope.limit is not None:
            self._scope.limit.cancel()  # a handler may swallow what is raised here, and go on
        raise Diverged(self.divergence)

    def _seq(self) -> int:
        return self._recorded[min(self._at, len(self._recorded) - 1)].seq

    def _request(self, fact: FactRecorded) -> Any:
        return canonical.decode(self._load(fact.request_digest))
