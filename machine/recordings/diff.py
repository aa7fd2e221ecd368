"""Differences of two recorded runs, aligned by state and attempt, never by seq.

Informational values (times, ids, machines) are no difference. Nothing is run and nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from machine import codec
from machine.default_store import DEFAULT_STORE, with_default_store
from machine.engine.plan_change import recorded_shape
from machine.engine.run_reader import PastRun, lane_of
from machine.errors import Code, UsageError
from machine.events import Entry, RetryScheduled, StateCompleted, StateEntered, StateFailed
from machine.plan_shape import by_name
from machine.recordings.alignment import ALL, ItemDiff, items_of
from machine.recordings.json_diff import Change, diff
from machine.recordings.result_json import fields_json
from machine.stores.base import Store


@attrs.frozen
class RunSide:
    """One of the two runs, and its status."""

    run_id: str
    op_id: str
    status: str
    events: int
    digest: str

    def to_json(self) -> dict[str, Any]:
        """Return the side as a JSON object."""
        return fields_json(self)


@attrs.frozen
class Reason:
    """An initial difference of the runs, which may explain the others.

    `kind` is op, input, config, plan or code; code is outside the digest, and alone is no difference.
    """

    kind: str
    summary: str
    changes: Sequence[Change] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the reason as a JSON object."""
        return fields_json(self)


@attrs.frozen
class First:
    """The first event, in A's order, that B does not have at the same position of the same state.

    `type_a` and `type_b` are the types of the two events; a side without an event has None.
    """

    state_id: str | None
    attempt: int | None
    seq_a: int | None
    seq_b: int | None
    type_a: str | None
    type_b: str | None
    changes: Sequence[Change] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the difference as a JSON object."""
        return {
            "state_id": self.state_id,
            "attempt": self.attempt,
            "seq": {"a": self.seq_a, "b": self.seq_b},
            "type": {"a": self.type_a, "b": self.type_b},
            "changes": [change.to_json() for change in self.changes],
        }


@attrs.frozen
class StateSide:
    """A state in one run: `errors` are those of its attempts, `delays_ms` the waits before its retries.

    `next_run` is the input with which it said that the run goes on as another, None where it did not.
    """

    status: str
    attempts: int
    errors: Sequence[Mapping[str, Any]] = ()
    delays_ms: Sequence[int] = ()
    reason: str | None = None
    next_run: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the side as a JSON object."""
        return fields_json(self)


@attrs.frozen
class StateDiff:
    """Differences of one state: its attempts and errors, its facts and domain events, and its writes.

    A side is None when the run never reached the state. `same_base` is true when both began with the same
    context.
    """

    state_id: str
    identical: bool
    a: StateSide | None
    b: StateSide | None
    same_base: bool = True
    changes: Sequence[Change] = ()
    items: Sequence[ItemDiff] = ()
    writes: Sequence[Change] = ()

    @property
    def unexplained(self) -> bool:
        """True when the inputs of the state are the same in both runs and its result is not."""
        facts = any(item.what == "fact" for item in self.items)
        both = self.a is not None and self.b is not None and self.a.attempts == self.b.attempts
        return both and self.same_base and not facts and bool(self.writes or self.changes)

    def to_json(self) -> dict[str, Any]:
        """Return the difference as a JSON object."""
        return fields_json(
            self,
            "state_id",
            "identical",
            "a",
            "b",
            "same_base",
            "unexplained",
            "changes",
            "items",
            "writes",
        )


