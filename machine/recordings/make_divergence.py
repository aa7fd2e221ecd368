"""Making a `Divergence` from what a replay finds.

Nothing is decided here: the log of the replay decides whether and where there is a divergence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from machine import canonical, codec
from machine.engine.plan_change import plan_changes
from machine.errors import Code, CorruptionError, MachineError
from machine.events import (
    EffectIntended,
    Entry,
    Event,
    FactRecorded,
    RunCompleted,
    RunStarted,
    StateCompleted,
    StateFailed,
)
from machine.io.call_identity import Call
from machine.kernel.sealed_facts import REQUEST_MAC
from machine.kernel.snapshot import Snapshot
from machine.plan_shape import by_name
from machine.recordings.divergence import Divergence, DivergenceKind, NearCall
from machine.recordings.json_bodies import same_json, with_json_bodies
from machine.recordings.json_diff import Change, diff
from machine.recordings.recorded_commands import asked
from machine.recordings.step_text import changed_request, named
from machine.watch.watch import SETTING, Undeclared

_NEAREST: Final = 3

Load = Callable[[str], bytes]


@attrs.frozen
class Differences:
    """A maker of the `Divergence` for each difference between a recording and its replay.

    `recorded` and `now` load the artifacts of the two sides. The divergences name no state: the log adds it.
    """

    recorded: Load
    now: Load

    def unrecorded(self, call: Call, left: Sequence[Entry], seq: int) -> Divergence:
        """Return the divergence of a call that was never recorded.

        `left` has the unused calls of the attempt and, before `seq`, those of earlier attempts that it might reuse.
        """
        call = attrs.evolve(call, request=canonical.decode(call.data))  # in JSON 30.0 is 30
        facts = [(entry, entry.event) for entry in left if isinstance(entry.event, FactRecorded)]
        facts.sort(key=lambda item: self._distance(item[1], call))
        now = {"namespace": call.namespace, "request": call.request}
        if not facts or facts[0][1].namespace != call.namespace:
            return Divergence(
                kind=DivergenceKind.CALL_ADDED,
                seq=min((entry.seq for entry, _ in facts if entry.seq >= seq), default=seq),
                summary=f"a call of {named(call.namespace, call.request)} that was never recorded",
                now=now,
                nearest=self._near(facts, call),
            )
        entry, fact = facts[0]
        recorded = self._call(fact)
        summary = changed_request(call.namespace, recorded["request"], call.request)
        if recorded == now:
            summary = f"the fact key of a call of {named(call.namespace, call.request)} has changed"
            recorded, now = {**recorded, "key": fact.key}, {**now, "key": call.key}
        elif not diff(*with_json_bodies(recorded, now), most=1):
            how = same_json(recorded, now)
            summary = f"the request of a call of {call.namespace} has the same JSON {how}"
        else:
            recorded, now = with_json_bodies(recorded, now)
        return Divergence(
            kind=DivergenceKind.REQUEST_CHANGED,
            seq=entry.seq,
            summary=summary,
            recorded=recorded,
            now=now,
            changes=diff(recorded, now),
            nearest=self._near(facts[1:], call),
        )

    def sealed(self, entry: Entry, fact: FactRecorded, recorded: str, now: str) -> Divergence:
        """Return the divergence of a request that differs in a sealed secret, by the keyed hashes of both."""
        sides = [{**self._call(fact), REQUEST_MAC: mac} for mac in (recorded, now)]
        return Divergence(
            kind=DivergenceKind.REQUEST_CHANGED,
            seq=entry.seq,
            summary=f"the request of a call of {fact.namespace} has changed in a part that is sealed whole, "
            "since a secret is in it",
            recorded=sides[0],
            now=sides[1],
            changes=diff(*sides),
        )

    def reordered(self, entry: Entry, early: Event) -> Divergence:
        """Return the divergence of a changed order: `early` comes before the recorded `entry`."""
        is_call = isinstance(entry.event, FactRecorded | EffectIntended)
        return Divergence(
            kind=DivergenceKind.CALL_REORDERED if is_call else DivergenceKind.EVENT_DIFFERS,
            seq=entry.seq,
            summary="the handler does what was recorded in another order",
            recorded=self._side(entry.event),
            now=self._side(early),
        )

    def not_given_up(self, entry: Entry, fact: FactRecorded) -> Divergence:
        """Return the divergence of a handler that waits for a call which it cancelled in the recording."""
        return Divergence(
            kind=DivergenceKind.EVENT_DIFFERS,
            seq=entry.seq,
            summary=f"the handler waits for a call of {fact.namespace} that it had given up when it was recorded",
            recorded=codec.event_to_json(fact),
            now=self._call(fact),
        )

    def secret_needed(self, entry: Entry, fact: FactRecorded, source: str) -> Divergence:
        """Return the divergence of a response that cannot be rebuilt without the true value of a secret."""
        return Divergence(
            kind=DivergenceKind.SECRET_NEEDED,
            seq=entry.seq,
            summary=f"the answer of {fact.namespace} holds the secret {source}, which is no text and which nothing "
            "can stand for; replay it where the key of its store is",
            recorded=codec.event_to_json(fact),
        )

    def undeclared(self, what: Undeclared, seq: int) -> Divergence:
        """Return the divergence of a handler that tried to reach or change external state without `io`."""
        remedy = what.remedy.removesuffix(SETTING)
        return Divergence(
            kind=DivergenceKind.UNDECLARED_IO,
            seq=seq,
            summary=f"the handler {what.does} without io at {what.place}, which a replay refuses",
            now={"event": what.event, "does": what.does, "place": what.place, "remedy": remedy},
        )

    def missing(self, entry: Entry, summary: str, event: Event | None = None) -> Divergence:
        """Return the divergence of a recorded event that does not come; `event` comes in its place."""
        is_call = isinstance(entry.event, FactRecorded | EffectIntended)
        return Divergence(
            kind=DivergenceKind.CALL_MISSING if is_call else DivergenceKind.EVENT_DIFFERS,
            seq=entry.seq,
            summary=summary,
            recorded=self._side(entry.event),
            now=None if event is None else codec.event_to_json(event),
        )

    def between(self, entry: Entry, event: Event) -> Divergence:
        """Return the divergence of an event that differs from the recorded one."""
        recorded = entry.event
        if _code_of(event) == Code.UNDECLARED_IO != _code_of(recorded):
            assert isinstance(event, StateFailed)
            return Divergence(
                kind=DivergenceKind.UNDECLARED_IO,
                seq=entry.seq,
                summary=event.error.message,
                recorded=self._side(recorded),
                now=codec.event_to_json(event),
            )
        if isinstance(recorded, RunStarted) and isinstance(event, RunStarted):
            return self._openings(entry.seq, recorded, event)
        if isinstance(event, StateCompleted | StateFailed) and isinstance(
            recorded, FactRecorded | EffectIntended
        ):
            return self.missing(
                entry, f"the handler ended ({event.type}) without making a recorded call", event
            )
        if isinstance(event, StateCompleted) and isinstance(recorded, StateCompleted):
            if recorded.context_snapshot_id != event.context_snapshot_id:
                return self._snapshots(entry.seq, recorded.context_snapshot_id, event.context_snapshot_id)
            if recorded.next_input_id != event.next_input_id:
                return self._next_inputs(entry.seq, recorded.next_input_id, event.next_input_id)
        kind = DivergenceKind.EVENT_DIFFERS
        if asked(recorded).plan_id is not None:
            kind = DivergenceKind.PLAN_CHANGED
            summary = "the recording goes on with another plan here, which is not the one of this replay"
        elif isinstance(event, RunCompleted) and not isinstance(recorded, RunCompleted):
            kind = DivergenceKind.ENDED_EARLY
            summary = f"the run ends ({event.status}) where the recording goes on with {recorded.type}"
        elif recorded.type == event.type:
            summary = f"{event.type} differs"
        else:
            summary = f"the recording has {recorded.type} where there is now {event.type}"
        if isinstance(event, StateFailed):
            summary += f" ({event.error.code}: {event.error.message})"
        sides = codec.event_to_json(recorded), codec.event_to_json(event)
        return Divergence(
            kind=kind,
            seq=entry.seq,
            summary=summary,
            recorded=sides[0],
            now=sides[1],
            changes=diff(*sides),
        )

    def _openings(self, seq: int, recorded: RunStarted, event: RunStarted) -> Divergence:
        if recorded.plan_id != event.plan_id:
            return self._plans(seq, recorded.plan_id, event.plan_id)
        sides = codec.event_to_json(recorded), codec.event_to_json(event)
        return Divergence(
            kind=DivergenceKind.EVENT_DIFFERS,
            seq=seq,
            summary="the run begins differently",
            recorded=sides[0],
            now=sides[1],
            changes=diff(*sides),
        )

    def _plans(self, seq: int, recorded: str, now: str) -> Divergence:
        shapes = canonical.decode_stored(recorded, self.recorded(recorded)), canonical.decode(self.now(now))
        try:
            changes = plan_changes(*shapes)
            sides = [by_name(shape) for shape in shapes]
        except (LookupError, TypeError, ValueError):
            raise CorruptionError(f"artifact {recorded} is no plan", code=Code.ARTIFACT_CORRUPT) from None
        return Divergence(
            kind=DivergenceKind.PLAN_CHANGED,
            seq=seq,
            summary=f"the plan has changed since the recording: {'; '.join(item.text for item in changes)}",
            state_id=changes[0].state_id,
            recorded=sides[0],
            now=sides[1],
            changes=diff(*sides),
        )

    def _snapshots(self, seq: int, recorded: str, now: str) -> Divergence:
        before = Snapshot.open(recorded, self.recorded).to_dict()
        after = Snapshot.open(now, self.now).to_dict()
        changes = diff(before, after)
        keys = sorted({key_of(change) for change in changes})
        return Divergence(
            kind=DivergenceKind.SNAPSHOT_DIFFERS,
            seq=seq,
            summary=f"the context differs in {', '.join(keys)}",
            recorded={key: before[key] for key in keys if key in before},
            now={key: after[key] for key in keys if key in after},
            changes=changes,
        )

    def _next_inputs(self, seq: int, recorded: str | None, now: str | None) -> Divergence:
        before = None if recorded is None else canonical.decode_stored(recorded, self.recorded(recorded))
        after = None if now is None else canonical.decode(self.now(now))
        if before is None:
            summary = "the run goes on as another, and in the recording it does not"
        elif after is None:
            summary = "the run goes on as another in the recording, and now it does not"
        else:
            summary = "the run goes on as another with a different input"
        return Divergence(
            kind=DivergenceKind.EVENT_DIFFERS,
            seq=seq,
            summary=summary,
            recorded=before,
            now=after,
            changes=diff(before, after),
        )

    def _side(self, event: Event) -> Any:
        return self._call(event) if isinstance(event, FactRecorded) else codec.event_to_json(event)

    def _call(self, fact: FactRecorded) -> dict[str, Any]:
        return {"namespace": fact.namespace, "request": self._request(fact)}

    def _request(self, fact: FactRecorded) -> Any:
        return canonical.decode_stored(fact.request_digest, self.recorded(fact.request_digest))

    def _distance(self, fact: FactRecorded, call: Call) -> tuple[bool, bool, int]:
        if fact.namespace != call.namespace:
            return True, True, 0
        sides = {"namespace": call.namespace, "request": call.request}
        return False, fact.key != call.key, len(diff(*with_json_bodies(self._call(fact), sides)))

    def _near(self, facts: Sequence[tuple[Entry, FactRecorded]], call: Call) -> list[NearCall]:
        return [
            NearCall(entry.seq, fact.namespace, self._request(fact), self._reason(fact, call))
            for entry, fact in facts[:_NEAREST]
        ]

    def _reason(self, fact: FactRecorded, call: Call) -> str:
        if fact.namespace != call.namespace:
            return f"a call of {fact.namespace}"
        pointers = [
            change.pointer or "the whole" for change in diff(self._request(fact), call.request, most=3)
        ]
        return f"differs in {', '.join(pointers)}" if pointers else "another key"


def _code_of(event: Event) -> str | None:
    return event.error.code if isinstance(event, StateFailed) else None


def key_of(change: Change) -> str:
    """Return the context key in which two contexts differ."""
    return change.pointer.split("/")[1].replace("~1", "/").replace("~0", "~")


def corrupt(exc: MachineError, seq: int) -> Divergence:
    """Return the divergence of a damaged recording."""
    return Divergence(
        kind=DivergenceKind.CORRUPT,
        seq=getattr(exc, "seq", None) or seq,
        summary=f"the recording is damaged: {exc.message} ({exc.code})",
        now={"type": "damage", "code": str(exc.code or Code.LOG_BAD_EVENT), "message": exc.message},
    )
