"""Compare: replay a run against changed code or a changed plan, and list every state that differs.

Each state is given the inputs recorded for it, so a state differs only because of itself: a change in an
earlier state is reported once, for that state. Nothing is written and no external call is made. The comparison
within a replay is in `replay_log.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import attrs

from machine.catalogue import Catalogue
from machine.config import UndeclaredIo
from machine.default_store import DEFAULT_STORE, with_default_store
from machine.engine import run_reader
from machine.engine.plan_change import plan_changes, recorded_shape
from machine.engine.provenance import code_of_states
from machine.engine.reporter import Reporter
from machine.engine.run_reader import PastRun
from machine.engine.transports_and_catalogue import Provided
from machine.events import FactRecorded, StateEntered
from machine.io.transport import Transports
from machine.kernel.decisions import EnterState
from machine.plan import Graph, Plan, earlier_graph
from machine.recordings.divergence import Cause, Diverged, Divergence, DivergenceKind
from machine.recordings.divergence_cause import explained
from machine.recordings.json_diff import diff
from machine.recordings.recorded_commands import plan_ids
from machine.recordings.replay import Recorded, reproduce
from machine.recordings.replay_log import ReplayLog
from machine.recordings.result_json import fields_json
from machine.recordings.run_contents import check_run
from machine.stores.base import Store

_NEVER_THE_SAME: Final = frozenset({"clock", "random"})


def other_answer(recorded: PastRun, now: PastRun) -> Divergence | None:
    """Return the first recorded call that `now` answers differently or has not made, or None.

    The clock and randomness always answer differently, so they are ignored.
    """
    for entry in recorded.entries:
        fact = entry.event
        if not isinstance(fact, FactRecorded) or fact.namespace.partition(".")[0] in _NEVER_THE_SAME:
            continue
        other = now.history.facts.get(fact.key)
        if other is None:
            found = Divergence(
                kind=DivergenceKind.CALL_MISSING,
                seq=entry.seq,
                summary=f"a recorded call of {fact.namespace} was not made again",
                recorded=recorded.call(fact),
            )
        elif (other.outcome, other.request_digest) == (fact.outcome, fact.request_digest):
            continue
        else:
            sides = recorded.call(fact), now.call(other)
            found = Divergence(
                kind=DivergenceKind.VALUE_DIFFERS,
                seq=entry.seq,
                summary=f"a call of {fact.namespace} has another answer now",
                recorded=sides[0],
                now=sides[1],
                changes=diff(*sides),
            )
        return attrs.evolve(
            found,
            state_id=fact.state_id,
            attempt=fact.attempt,
            cause=Cause.OUTSIDE_CHANGED,
            cause_text="the code makes the same calls, and their responses have changed",
        )
    return None


class Verdict(StrEnum):
    """The result of comparing a state with its recording."""

    IDENTICAL = "identical"
    DIFFERS = "differs"
    ADDED = "added"
    REMOVED = "removed"
    NOT_RUN = "not_run"


@attrs.frozen
class ComparedState:
    """One compared state: its verdict, whether its code changed (None: unknown), and its first divergence."""

    state_id: str
    verdict: Verdict
    code_changed: bool | None
    divergence: Divergence | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the state as a JSON object."""
        return fields_json(self)


@attrs.frozen
class CompareResult:
    """Every state of the recording and of the plan, in order, and the differences of the two plans."""

    run_id: str
    states: Sequence[ComparedState]
    plan_changes: Sequence[str]
    beyond: Divergence | None = None
    """A divergence of the run itself, outside any state; nothing after it was compared."""

    @property
    def identical(self) -> bool:
        """True when neither the plan nor any state differs."""
        alike = all(state.verdict in {Verdict.IDENTICAL, Verdict.NOT_RUN} for state in self.states)
        return alike and not self.plan_changes and self.beyond is None

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return fields_json(self, "run_id", "identical", "plan_changes", "states", "beyond")


@with_default_store()
async def compare(
    run_id: str,
    *,
    plan: Plan,
    store: Store = DEFAULT_STORE,
    transports: Transports | None = None,
    catalogue: Catalogue | None = None,
    reporter: Reporter | None = None,
    undeclared_io: UndeclaredIo | str | None = None,
) -> CompareResult:
    """Replay every state of a run separately against `plan`, and list the result of each.

    A state is given the context and the facts that were recorded for it, whatever the other states do now. With
    a changed plan, those states are compared that still exist. `undeclared_io` is as in `replay`. Raises
    `NotFoundError`, `PlanError` (`op_id_mismatch`) for the plan of another op, and `LogError` or
    `CorruptionError` for a damaged recording.
    """
    graph = plan.graph
    reporter = reporter or Reporter()
    provided = Provided.of(plan, transports, catalogue)
    recording = Recorded.of(store, run_id, graph, undeclared_io)
    graphs = {plan_id: earlier_graph(graph, store.get(plan_id)) for plan_id in plan_ids(recording.entries)}
    first = graphs[recording.started.plan_id]
    log = _ByState(
        recording.entries, store.get, reporter.entry, graphs, gone=first.states.keys() - graph.states
    )
    reporter.starting(run_id, first)
    differing: dict[str, Divergence] = {}
    beyond: Divergence | None = None
    while True:
        try:
            await reproduce(recording, first, log, provided=provided, reporter=reporter)
            break
        except Diverged as exc:
            if not differing:  # a state can only differ from a recording of it
                check_run(run_reader.entries(store, run_id), store.get)
            divergence = explained(exc.divergence, graph, recording.built)
        if divergence.state_id is None or not log.leave_attempt():
            beyond = divergence
            break
        differing.setdefault(divergence.state_id, divergence)
    last = graphs[next(reversed(graphs))]
    changes = []
    if last.plan_id != graph.plan_id:
        changes = [change.text for change in plan_changes(recorded_shape(store, last.plan_id), graph.shape())]
    return CompareResult(run_id, _states(recording, last, graph, differing), changes, beyond)


def _states(
    recording: Recorded, recorded: Graph, graph: Graph, differing: Mapping[str, Divergence]
) -> list[ComparedState]:
    ran = {entry.event.state_id for entry in recording.entries if isinstance(entry.event, StateEntered)}
    then = recording.built.code if recording.built else {}
    now = code_of_states(graph)
    found = []
    for state_id in [
        *recorded.states,
        *(state_id for state_id in graph.order if state_id not in recorded.states),
    ]:
        divergence = differing.get(state_id)
        if state_id not in graph.states:
            verdict = Verdict.REMOVED
        elif state_id not in recorded.states:
            verdict = Verdict.ADDED
        elif divergence is not None:
            verdict = Verdict.DIFFERS
        else:
            verdict = Verdict.IDENTICAL if state_id in ran else Verdict.NOT_RUN
        both = state_id in then and state_id in now
        changed = then[state_id] != now[state_id].fingerprint if both else None
        found.append(ComparedState(state_id, verdict, changed, divergence))
    return found


class _ByState(ReplayLog):
    """A log that can leave an attempt that differs, and continue where the recording ended it."""

    def __init__(self, *args: Any, gone: frozenset[str] | set[str]) -> None:
        super().__init__(*args)
        self._gone = gone

    def carry(self, decision: EnterState) -> bool:
        if super().carry(decision):
            return True
        if decision.state_id in self._gone:
            self._consume_to(self._end + 1)
            return True
        return False

    def leave_attempt(self) -> bool:
        """Accept the rest of the open attempt as recorded, and return whether there is one."""
        if not self.history.open:
            return False
        self.divergence = self._early = self._scope = None
        self._payloads = {}
        self._consume_to(self._end + 1)
        return True
