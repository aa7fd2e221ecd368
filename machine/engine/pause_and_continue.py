"""Pausing a run, and letting it go on, from other processes.

A pause is a message in the inbox, as a cancel is: the driver of the run interrupts its attempts and suspends it.
Where nobody drives it, it is suspended here. The last word in the inbox counts, so that a pause that no driver has
read yet can be taken back. What is done to a run is done to its open child runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

from machine.default_store import DEFAULT_STORE, with_default_store
from machine.engine import run_reader
from machine.engine.children import wake_parents
from machine.engine.end_cancelled import operator_log
from machine.engine.log import LiveLog
from machine.engine.moved_runs import refuse_moved
from machine.engine.once_undriven import once_undriven
from machine.engine.plan_change import recorded_order
from machine.engine.run_keeper import CONTINUE, PAUSE, Keeper
from machine.engine.run_result import RunResult, result_of
from machine.errors import Code, RunError, UsageError
from machine.events import RunResumed, RunSuspended, StateFailed
from machine.exception_to_error_info import orphaned
from machine.io.running_programs import end_left
from machine.kernel.history import History
from machine.kernel.run_status import RunStatus, require
from machine.kernel.suspension import CONTINUED, pauses
from machine.stores.base import Store
from machine.waits import PauseWait


@with_default_store()
async def pause(run_id: str, *, store: Store = DEFAULT_STORE, timeout: float = 30.0) -> RunResult:  # noqa: ASYNC109 - how long a driver elsewhere may take
    """Put a run away until `continue_run`, with its open child runs, and return its result.

    The process that drives the run interrupts its attempts, as Ctrl-C does, and lets go of it; the next attempts
    are given what was recorded. A run that is suspended already stays so, and is paused as soon as it would go on.
    A paused run is left as it is. Raises `NotFoundError`, and `RunError`: `invalid_transition` when the run has
    ended, `pause_pending` when its driver has not obeyed within `timeout` seconds. The request then stays in the
    inbox.
    """
    _check_timeout(timeout)
    history, _ = run_reader.folded(store, run_id)
    refuse_moved(store, run_id)
    if history.final:
        require(run_id, history.status, RunStatus.SUSPENDED, "it cannot be paused any more")
    if not (pauses(history.waits) or _is_asked(store, run_id)):
        store.post(run_id, PAUSE, {})

    async def put_away(history: History, log: LiveLog) -> None:
        if history.status is RunStatus.RUNNING and _is_asked(store, run_id):
            for state_id in list(history.open):
                await log.emit([StateFailed(state_id, orphaned(state_id))])
            await log.emit([RunSuspended((PauseWait(),))])

    history = await _done(store, run_id, timeout, put_away)
    for child in _children(history):
        if not run_reader.folded(store, child)[0].final:
            await pause(child, store=store, timeout=timeout)
    return _result(store, history)


@with_default_store()
async def continue_run(run_id: str, *, store: Store = DEFAULT_STORE, timeout: float = 30.0) -> RunResult:  # noqa: ASYNC109 - the same
    """Let a paused run go on in place, with its paused child runs, and return its result.

    What it has stays; a state with `on_error="pause"` that had failed for good is tried again, with all its
    retries. Nothing is driven here: a worker takes the run, or `resume` does. Raises `NotFoundError`, and
    `RunError`: `not_paused`, or `pause_pending` when the driver that is about to pause it has not obeyed within
    `timeout` seconds.
    """
    _check_timeout(timeout)
    history, _ = run_reader.folded(store, run_id)
    refuse_moved(store, run_id)
    paused = [child for child in _children(history) if _is_paused(store, child)]
    if not (paused or _is_paused(store, run_id)):
        raise RunError(
            f"run {run_id} is not paused: it is {history.status}",
            code=Code.NOT_PAUSED,
            details={"run_id": run_id, "status": history.status.value},
            hint="a run that waits is answered, one that was interrupted is resumed",
        )
    for child in paused:
        await continue_run(child, store=store, timeout=timeout)
    if not _is_paused(store, run_id):
        return _result(store, history)
    others = [wait for wait in history.unanswered if not isinstance(wait, PauseWait)]
    if pauses(history.waits) and others:
        raise RunError(
            f"run {run_id} waits for more than to go on",
            code=Code.NOT_PAUSED,
            details={"run_id": run_id, "waits": [wait.type for wait in others]},
            hint="answer that first; machine show lists it",
        )
    store.post(run_id, CONTINUE, {})

    async def let_go(history: History, log: LiveLog) -> None:
        if history.status is RunStatus.SUSPENDED and pauses(history.waits):
            await log.emit([RunResumed(CONTINUED)])

    history = await _done(store, run_id, timeout, let_go)
    wake_parents(store, run_id)
    return _result(store, history)


_Act: TypeAlias = Callable[[History, LiveLog], Awaitable[None]]
"""Something that is done to a run that nobody drives, given its history and its log."""


async def _done(store: Store, run_id: str, seconds: float, act: _Act) -> History:
    """Do something to a run as soon as nobody drives it, and return its history."""
    history = await once_undriven(store, lambda: run_id, partial(_here, store, act), seconds)
    if history is not None:
        return history
    raise RunError(
        f"the driver of run {run_id} has not let go of it within {seconds:g} s",
        code=Code.PAUSE_PENDING,
        retryable=True,
        details={"run_id": run_id},
        hint="it obeys as soon as its handler returns control; ask again, or stop that process",
    )


async def _here(store: Store, act: _Act, run_id: str) -> History:
    with Keeper(store, run_id) as keeper:
        await end_left(run_id)
        history, chain = run_reader.folded(store, run_id)
        if not history.final:
            log = operator_log(store, keeper, history, chain)
            await act(history, log)
            log.close()
    return history


def _check_timeout(timeout: float) -> None:
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:  # NaN is not
        raise UsageError(f"timeout is {timeout!r}: it must be a number of seconds from 0 up")


def _children(history: History) -> list[str]:
    """Return the child runs that a run waits for, in the order they were begun."""
    return [wait.child for wait in history.open_waits.by_key.values() if wait.child is not None]


def _is_asked(store: Store, run_id: str) -> bool:
    """Say whether the last word in the inbox of a run is that it is to be paused."""
    said = [message.kind for message in store.inbox(run_id) if message.kind in {PAUSE, CONTINUE}]
    return said[-1:] == [PAUSE]


def _is_paused(store: Store, run_id: str) -> bool:
    """Say whether a run is paused, or will be as soon as somebody drives it."""
    if not store.run_exists(run_id):
        return False
    history, _ = run_reader.folded(store, run_id)
    return not history.final and (pauses(history.waits) or _is_asked(store, run_id))


def _result(store: Store, history: History) -> RunResult:
    return result_of(store, recorded_order(store, history), history)
