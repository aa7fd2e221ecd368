"""Ending a run that nobody drives as cancelled, with the child runs that it still waits for.

One with cleanup states is ended only up to these: whoever drives it next runs them.
"""

from __future__ import annotations

from machine.engine import run_reader
from machine.engine.cancel_reason import CANCEL
from machine.engine.children import end_children, tell_parent
from machine.engine.events_of_decisions import events_of
from machine.engine.live_run_secrets import looks_through
from machine.engine.log import LiveLog
from machine.engine.reporter import Reporter
from machine.engine.run_keeper import Keeper
from machine.io.attempt_scope import Payloads
from machine.io.running_programs import end_left
from machine.kernel.cleanup import or_cleanup
from machine.kernel.close_open_attempts import close_open_attempts
from machine.kernel.decisions import BeginCleanup, CompleteRun, Decision, Done
from machine.kernel.frontier import Frontier
from machine.kernel.history import History
from machine.plan import recorded_graph
from machine.secrets.both_formats import OfRun
from machine.stores.base import Store


async def end_cancelled(store: Store, run_id: str) -> History:
    """End a run, or begin with its cleanup, after ending its children; return its history.

    A run whose cleanup has begun is ended without the rest of it. Of runs that continue each other it is the last
    one, which may have begun only now. Raises `ConcurrencyError` if it is driven.
    """
    last = store.last_segment(run_id)
    with Keeper(store, last) as keeper:
        if store.last_segment(last) != last:
            return await end_cancelled(store, last)
        run_id = last
        await end_left(run_id)
        history, chain = run_reader.folded(store, run_id)
        log = operator_log(store, keeper, history, chain)
        graph = recorded_graph(store.get(history.plan_id or ""))
        frontier = None if history.max_concurrency is None else Frontier(graph, log.load)
        cleaned = history.cleanup is not None
        if cleaned and not _ends_cleanup(store, run_id, history):
            return history
        decision: Decision
        while not isinstance(decision := close_open_attempts(history), Done):
            if isinstance(decision, CompleteRun):
                await end_children(store, history, log.load, end_cancelled)
                if history.cleanup is None:
                    decision = or_cleanup(graph, history, decision, frontier)
            payloads = Payloads()
            if isinstance(decision, BeginCleanup) and frontier is not None:
                payloads.items.update(frontier.take_made())
            await log.emit(events_of(decision, history), payloads)
            if history.cleanup is not None and not cleaned:
                break  # its cleanup states have handlers, so whoever drives it runs them
        log.close()
    if history.final:
        tell_parent(store, run_id)
    return history


def _ends_cleanup(store: Store, run_id: str, history: History) -> bool:
    """Say whether a run was cancelled since its cleanup has begun: what began it does not end it too."""
    asked = [message.ts_millis for message in store.inbox(run_id) if message.kind == CANCEL]
    return max(asked, default=-1) > history.cleanup_ms


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
