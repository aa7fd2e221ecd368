"""The crash matrix: each fault at each boundary of a run, which is then resumed to its end and checked."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import anyio
import attrs

from machine import sync
from machine.catalogue import Catalogue
from machine.config import RunConfig
from machine.engine.in_process_waits import Clock
from machine.engine.new_run_id import new_run_id
from machine.engine.transports import opened
from machine.engine.transports_and_catalogue import Provided
from machine.errors import UsageError
from machine.events import Entry, WaitBegun
from machine.io.child_runs import CHILD_RUN
from machine.io.transport import Transport, Transports
from machine.kernel.run_status import FINAL_STATUSES
from machine.plan import Plan
from machine.recordings.result_json import fields_json
from machine.stores.sqlite import SqliteStore
from machine.torture.faults import FAULTS, Fault, PowerCut, blows_of
from machine.torture.faulty_store import fixed_clock
from machine.torture.run_summary import digest_of, summary_of
from machine.torture.simulated_io import Script
from machine.torture.trial import Outcome, Stage, entries_of, first_difference

_IN_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a private directory is made in it


@attrs.frozen
class Boundary:
    """One append of the run: its number (from 1), its seqs, and a description of its first event."""

    number: int
    first_seq: int
    last_seq: int
    event: str
    state_id: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the boundary as a JSON object."""
        return fields_json(self)


@attrs.frozen
class Cell:
    """One fault at one boundary; `reason` describes the violation, None when the boundary is safe.

    `fault` is None for the rehearsal: the run once more, with simulated I/O and no fault.
    """

    boundary: Boundary | None
    fault: Fault | None
    reason: str | None = None

    @property
    def safe(self) -> bool:
        """True when the run reached the same end, lost nothing and repeated nothing."""
        return self.reason is None

    def to_json(self) -> dict[str, Any]:
        """Return the cell as a JSON object."""
        return fields_json(self, "boundary", "fault", "safe", "reason")


