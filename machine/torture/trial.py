"""One trial: a run with one fault, resumed to its end and checked.

A trial asserts nothing itself; it returns a description of the violation, or None.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from machine.aio import resume, run
from machine.catalogue import Catalogue
from machine.config import RunConfig
from machine.engine import run_reader
from machine.engine.run_result import RunResult
from machine.errors import LogError, MachineError
from machine.events import Entry
from machine.io.transport import Transport
from machine.plan import Plan
from machine.recordings.double_run import SilentReporter
from machine.recordings.json_diff import diff
from machine.recordings.replay import replay
from machine.recordings.verify import verify
from machine.stores.base import Store, StoredEvent
from machine.torture.faults import Blow, Fault, Pace, PowerCut
from machine.torture.faulty_store import TorturedStore
from machine.torture.run_summary import digest_of, repeated_effects, summary_of
from machine.torture.simulated_io import Script, SimulatedIo
from machine.torture.simulated_process import Watch, live

MOST_RESUMES = 3
"""Maximum number of resumes of a run: one is enough for one fault."""


@attrs.frozen
class Stage:
    """The run that all trials of one matrix repeat: how it is rehearsed, started and resumed.

    It is one run: where it would go on as another, none is begun.
    """

    plan: Plan
    input: Mapping[str, Any]
    config: RunConfig
    catalogue: Catalogue | None
    run_id: str
    script: Script
    real_transports: Mapping[str, Transport]
    waiting: Mapping[str, Any] = attrs.field(factory=dict)
    """The clock and the answers of a run whose handlers wait, as options of `run` and `resume`."""

    def start(self, store: TorturedStore, simulated: SimulatedIo, blow: Blow | None = None) -> RunResult:
        """Drive the run from its beginning."""
        behind = blow is not None and blow.pace is Pace.BEHIND
        watch = (
            Watch(simulated, pending_after=blow.last, fault_occurred=store.fault_occurred)
            if blow and behind
            else Watch(simulated)
        )
        return live(
            lambda: run(
                self.plan,
                store=store,
                input=self.input,
                config=self.config,
                run_id=self.run_id,
                transports=simulated.transports,
                catalogue=self.catalogue,
                reporter=watch,
                begin_next=False,
                **self.waiting,
            ),
            watch,
        )

    def go_on(self, store: TorturedStore, simulated: SimulatedIo) -> RunResult:
        """Resume the run, or start it again under its id when none of it was stored."""
        known = entries_of(store, self.run_id)
        simulated.live(store, known)
        if not known:
            return self.start(store, simulated)
        return self._resume(store, simulated)

    def _resume(self, store: TorturedStore, simulated: SimulatedIo) -> RunResult:
        watch = Watch(simulated)
        return live(
            lambda: resume(
                self.run_id,
                plan=self.plan,
                store=store,
                transports=simulated.transports,
                catalogue=self.catalogue,
                reporter=watch,
                begin_next=False,
                **self.waiting,
            ),
            watch,
        )

    def rehearse(self, place: Path) -> tuple[Outcome, list[tuple[int, int]], list[str]]:
        """Run once with simulated I/O; return the outcome, the appends (first and last seq) and the violations."""
        simulated = SimulatedIo(self.script, self.plan.graph, self.real_transports)
        with TorturedStore(place) as store:
            simulated.live(store)
            result = self.start(store, simulated)
            outcome = outcome_of(store, result, simulated.applied)
            return outcome, store.appends, list(_unsound(self, store, simulated, outcome=outcome))

    def strike(self, place: Path, blow: Blow, wanted: Outcome) -> str | None:
        """Run until the fault, resume to the end, and return the violation, or None."""
        simulated = SimulatedIo(self.script, self.plan.graph, self.real_transports)
        with TorturedStore(place, blow=blow) as store:
            dies_after = blow.last if blow.fault is Fault.KILLED_AFTER_RETURN else None
            simulated.live(store, dies_after=dies_after)
            problem = self._first_process(store, simulated, blow)
            disk = store.leave()
        if problem is not None:
            return problem
        if blow.unnoticed:
            return self._refused(disk, simulated, blow)
        durable = store.appended  # events that the disk lied about are not included, and may be missing
        with TorturedStore(disk) as store:
            survivors = list(store.read_range(self.run_id))
            if survivors[: len(durable)] != durable:
                return f"{len(durable)} events were durable and {len(survivors)} are left"
            # checked before the resume, which could add missing events again
            found = verify(self.run_id, store=store).problems if survivors else ()
            if found:
                return f"verify, before it was resumed: {found[0].where}: {found[0].message}"
            for _ in range(MOST_RESUMES):
                result = self.go_on(store, simulated)
                if result.status == wanted.status:
                    outcome = outcome_of(store, result, simulated.applied)
                    return next(
                        _unsound(self, store, simulated, outcome=outcome, wanted=wanted, survivors=survivors),
                        None,
                    )
        return f"the run came to be {result.status}, not {wanted.status}"

    def _refused(self, disk: Path, simulated: SimulatedIo, blow: Blow) -> str | None:
        """Try to resume from a corrupted event; return the violation unless that is refused with its seq."""
        with TorturedStore(disk) as store:
            try:
                simulated.live(store)
                self._resume(store, simulated)
            except LogError as exc:
                return None if exc.seq == blow.last else f"event {blow.last} is spoilt, {exc.seq} was blamed"
        return f"event {blow.last} is not what was appended, and nobody noticed"

    def _first_process(self, store: TorturedStore, simulated: SimulatedIo, blow: Blow) -> str | None:
        """Drive the run into the fault, and return any violation in its reaction."""
        ended: str | None = None
        try:
            self.start(store, simulated, blow)
        except PowerCut:
            ended = "dead"
        except MachineError as exc:
            ended = exc.code
        if not store.struck:
            return "the run did not come to this boundary again"
        if store.accepted_twice:
            return "the store took the same events twice"
        wanted = blow.fault.ends or "dead"
        late = blow.fault in {Fault.FSYNC_LOST, Fault.KILLED_AFTER_RETURN}
        if ended == wanted or (ended is None and late):  # it was the last append
            return None
        if ended is None:
            return f"the run went on to its end; it should have stopped with {wanted}"
        return f"the run stopped with {ended}, not with {wanted}"


@attrs.frozen
class Outcome:
    """The outcome of a run, as far as two runs of one plan must agree; `applied` are the effects received."""

    status: str
    final_snapshot_id: str | None
    digest: str
    told: Mapping[str, Any] = attrs.field(eq=False, repr=False)
    applied: frozenset[tuple[str, str]] = attrs.field(eq=False, repr=False)


def outcome_of(store: TorturedStore, result: RunResult, applied: set[tuple[str, str]]) -> Outcome:
    """Return the outcome of an ended run for comparison with other runs."""
    told = summary_of(entries_of(store, result.run_id))
    return Outcome(result.status, result.final_snapshot_id, digest_of(told), told, frozenset(applied))


def entries_of(store: Store, run_id: str) -> list[Entry]:
    """Return a run's entries, with the chain checked; none for an unknown run."""
    return [entry for entry, _ in run_reader.entries(store, run_id)]


