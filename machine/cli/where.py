"""The options that select many runs for a command, and what it does with each of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Final

import attrs
from cyclopts import Parameter

from machine.cli.command_session import Session
from machine.cli.error_report import Exit
from machine.cli.output import STYLES, clean
from machine.engine.filter_text import parsed
from machine.engine.filtered_runs import Found, filtered
from machine.errors import Code, MachineError, UsageError
from machine.kernel.run_status import INTERRUPTED, RunStatus
from machine.stores.base import Store

UNFINISHED: Final = (RunStatus.RUNNING.value, INTERRUPTED, RunStatus.SUSPENDED.value)
"""The statuses of runs that have not ended."""

_OVER: Final = frozenset({str(Code.INVALID_TRANSITION)})
_RUN_PREFIX: Final = 18


@Parameter(name="*")
@attrs.frozen
class Selection:
    """The options that select runs."""

    where: Annotated[
        str | None,
        Parameter(
            help="In place of a run, every run for which this holds and that the command is for, such as "
            "'error.code = \"state_timeout\" and waiting > 1h'. docs/looking-at-runs.md has the columns."
        ),
    ] = None
    dry_run: Annotated[
        bool, Parameter(negative="", show_default=False, help="With --where: only say which runs these are.")
    ] = False


NOBODY: Final = Selection()


def check_one(run: str | None, chosen: Selection) -> None:
    """Raise `UsageError` unless either a run or a filter is given, and --dry-run only with a filter."""
    if (run is None) == (chosen.where is None):
        raise UsageError("name a run, or select runs with --where FILTER: one of the two")
    if chosen.dry_run and chosen.where is None:
        raise UsageError("--dry-run says which runs a filter selects", hint="add --where FILTER")


def selected(store: Store, where: str, statuses: Collection[str] = UNFINISHED) -> list[Found]:
    """Return the runs that a filter selects, oldest first. Raises `UsageError` (`invalid_filter`)."""
    return list(filtered(store, parsed(where), statuses=statuses))[::-1]


def for_each(
    session: Session,
    chosen: Selection,
    act: Callable[[Store, str], Mapping[str, Any]],
    *,
    statuses: Collection[str] = UNFINISHED,
    takes: Callable[[Store, str], bool] = lambda *_: True,
) -> int:
    """Do something with every run that a filter selects, print a line for each, and return the exit code.

    Only with runs of these statuses that the command `takes`. `act` returns what it did, with the new `status`, and
    an `error` if that is a failure. What fails stops no other; the exit code is then 1.
    """
    with session.open_store() if chosen.dry_run else session.open_to_write() as store:
        runs = [
            _done(store, found, None if chosen.dry_run else act)
            for found in selected(store, chosen.where or "", statuses)
            if found.error is not None or takes(store, found.row.run_id)
        ]
    failed = sum("error" in run for run in runs)
    if session.as_json:
        session.out.json({"dry_run": chosen.dry_run, "total": len(runs), "failed": failed, "runs": runs})
    elif not runs:
        session.note("note", "there is no such run")
    else:
        session.out.table(
            ["RUN", "STATUS", "OP", ""],
            [
                (
                    run["run_id"][:_RUN_PREFIX],
                    (clean(run["status"]), STYLES.get(run["status"], "")),
                    clean(run["op"]),
                    _rest(run),
                )
                for run in runs
            ],
        )
        if chosen.dry_run:
            session.note("note", "nothing was done; without --dry-run these are taken")
    return Exit.FAILED if failed else Exit.OK


def _rest(run: Mapping[str, Any]) -> str:
    retry = f"retried as {run['retry'][:_RUN_PREFIX]}" if "retry" in run else ""
    error = clean(f"{run['error']['code']}: {run['error']['message']}") if "error" in run else ""
    return ", ".join(filter(None, (retry, error)))


def _done(
    store: Store, found: Found, act: Callable[[Store, str], Mapping[str, Any]] | None
) -> dict[str, Any]:
    """Return the line of a run as JSON, after doing what is to be done with it."""
    row, error = found.row, found.error
    told: dict[str, Any] = {"run_id": row.run_id, "op": row.op_id, "status": row.status}
    try:
        if error is None and act is not None:
            told |= act(store, row.run_id)
    except MachineError as exc:
        if exc.code in _OVER:  # it has ended since it was selected, perhaps with its parent
            return {**told, "status": store.run_row(row.run_id).status}
        error = exc
    if error is not None:
        told["error"] = {"code": str(error.code), "message": error.info.message}
    return told
