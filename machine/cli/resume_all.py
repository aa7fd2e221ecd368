"""`resume --all`: resume every run that nobody drives, each in a worker process, independently of the others."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import attrs

import machine
from machine import codec
from machine.cli import many_recorded_runs, progress
from machine.cli.command_session import Session
from machine.cli.error_report import RUN_EXITS, Cancelled, Exit
from machine.cli.output import STYLES, Cell, clean
from machine.cli.recorded_run_item import DAMAGED, ERROR, Item, Outcome, Result, WithPlan
from machine.engine import run_reader
from machine.engine.run_keeper import LEASE_SECONDS
from machine.engine.run_result import RunResult
from machine.errors import Code, ConfigError, MachineError, PlanError, UsageError
from machine.exception_causes import error_json
from machine.kernel.run_status import INTERRUPTED, RunStatus
from machine.plan import Plan
from machine.policy import NO_POLICY, Policy
from machine.stores.base import Store
from machine.stores.lease import lease_is_held
from machine.termination import Terminated

_PAGE = 1000
_EVERY = 2**31
_SKIPPED = "skipped"
_OTHERS = ("failed", "limit_exceeded", "cancelled", "suspended", _SKIPPED, DAMAGED, ERROR)


def resume_all(
    session: Session,
    target: str | None,
    *,
    allow_plan_change: bool,
    allow_code_change: bool,
    lease: float,
    policy: Policy,
    jobs: int | None,
    quiet: bool,
) -> int:
    """Resume every run that nobody drives, print a line for each, and return the highest exit code."""
    with session.open_to_write() as store:
        items = [Item(run_id, run_id) for run_id in reversed(list(_undriven(store)))]
    report = _Lines(session, "completed", _OTHERS, lambda _, __: None, quiet)
    if not items:
        if session.as_json:
            session.out.json({"total": 0, "counts": dict.fromkeys(("completed", *_OTHERS), 0), "runs": []})
        session.note("nothing to resume", "no run is interrupted")
        return Exit.OK
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        return report.of(
            Resuming(session, target, allow_plan_change, allow_code_change, lease, policy), items, jobs
        )
    except (KeyboardInterrupt, Terminated) as exc:
        command = session.command("resume", "--all")
        cancelled = Cancelled(
            f"interrupted; nothing durable is lost. Continue with: {command}", details={"resume": command}
        )
        cancelled.exit = Exit.TERMINATED if isinstance(exc, Terminated) else Exit.CANCELLED
        raise cancelled from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminated(signum: int, frame: object) -> None:
    """Stop as for Ctrl-C: workers that drive runs are asked to stop."""
    del frame
    raise Terminated(signum)


def _undriven(store: Store) -> Iterator[str]:
    """Yield the runs that can continue and that nobody drives, the newest first."""
    cursor, due = None, frozenset(store.due_runs(store.clock(), _EVERY))
    while True:
        page = store.list_runs(limit=_PAGE, cursor=cursor)
        for row in page.rows:
            waited = row.status == RunStatus.SUSPENDED and not lease_is_held(store.lease_of(row.run_id))
            if row.status == INTERRUPTED or (
                waited and (row.run_id in due or _is_answered(store, row.run_id))
            ):
                yield row.run_id
        cursor = page.cursor
        if cursor is None:
            return


def _is_answered(store: Store, run_id: str) -> bool:
    """Return whether a suspended run has the answers to go on; true for one that cannot be read, to report it."""
    try:
        return not run_reader.folded(store, run_id)[0].held
    except MachineError:
        return True


@attrs.frozen
class _Resumed:
    """A run after its driver has returned, without its context."""

    result: RunResult

    def to_json(self) -> dict[str, Any]:
        """Return the run as a JSON object."""
        result = self.result
        told: dict[str, Any] = {
            "run_id": result.run_id,
            "status": result.status,
            "digest": result.digest,
            "head_seq": result.head_seq,
            "waits": [codec.to_json(wait) for wait in result.waits],
        }
        return told if result.error is None else {**told, "error": error_json(result.error)}


@attrs.define
class Resuming(WithPlan):
    """The resumption of one run after another."""

    drives: ClassVar[bool] = True

    allow_plan_change: bool = False
    allow_code_change: bool = False
    lease: float = LEASE_SECONDS
    policy: Policy = NO_POLICY

    def done(
        self, store: Store, run_id: str, plan: Plan, reporter: progress.Progress
    ) -> tuple[str, Exit, Result]:
        """Resume one run."""
        with self.session.user_code(f"run {run_id}"):
            result = machine.resume(
                run_id,
                plan=plan,
                store=store,
                allow_plan_change=self.allow_plan_change,
                allow_code_change=self.allow_code_change,
                lease=self.lease,
                policy=self.policy,
                reporter=reporter,
            )
        exit_code = RUN_EXITS.get(result.status, Exit.FAILED)
        return result.status, exit_code, _Resumed(attrs.evolve(result, context={}))

    def failed(self, exc: BaseException, place: str | None) -> Outcome:
        """Return the outcome of a run that could not continue: skipped if nothing was done to it."""
        outcome = Outcome.failed(exc, place)
        leased = isinstance(exc, MachineError) and exc.code == Code.RUN_LEASED
        if leased or isinstance(exc, PlanError | UsageError | ConfigError):
            return attrs.evolve(outcome, verdict=_SKIPPED)
        return outcome


class _Lines(many_recorded_runs.Report):
    """A report with a line for each run."""

    def _is_told(self, outcome: Outcome) -> bool:
        del outcome
        return True

    def _tell_one(self, item: Item, outcome: Outcome) -> None:
        style = STYLES.get(outcome.verdict, "bold red")
        cells: list[Cell] = [clean(item.name), "  ", (outcome.verdict, style)]
        error: Mapping[str, Any] | None = outcome.error
        if error is None and isinstance(outcome.result, _Resumed):
            error = outcome.result.to_json().get("error")
            waits = len(outcome.result.result.waits)
            if waits:
                cells.append(f"  waits for {waits} answer{'s' * (waits > 1)}")
        if error is not None:
            cells.append(f"  error[{error['code']}]: {clean(error['message'])}")
        self.session.out.line(*cells)
        if error is not None and error.get("hint"):
            self.session.out.line(f"  hint: {clean(error['hint'])}")
