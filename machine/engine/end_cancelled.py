"""Ending a run that nobody drives as cancelled, with the child runs that it still waits for."""

from __future__ import annotations

from machine.engine import run_reader
from machine.engine.children import end_children, tell_parent
from machine.engine.live_run_secrets import looks_through
from machine.engine.log import LiveLog
from machine.engine.reporter import Reporter
from machine.engine.run_keeper import Keeper
from machine.events import RunCompleted, StateFailed
from machine.exception_to_error_info import orphaned
from machine.io.running_programs import end_left
from machine.kernel.close_open_attempts import close_open_attempts
from machine.kernel.decisions import CompleteRun, RecoverOrphan
from machine.kernel.history import History
from machine.secrets.both_formats import OfRun
from machine.stores.base import Store


async def end_cancelled(store: Store, run_id: str) -> History:
    """End a run, and its children before it; return its history. Raises `ConcurrencyError` if it is driven.

    Of runs that continue each other it is the last one, which may have begun only now.
    """
    last = store.last_segment(run_id)
    with Keeper(store, last) as keeper:
        if store.last_segment(last) != last:
            return await end_cancelled(store, last)
        run_id = last
        await end_left(run_id)
        history, chain = run_reader.folded(store, run_id)
        log = operator_log(store, keeper, history, chain)
        while True:
            match close_open_attempts(history):
                case RecoverOrphan(state_id):
                    error = orphaned(state_id, limited=history.usage.limited)
                    await log.emit([StateFailed(state_id, error)])
                case CompleteRun(status, final_snapshot_id, error):
                    await end_children(store, history, log.load, end_cancelled)
                    await log.emit([RunCompleted(status.value, final_snapshot_id, error)])
                case _:
                    break
        log.close()
    tell_parent(store, run_id)
    return history


def operator_log(
    store: Store, keeper: Keeper, history: History, chain: bytes, secrets: OfRun | None = None
) -> LiveLog:
    """Return the log of a run for a command that writes to it while no driver does."""
    return LiveLog(
        store,
        keeper.run_id,
        history=history,
        chain=chain,
        behind=False,
        boundaries=False,
        secret_check=None if secrets is None else looks_through(secrets),
        lease=keeper.lease,
        on_entry=Reporter().entry,
    )