@attrs.frozen(kw_only=True)
class RunDiff:
    """Differences of two runs; `identical` means the same digest, so any others are informational.

    `state` is set when a single state was compared; `identical` is then about that state. `context` is the
    difference of the last contexts. In every `Change`, `recorded` is A's side and `now` is B's.
    """

    a: RunSide
    b: RunSide
    identical: bool
    state: str | None = None
    reasons: Sequence[Reason] = ()
    first: First | None = None
    states: Sequence[StateDiff] = ()
    context: Sequence[Change] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the whole difference as a JSON object."""
        return fields_json(self)


@with_default_store()
def diff_runs(
    a: str,
    b: str,
    *,
    store: Store = DEFAULT_STORE,
    other_store: Store | None = None,
    state: str | None = None,
) -> RunDiff:
    """Compare two runs of any status; run `b` is in `other_store` when that is given.

    `state` (a full id, or `step.state`) restricts the comparison to a single state. Raises `NotFoundError` for
    an unknown run, `LogError` or `CorruptionError` for a damaged one, and `UsageError` for a state that neither
    run has.
    """
    # when an answer came, and how often a run was put away until then, is no difference
    one, other = PastRun.read(a, store).in_one_piece(), PastRun.read(b, other_store or store).in_one_piece()
    order = list(dict.fromkeys((*one.order, *other.order)))
    chosen = order if state is None else [_state_named(state, order, one)]
    states = [found for state_id in chosen if (found := _state(state_id, one, other)) is not None]
    identical = one.digest == other.digest if state is None else all(found.identical for found in states)
    whole = state is None and not identical
    return RunDiff(
        a=_side(one),
        b=_side(other),
        identical=identical,
        state=None if state is None else chosen[0],
        reasons=_reasons(one, other),
        first=None if identical else _first(one, other, None if state is None else chosen[0]),
        states=states,
        context=_context(one, other) if whole else (),
    )


def _side(run: PastRun) -> RunSide:
    status = run.history.status.value
    return RunSide(run.run_id, run.started.op_id, status, run.history.head_seq, run.digest)


def _state_named(name: str, order: Sequence[str], run: PastRun) -> str:
    named = next((state_id for state_id in order if name in {state_id, state_id.partition(".")[2]}), None)
    if named is None:
        hint = f"its states: {', '.join(state_id.partition('.')[2] for state_id in order)}"
        raise UsageError(f"run {run.run_id} has no state {name!r}", code=Code.USAGE, hint=hint)
    return named


# -- initial differences -------------------------------------------------------------------------------------


def _reasons(a: PastRun, b: PastRun) -> list[Reason]:
    found: list[Reason] = []
    one, other = a.manifest, b.manifest
    if (one.op_id, one.op_version) != (other.op_id, other.op_version):
        summary = f"{one.op_id} version {one.op_version} and {other.op_id} version {other.op_version}"
        found.append(Reason("op", summary))
    if changes := diff(one.input_params, other.input_params, most=ALL):
        found.append(Reason("input", "the input differs", changes))
    if changes := diff(codec.to_json(one.run_config), codec.to_json(other.run_config), most=ALL):
        found.append(Reason("config", "the configuration differs", changes))
    plans = [(run.started.plan_id, run.history.plan_id or "") for run in (a, b)]
    if plans[0] != plans[1]:
        at = 0 if plans[0][0] != plans[1][0] else 1  # the one they began with, or the latest one
        shapes = [
            by_name(recorded_shape(run.store, plan[at])) for run, plan in zip((a, b), plans, strict=True)
        ]
        found.append(Reason("plan", "the plans differ", diff(*shapes, most=ALL)))
    return [*found, *_code(a, b)]


def _code(a: PastRun, b: PastRun) -> list[Reason]:
    if a.provenance is None or b.provenance is None:
        return []
    one, other = a.provenance.code, b.provenance.code
    changed = sorted(name for name in one.keys() & other.keys() if one[name] != other[name])
    if not changed:
        return []
    return [
        Reason("code", f"the code of {', '.join(changed)} differs", diff(dict(one), dict(other), most=ALL))
    ]


# -- first different event -----------------------------------------------------------------------------------


def _first(a: PastRun, b: PastRun, state: str | None) -> First | None:
    for run, other, turned in ((a, b, False), (b, a, True)):
        passed: dict[str, int] = {}
        for entry in run.entries:
            lane = lane_of(entry)
            if state is not None and lane != state:
                continue
            at = passed[lane] = passed.get(lane, -1) + 1
            there = other.lanes.get(lane, ())
            opposite = there[at] if at < len(there) else None
            if opposite is None or opposite.body != entry.body:
                return _first_of(b, a, opposite, entry) if turned else _first_of(a, b, entry, opposite)
    return None


def _first_of(a: PastRun, b: PastRun, one: Entry | None, other: Entry | None) -> First:
    entry, run = (one, a) if one is not None else (other, b)
    assert entry is not None
    changes: Sequence[Change] = ()
    if one is not None and other is not None and one.event.type == other.event.type:
        changes = diff(a.shown(one), b.shown(other), most=ALL)
    state_id = lane_of(entry) or None
    return First(
        state_id,
        _attempt_of(run, entry) if state_id else None,
        one.seq if one else None,
        other.seq if other else None,
        one.event.type if one else None,
        other.event.type if other else None,
        changes,
    )


def _attempt_of(run: PastRun, entry: Entry) -> int | None:
    begun = [
        other.event.attempt
        for other in run.lanes[lane_of(entry)]
        if isinstance(other.event, StateEntered) and other.seq <= entry.seq
    ]
    return begun[-1] if begun else None


# -- states --------------------------------------------------------------------------------------------------


def _state(state_id: str, a: PastRun, b: PastRun) -> StateDiff | None:
    """Return the differences of a state, or None when neither run reached it."""
    one, other = a.lanes.get(state_id, ()), b.lanes.get(state_id, ())
    if not one and not other:
        return None
    sides = _state_side(state_id, a), _state_side(state_id, b)
    if [entry.body for entry in one] == [entry.body for entry in other]:
        return StateDiff(state_id, identical=True, a=sides[0], b=sides[1])
    changes: list[Change] = []
    if sides[0] is not None and sides[1] is not None:
        changes = diff(sides[0].to_json(), sides[1].to_json(), most=ALL)
    return StateDiff(
        state_id,
        identical=False,
        a=sides[0],
        b=sides[1],
        same_base=_base(one) == _base(other),
        changes=changes,
        items=items_of(a, b, one, other),
        writes=_writes(a, b, one, other),
    )


def _state_side(state_id: str, run: PastRun) -> StateSide | None:
    state = run.history.states.get(state_id)
    if state is None:
        return None
    lane = [entry.event for entry in run.lanes[state_id]]
    errors = tuple(codec.to_json(event.error) for event in lane if isinstance(event, StateFailed))
    delays = tuple(event.delay_ms for event in lane if isinstance(event, RetryScheduled))
    given = run.history.next_inputs.get(state_id)
    next_run = None if given is None else run.json(given)
    return StateSide(state.status.value, state.attempts, errors, delays, state.reason, next_run)


def _base(lane: Sequence[Entry]) -> str | None:
    bases = [entry.event.base_snapshot_id for entry in lane if isinstance(entry.event, StateEntered)]
    return bases[-1] if bases else None


def _writes(a: PastRun, b: PastRun, one: Sequence[Entry], other: Sequence[Entry]) -> list[Change]:
    """Return the differences in what the state wrote, among the keys that it changed."""
    in_a, in_b = _written(a, one), _written(b, other)
    return [] if in_a is None or in_b is None else diff(in_a, in_b, most=ALL)


def _written(run: PastRun, lane: Sequence[Entry]) -> dict[str, Any] | None:
    completed = lane[-1].event if lane else None
    base = _base(lane)
    if not isinstance(completed, StateCompleted) or base is None:
        return None
    before, after = run.snapshot(base), run.snapshot(completed.context_snapshot_id)
    changed = [(key, data) for key in after.keys() if (data := after.get(key)) != before.get(key)]  # noqa: SIM118 - not a mapping
    return {key: after.decoded(key) for key, data in sorted(changed) if data is not None}


def _context(a: PastRun, b: PastRun) -> list[Change]:
    ids = a.history.checkpoint or "", b.history.checkpoint or ""
    if ids[0] == ids[1]:
        return []
    contexts = [run.snapshot(snapshot_id).to_dict() for run, snapshot_id in zip((a, b), ids, strict=True)]
    return diff(*contexts, most=ALL)