def _unsound(
    stage: Stage,
    store: TorturedStore,
    simulated: SimulatedIo,
    *,
    outcome: Outcome,
    wanted: Outcome | None = None,
    survivors: list[StoredEvent] | None = None,
) -> Iterator[str]:
    """Yield the violations of a run that has ended, the most serious first."""
    log = list(store.read_range(stage.run_id))
    if survivors and log[: len(survivors)] != survivors:
        yield "what was durable when the run was resumed has changed"
    yield from simulated.problems
    yield from (
        f"{state_id} sent an effect again although its outcome was known"
        for state_id in repeated_effects(entries_of(store, stage.run_id))
    )
    if wanted is not None:
        if outcome.applied != wanted.applied:
            more, less = outcome.applied - wanted.applied, wanted.applied - outcome.applied
            yield f"the receivers took {len(more)} effects more and {len(less)} fewer than they should"
        if outcome.final_snapshot_id != wanted.final_snapshot_id:
            yield "the final context is another"
        if outcome.digest != wanted.digest:
            yield f"the digest is another: {first_difference(wanted, outcome)}"
    found = verify(stage.run_id, store=store)
    yield from (f"verify: {problem.where}: {problem.message}" for problem in found.problems)
    again = live(
        lambda: replay(
            stage.run_id,
            plan=stage.plan,
            store=store,
            transports=simulated.transports,
            catalogue=stage.catalogue,
            reporter=SilentReporter(),
        )
    )
    if again.divergence is not None:
        yield f"replay: {again.divergence.summary}"


def first_difference(wanted: Outcome, found: Outcome) -> str:
    """Return the first difference of two summaries."""
    changes = diff(wanted.told, found.told, most=1)
    return f"{changes[0].pointer} is {changes[0].kind}" if changes else "nothing that can be named"
