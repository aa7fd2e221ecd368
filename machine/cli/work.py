"""`work`: the worker of a store, until it is asked to stop."""

from __future__ import annotations

import contextlib
import functools
import time
from typing import Annotated, TypeAlias

from cyclopts import Parameter
from cyclopts.validators import Number

import machine
from machine.cli.command_session import Flag, Injected, Session
from machine.cli.error_report import Exit
from machine.cli.output import STYLES, Cell, clean, duration
from machine.cli.policy import PolicyFile, policy_of
from machine.engine.run_keeper import LEASE_SECONDS
from machine.engine.run_result import RunResult
from machine.engine.work import CONCURRENCY, GRACE_SECONDS, WorkReporter, WorkResult
from machine.errors import Code, MachineError, NotFoundError, UsageError
from machine.stores.base import Store

Concurrency: TypeAlias = Annotated[
    int,
    Parameter(validator=Number(gte=1), help="How many runs are driven concurrently, each in a thread."),
]
"""The annotation of the option for how many runs a worker drives."""

Grace: TypeAlias = Annotated[
    float,
    Parameter(
        validator=Number(gte=0),
        help="How many seconds the runs in hand have to end after SIGTERM or Ctrl-C, before they are interrupted.",
    ),
]
"""The annotation of the option for the end of a worker."""

Lease: TypeAlias = Annotated[
    float,
    Parameter(help="How many seconds the lease of each run lasts, as for `machine run`."),
]
"""The annotation of the option for the lease of a worker's runs."""


def work(
    *targets: str,
    concurrency: Concurrency = CONCURRENCY,
    once: Flag = False,
    until_idle: Flag = False,
    grace: Grace = GRACE_SECONDS,
    lease: Lease = LEASE_SECONDS,
    name: str | None = None,
    policy: PolicyFile = None,
    session: Injected,
) -> int:
    """Drive the runs of a store that are due or that nobody drives.

    It resumes runs whose process is gone, continues suspended ones once they are answered or their time has come,
    and starts those of the store's schedules, until it is asked to stop: the first SIGTERM or Ctrl-C lets the runs
    in hand end, the second interrupts them, and both times the exit code is 0. A suspended run takes no memory and
    no thread. As many workers as you like may share a store, which is created if it does not exist. A run whose
    plan cannot be loaded here is left alone.

    Parameters
    ----------
    targets
        The plans to work for: package.module:plan or path/file.py:plan. By default those of all runs and
        schedules of the store.
    once
        Do what is due now, and end.
    until_idle
        End as soon as nothing is due.
    name
        A name for this worker, next to its host and process in the log of what it drives (`machine show --json`).
    """
    if once and until_idle:
        raise UsageError(
            "give --once or --until-idle", hint="--until-idle also does what falls due meanwhile"
        )
    began, load, own = time.monotonic(), functools.cache(session.load), policy_of(policy)
    with session.user_code():
        for target in targets:
            load(target, None)  # a wrong one makes no store
    with _opened(session) as store, session.user_code():
        result = machine.work(
            targets,
            store=store,
            concurrency=concurrency,
            once=once,
            until_idle=until_idle,
            name=name,
            grace=grace,
            lease=lease,
            policy=own,
            reporter=Lines(session),
            load=load,
        )
    return report(session, result, began)


def _opened(session: Session) -> Store:
    """Return the store to work for; say so where it is a new one, for its name may be wrong."""
    try:
        return session.open_to_write()
    except NotFoundError:
        store = session.open_store(create=True)
        session.note("note", f"there was no store at {store.url}: it was made, and has no runs yet")
        return store


class Lines(WorkReporter):
    """A reporter that prints a line on stderr for each run that ended, waits or cannot be driven."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def ended(self, result: RunResult) -> None:
        """Print the run's id and status, and why it failed."""
        cells: list[Cell] = [result.run_id, "  ", (result.status, STYLES.get(result.status, ""))]
        if result.error is not None and result.status != "completed":
            cells.append(f"  error[{result.error.code}]: {clean(result.error.message)}")
        self._line(*cells)
        if result.error is not None and result.error.code == Code.RECOVERY_LIMIT:
            text = (
                "a worker drives several runs in one process: what killed it may be a handler of another one"
            )
            self._session.note("note", text)

    def failed(self, what: str, error: BaseException, *, for_good: bool) -> None:
        """Print on stderr why a run is left alone, or tried again later."""
        code = error.code if isinstance(error, MachineError) else type(error).__name__
        then = "left alone" if for_good else "tried again later"
        self._line(clean(what), "  ", (then, "yellow"), f"  error[{code}]: {clean(str(error))}")

    def _line(self, *cells: Cell) -> None:
        if not self._session.as_json:
            with contextlib.suppress(OSError):  # nobody reads it any more, which must not stop the work
                self._session.out.line(*cells, err=True)


def report(session: Session, result: WorkResult, began: float) -> int:
    """Print the sum of a worker's work."""
    if session.as_json:
        session.out.json(result.to_json())
        return Exit.OK
    counts = ", ".join(f"{count} {status}" for status, count in sorted(result.counts.items())) or "none"
    total = sum(result.counts.values())
    took = duration((time.monotonic() - began) * 1000)
    left = f"; {result.left_alone} left alone" if result.left_alone else ""
    session.out.line(f"{total} run{'s' * (total != 1)}: {counts} in {took}{left}")
    return Exit.OK