@attrs.frozen
class CrashMatrix:
    """The result of a crash matrix; `digest` identifies the run's work without its interrupted attempts."""

    op_id: str
    status: str
    digest: str
    faults: tuple[Fault, ...]
    boundaries: tuple[Boundary, ...]
    cells: tuple[Cell, ...]

    @property
    def unsafe(self) -> list[Cell]:
        """The cells with a violation."""
        return [cell for cell in self.cells if not cell.safe]

    @property
    def safe(self) -> bool:
        """True when there is no violation."""
        return not self.unsafe

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Return the table of unsafe boundaries as text: seq, event, state, fault, reason."""
        return [
            (
                str(cell.boundary.first_seq) if cell.boundary else "-",
                cell.boundary.event if cell.boundary else "the whole run",
                (cell.boundary.state_id if cell.boundary else None) or "-",
                cell.fault.label if cell.fault else "none",
                cell.reason or "",
            )
            for cell in self.unsafe
        ]

    def render(self) -> str:
        """Return the table of unsafe boundaries, or a line that says there is none."""
        if self.safe:
            return self.summary()
        lines = [("SEQ", "EVENT", "STATE", "FAULT", "REASON"), *self.rows()]
        widths = [max(len(line[column]) for line in lines) for column in range(4)]
        table = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]])
            for line in lines
        ]
        return "\n".join([self.summary(), *table])

    def summary(self) -> str:
        """Return the result in one line."""
        if self.boundaries and len(self.cells) == 1:
            return "no boundary was struck: the run itself does not repeat"
        found = "all safe" if self.safe else f"{len(self.unsafe)} unsafe"
        left = len(self.boundaries) * len(self.faults) + 1 - len(self.cells)
        stopped = f", {left} not tried" if left else ""
        return f"{len(self.boundaries)} boundaries x {len(self.faults)} faults: {found}{stopped}"

    def to_json(self) -> dict[str, Any]:
        """Return the matrix as a JSON object."""
        return fields_json(self, "op_id", "status", "digest", "faults", "boundaries", "safe", "cells")


def crash_matrix(
    plan: Plan,
    *,
    input: Mapping[str, Any] | None = None,  # noqa: A002 - the contract's name
    config: RunConfig | None = None,
    transports: Transports | None = None,
    catalogue: Catalogue | None = None,
    faults: Iterable[Fault | str] = FAULTS,
    idempotent: Collection[str] = (),
    clock: Clock = "wall",
    answers: Mapping[str, Any] | None = None,
    stop_at_first: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> CrashMatrix:
    """Run a plan once, then again for every boundary and fault; resume each, and report the unsafe ones.

    The first run makes external calls through `transports`, as `machine.run` does; all others are given its
    recorded responses. `idempotent` names namespaces, besides `file.write`, in which a repeated effect is the
    same as a single one. `clock` and `answers` are those of `run`. `stop_at_first` ends at the first unsafe
    cell. `progress` is called with the number of cells checked so far and the number of all cells. Raises
    `UsageError` for an unknown fault and for a run that does not end, and what `machine.run` raises.
    """
    chosen = _faults(faults)
    config = config or RunConfig()
    given = {} if input is None else input
    place = Path(tempfile.mkdtemp(prefix="machine-torture-", dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None))
    try:
        stage, first, log = _first_run(
            plan,
            given,
            config=config,
            provided=Provided.of(plan, transports, catalogue),
            idempotent=idempotent,
            place=place,
            waiting={"clock": clock, "answers": answers},
        )
        wanted, appends, problem = _rehearsal(stage, first, place / "rehearsal")
        boundaries = _boundaries(log, appends)
        cells = [Cell(None, None, problem)]
        if problem is None:
            wishes = [(boundary, fault) for boundary in boundaries for fault in chosen]
            for boundary, fault in wishes:
                cells.append(Cell(boundary, fault, _struck(stage, boundary, fault, wanted, place)))
                if progress is not None:
                    progress(len(cells) - 1, len(wishes))
                if stop_at_first and not cells[-1].safe:
                    break
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return CrashMatrix(plan.graph.op_id, first.status, first.digest, chosen, tuple(boundaries), tuple(cells))


def _faults(faults: Iterable[Fault | str]) -> tuple[Fault, ...]:
    chosen = []
    for fault in faults:
        try:
            chosen.append(Fault(fault))
        except ValueError:
            names = ", ".join(FAULTS)
            raise UsageError(f"there is no fault {fault!r}", hint=f"the faults are {names}") from None
    return tuple(dict.fromkeys(chosen))


def _first_run(
    plan: Plan,
    given: Mapping[str, Any],
    *,
    config: RunConfig,
    provided: Provided,
    idempotent: Collection[str],
    place: Path,
    waiting: Mapping[str, Any],
) -> tuple[Stage, Outcome, list[Entry]]:
    """Run once for real, and return what the other runs use and are compared with."""
    run_id = str(new_run_id())
    with SqliteStore(place / "first.db") as store:
        store.clock = fixed_clock
        result = sync.run(
            plan,
            store=store,
            input=given,
            config=config,
            run_id=run_id,
            transports=provided.transports,
            catalogue=provided.catalogue,
            begin_next=False,
            **waiting,
        )
        if result.status not in FINAL_STATUSES:
            asked = ", ".join(f"{wait.type} {getattr(wait, 'key', '')}".rstrip() for wait in result.waits)
            raise UsageError(
                f"the run is {result.status} and waits for {asked}: a matrix needs a run that comes to its end",
                hint='answer it in advance, with answers= and clock="skip" (--answer KEY=JSON, --clock skip)',
            )
        log = entries_of(store, run_id)
        _refuse_children(log)
        script = Script.of(log, store, run_id, idempotent)
    real_transports = anyio.run(_real_transports, config, provided.transports)
    told = summary_of(log)
    first = Outcome(result.status, result.final_snapshot_id, digest_of(told), told, frozenset())
    stage = Stage(plan, given, config, provided.catalogue, run_id, script, real_transports, waiting)
    return stage, first, log


def _refuse_children(log: list[Entry]) -> None:
    """Raise `UsageError` for a run that has begun child runs: the simulated I/O knows the facts of one run."""
    waits = (entry.event for entry in log if isinstance(entry.event, WaitBegun))
    if (begun := next((wait for wait in waits if wait.namespace == CHILD_RUN), None)) is not None:
        raise UsageError(
            f"{begun.state_id} begins a child run, and a matrix is of one run",
            hint="torture the plan of the child by itself",
        )


async def _real_transports(config: RunConfig, transports: Transports) -> Mapping[str, Transport]:
    """Return the transports, for their answers about requests; none of them performs one."""
    async with opened(config, transports) as real_transports:
        return real_transports


def _rehearsal(
    stage: Stage, first: Outcome, place: Path
) -> tuple[Outcome, list[tuple[int, int]], str | None]:
    """Run again on the recorded responses; a plan whose result differs cannot be checked."""
    place.mkdir()
    try:
        outcome, appends, problems = stage.rehearse(place / "runs.db")
    except Exception as exc:  # noqa: BLE001 - any exception is a finding
        return first, [], f"a second run on the same facts could not be made: {type(exc).__name__}: {exc}"
    if problems:
        return outcome, appends, problems[0]
    if outcome != first:
        return outcome, appends, f"a second run on the same facts differs: {first_difference(first, outcome)}"
    return outcome, appends, None


def _boundaries(log: list[Entry], appends: list[tuple[int, int]]) -> list[Boundary]:
    events = {entry.seq: entry.event for entry in log}
    return [
        Boundary(number, first, last, events[first].type, getattr(events[first], "state_id", None))
        for number, (first, last) in enumerate(appends, 1)
        if first in events
    ]


def _struck(stage: Stage, boundary: Boundary, fault: Fault, wanted: Outcome, place: Path) -> str | None:
    """Return the violation after a fault at a boundary, in any of its variants."""
    for blow in blows_of(fault, boundary.first_seq, boundary.last_seq):
        here = place / "trial"
        here.mkdir()
        try:
            problem = stage.strike(here / "runs.db", blow, wanted)
        except (Exception, PowerCut) as exc:  # noqa: BLE001 - any exception of a resumed run is a finding
            problem = f"the run could not go on: {type(exc).__name__}: {exc}"
        finally:
            shutil.rmtree(here)
        if problem is not None:
            return problem
    return None
