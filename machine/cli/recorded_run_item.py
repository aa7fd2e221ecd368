"""Work on one of many runs, in this process or in a worker: replay, verify or resume it.

Nothing is printed here, and nothing is raised for a fault of one run. The outcome can be sent from one process
to another.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, Protocol

import attrs

import machine
from machine.cli import error_report, progress
from machine.cli.command_session import Session
from machine.cli.error_report import Exit
from machine.config import Target, UndeclaredIo
from machine.errors import BundleError, Code
from machine.plan import Plan
from machine.recordings.divergence import DivergenceKind
from machine.recordings.replay import ReplayResult
from machine.recordings.verify import Problem, VerifyResult
from machine.stores.base import Store
from machine.target import place_of
from machine.termination import Terminated

DAMAGED: Final = "damaged"
ERROR: Final = "error"


@attrs.frozen
class Item:
    """One item: a run of the store, the bundle at a path, or, with neither, the store itself."""

    name: str
    run_id: str | None = None
    path: str | None = None

    @property
    def is_store(self) -> bool:
        """True for the store itself."""
        return self.run_id is None and self.path is None


class Result(Protocol):
    """The result of work on one run."""

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        ...


@attrs.frozen
class Outcome:
    """The outcome of one item: a one-word `verdict`, its own exit code, and its result.

    `result` is None when there is none, and `error` says why. `place` is where the plan came from, None when
    none was loaded.
    """

    verdict: str
    exit: int
    result: Result | None = None
    error: Mapping[str, Any] | None = None
    undeclared: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    place: str | None = None

    @classmethod
    def failed(cls, exc: BaseException, place: str | None = None) -> Outcome:
        """Return the outcome of an item that could not be processed completely."""
        code = error_report.exit_of(exc)
        verdict = DAMAGED if code is Exit.INTEGRITY else ERROR
        return cls(verdict, int(code), error=error_report.as_json(exc), place=place)


@attrs.frozen
class Elsewhere:
    """Raised when the item's plan is from another place than this process's plans, and needs its own process.

    Two places may each have a module of the same name, and a process can load only one module of a name.
    """

    place: str


@attrs.define
class Look(abc.ABC):
    """An operation on items, one after another; it is sent to a worker before its first item."""

    drives: ClassVar[bool] = False
    """True when runs are driven on: in a worker each, which is asked to stop before it is killed."""

    session: Session
    _store: Store | None = attrs.field(default=None, init=False)

    @abc.abstractmethod
    def at(self, item: Item) -> Outcome | Elsewhere:
        """Process one item. Raises nothing but `KeyboardInterrupt`."""

    def close(self) -> None:
        """Release what was opened."""
        if self._store is not None:
            self._store.close()
            self._store = None

    @contextlib.contextmanager
    def _reading(self, item: Item) -> Iterator[tuple[Store, str]]:
        if item.path is not None:
            with machine.open_bundle(item.path) as bundle:
                yield bundle.store, bundle.run_id
            return
        if self._store is None:
            self._store = self.session.open_to_write() if self.drives else self.session.open_store()
        yield self._store, item.run_id or ""


@attrs.define
class WithPlan(Look):
    """An operation on runs and their plans; a plan is loaded once, and not tried again if that fails."""

    target: str | None = None
    _place: str | None = attrs.field(default=None, init=False)
    _plans: dict[Target, Plan | Exception] = attrs.field(factory=dict, init=False)

    def at(self, item: Item) -> Outcome | Elsewhere:
        """Process one run."""
        place = None
        try:
            with self._reading(item) as (store, run_id):
                target = (
                    Target(self.target, "") if self.target else self.session.recorded_target(store, run_id)
                )
                place = place_of(target)
                if place != (self._place or place):
                    return Elsewhere(place)
                self._place = place
                plan = self._plan(target)
                with progress.watching_quietly(quiet=True) as reporter:
                    verdict, code, result = self.done(store, run_id, plan, reporter)
        except (KeyboardInterrupt, Terminated):
            raise
        except BaseException as exc:  # noqa: BLE001 - any failure must leave the other runs unaffected
            return self.failed(exc, place)
        warnings = tuple(f"{at[0]} {what}" for at, what in reporter.undeclared_io.items())
        return Outcome(verdict, int(code), result, None, tuple(reporter.undeclared_json()), warnings, place)

    @abc.abstractmethod
    def done(
        self, store: Store, run_id: str, plan: Plan, reporter: progress.Progress
    ) -> tuple[str, Exit, Result]:
        """Perform the operation on a run, and return the verdict, the exit code and the result."""

    def failed(self, exc: BaseException, place: str | None) -> Outcome:
        """Return the outcome of a run on which the operation failed."""
        return Outcome.failed(exc, place)

    def _plan(self, target: Target) -> Plan:
        if target not in self._plans:
            try:
                self._plans[target] = self.session.load(target.spec, target.directory or None).plan
            except Exception as exc:  # noqa: BLE001 - stored, to be raised for each run of this plan
                self._plans[target] = exc
        plan = self._plans[target]
        if isinstance(plan, Exception):
            raise plan.with_traceback(None)
        return plan


@attrs.define
class Replaying(WithPlan):
    """The command `replay` for one run after another."""

    undeclared_io: UndeclaredIo | None = None

    def done(
        self, store: Store, run_id: str, plan: Plan, reporter: progress.Progress
    ) -> tuple[str, Exit, Result]:
        """Replay one run."""
        result = replayed(
            self.session, store, run_id, plan, reporter=reporter, undeclared_io=self.undeclared_io
        )
        return *verdict_on(result), result


@attrs.define
class Verifying(Look):
    """The command `verify` for one run after another: the store of several runs is verified once."""

    def at(self, item: Item) -> Outcome:
        """Verify one run, or the store."""
        try:
            result = self._store_itself() if item.is_store else self._run(item)
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # noqa: BLE001 - any failure must leave the other runs unaffected
            return Outcome.failed(exc)
        return Outcome("sound" if result.ok else DAMAGED, int(exit_for(result)), result)

    def _run(self, item: Item) -> VerifyResult:
        try:
            with self._reading(item) as (store, run_id):
                return machine.verify(run_id, store=store)
        except BundleError as exc:
            return of_bundle(exc)

    def _store_itself(self) -> VerifyResult:
        with self.session.open_store() as store:
            problems = store.integrity_problems()
        return VerifyResult(
            "", 0, 0, None, tuple(Problem(Code.STORE_CORRUPT, "store", text) for text in problems)
        )


def replayed(
    session: Session,
    store: Store,
    run_id: str,
    plan: Plan,
    *,
    reporter: progress.Progress,
    undeclared_io: UndeclaredIo | None,
    deep: bool = False,
) -> ReplayResult:
    """Replay a run; a handler that exits the program ends only its own replay."""
    with session.user_code(f"the replay of run {run_id}"):
        return machine.replay(
            run_id, plan=plan, store=store, reporter=reporter, undeclared_io=undeclared_io, deep=deep
        )


def verdict_on(result: ReplayResult) -> tuple[str, Exit]:
    """Return the word for a replay, and its exit code."""
    code = exit_for(result)
    return {Exit.OK: "identical", Exit.INTEGRITY: DAMAGED}.get(code, "diverged"), code


def of_bundle(exc: BundleError) -> VerifyResult:
    """Return the fault of a bundle that cannot be read as a fault of a run.

    Raises the error again when there is no bundle.
    """
    if exc.code in {Code.BUNDLE_NOT_FOUND, Code.BUNDLE_NOT_A_FILE}:
        raise exc
    where = "bundle" if exc.line is None else f"line {exc.line}"
    return VerifyResult("", 0, 0, None, (Problem(exc.code, where, exc.problem),))


def exit_for(result: ReplayResult | VerifyResult) -> Exit:
    """Return the exit code of a single result."""
    if isinstance(result, VerifyResult):
        return Exit.OK if result.ok else Exit.INTEGRITY
    if result.divergence is not None and result.divergence.kind is DivergenceKind.CORRUPT:
        return Exit.INTEGRITY
    return Exit.OK if result.identical else Exit.FAILED
