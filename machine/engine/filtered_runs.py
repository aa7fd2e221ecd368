"""The runs of a store for which a condition holds: by their rows in the index, and by their logs only where needed.

What the condition says of the status and the op is left to the index of the store. Of the other columns, those that
a row has are judged first; a log is read only when they do not decide. So every store selects the same runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Final

import attrs

from machine.engine import run_reader
from machine.engine.filter_text import COLUMNS, And, Comparison, Condition, Kind, Not, Or
from machine.errors import Code, MachineError, UsageError
from machine.kernel.history import History
from machine.kernel.run_index import RunRow
from machine.kernel.run_status import FINAL_STATUSES, INTERRUPTED, RunStatus
from machine.kernel.state_history import StateStatus
from machine.stores.base import Store

_PAGE: Final = 500
_OF_ROWS: Final = frozenset({"run", "status", "op", "age", "events"})
"""The columns that the index has."""

_STANDS: Final = frozenset({StateStatus.OPEN, StateStatus.SUSPENDED, StateStatus.WAITING, StateStatus.FAILED})
"""The statuses of a state at which a run stands."""


@attrs.frozen
class Found:
    """A run that was selected; `error` is why its log could not be read, and it then is selected by nothing."""

    row: RunRow
    error: MachineError | None = None


def filtered(
    store: Store,
    condition: Condition,
    *,
    statuses: Collection[str] | None = None,
    labels: Mapping[str, str] = MappingProxyType({}),
    segments: bool = True,
) -> Iterator[Found]:
    """Yield the runs of a store for which a condition holds, newest first.

    Only those with one of `statuses` and with these labels; `segments` as in `Store.list_runs`. A run whose log
    cannot be read and whose row does not decide is yielded with its error. Raises `UsageError` (`invalid_filter`)
    for a status that there is not.
    """
    check_statuses(condition)
    status, op = _demanded(condition, "status"), _demanded(condition, "op")
    if status is None and statuses is not None and len(statuses) == 1:
        (status,) = statuses
    now_ms, cursor = store.clock(), None
    while True:
        page = store.list_runs(
            status=status, op=op, labels=labels, limit=_PAGE, cursor=cursor, segments=segments
        )
        for row in page.rows:
            if statuses is not None and row.status not in statuses:
                continue
            run = _Run(store, row, now_ms)
            verdict = _holds(condition, run, read=False)
            if verdict is None:
                try:
                    verdict = _holds(condition, run, read=True)
                except MachineError as exc:
                    yield Found(row, exc)
                    continue
            if verdict:
                yield Found(row)
        cursor = page.cursor
        if cursor is None:
            return


def check_statuses(condition: Condition) -> None:
    """Raise `UsageError` (`invalid_filter`) for a status that no run can have."""
    if isinstance(condition, Comparison):
        known = [*RunStatus, INTERRUPTED]
        for value in condition.values if condition.column == "status" else ():
            if value not in known:
                raise UsageError(
                    f"there is no status {value!r}",
                    code=Code.INVALID_FILTER,
                    details={"column": "status"},
                    hint=f"one of {', '.join(known)}",
                )
        return
    for part in (condition.of,) if isinstance(condition, Not) else condition.of:
        check_statuses(part)


def _demanded(condition: Condition, column: str) -> str | None:
    """Return the one value of a column without which the condition does not hold, None when there is none."""
    if isinstance(condition, Comparison):
        only = condition.column == column and condition.sign in {"=", "in"} and len(condition.values) == 1
        return str(condition.values[0]) if only else None
    if isinstance(condition, And):
        return next((value for part in condition.of if (value := _demanded(part, column)) is not None), None)
    return None


def _holds(condition: Condition, run: _Run, *, read: bool) -> bool | None:
    """Say whether a condition holds for a run; None when only its log tells, and it is not to be read."""
    match condition:
        case Comparison():
            if not read and condition.column not in _OF_ROWS:
                return None
            return _compared(condition, run.values(condition.column))
        case Not(of):
            held = _holds(of, run, read=read)
            return None if held is None else not held
        case And(parts):
            wanted = False
        case Or(parts):
            wanted = True
    undecided = False
    for part in parts:
        held = _holds(part, run, read=read)
        if held is wanted:
            return wanted
        undecided = undecided or held is None
    return None if undecided else not wanted


def _compared(comparison: Comparison, values: Collection[str | int]) -> bool:
    """Say whether one of the values of a column is as wanted; for !=, whether none is the given one."""
    sign, wanted = comparison.sign, comparison.values
    if COLUMNS[comparison.column] is Kind.TEXT:
        found = any(value in wanted for value in values)
        return not found if sign == "!=" else found
    if sign == "!=":
        return wanted[0] not in values
    return any(_in_order(sign, int(value), wanted) for value in values)


def _in_order(sign: str, value: int, wanted: tuple[str | int, ...]) -> bool:
    if sign in {"=", "in"}:
        return value in wanted
    other = int(wanted[0])
    return {"<": value < other, "<=": value <= other, ">": value > other, ">=": value >= other}[sign]


@attrs.define(slots=False)
class _Run:
    """One run, with its log where that is asked for."""

    store: Store
    row: RunRow
    now_ms: int

    @cached_property
    def history(self) -> History:
        """The folded log."""
        return run_reader.folded(self.store, self.row.run_id)[0]

    def values(self, column: str) -> Collection[str | int]:
        """Return the values of a column: none, one, or of some columns several."""
        row = self.row
        match column:
            case "run":
                return (row.run_id,)
            case "status":
                return (row.status,)
            case "op":
                return (row.op_id,)
            case "events":
                return (row.head_seq,)
            case "age":
                return (max(self.now_ms - row.created_ms, 0),)
            case "plan":
                return (self.history.plan_id or "",)
            case "attempts":
                return (self.history.usage.attempts,)
            case "retries":
                return (self.history.usage.retries,)
            case "state":
                return [name for state_id in self._stands for name in _names(state_id)]
            case "error.code":
                return self._codes
            case "wait":
                return self._waits
            case _:
                since = self._waits_since
                return () if since is None else (max(self.now_ms - since, 0),)

    @property
    def _stands(self) -> list[str]:
        """The states at which the run stands: what is open, waits, or has failed."""
        if self.row.status == RunStatus.COMPLETED:
            return []
        return [state_id for state_id, state in self.history.states.items() if state.status in _STANDS]

    @property
    def _codes(self) -> list[str]:
        history = self.history
        codes = [] if history.error is None else [history.error.code]
        errors = [history.states[state_id].failed.error for state_id in self._stands]
        return codes + [error.code for error in errors if error is not None]

    @property
    def _waits(self) -> list[str]:
        history = self.history
        kinds = [wait.begun.namespace.removeprefix("wait.") for wait in history.open_waits.by_key.values()]
        of_engine = [wait.type for wait in history.unanswered]
        return [] if history.final else list(dict.fromkeys([*kinds, *of_engine]))

    @property
    def _waits_since(self) -> int | None:
        """The time since which the run waits for external input; None when it waits for none."""
        if self.row.status in FINAL_STATUSES:
            return None
        begun = [wait.since_ms for wait in self.history.open_waits.by_key.values()]
        if self.row.status == RunStatus.SUSPENDED:
            begun.append(self.row.updated_ms)
        return min(begun, default=None)


def _names(state_id: str) -> tuple[str, str]:
    """Return the names of a state: its id, and without its op."""
    return state_id, state_id.partition(".")[2]
