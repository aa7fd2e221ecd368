"""Checks before a run is started: that the store is one, and that the run id is free."""

from __future__ import annotations

from typing import Final
from weakref import WeakSet

from machine.errors import Code, UsageError
from machine.stores.base import Store

_STORES: Final[WeakSet[type]] = WeakSet()
"""The classes of stores seen so far: comparing one with the protocol takes as long as a step."""


def refuse_used(store: Store, run_id: str) -> None:
    """Raise `UsageError` (`run_id_in_use`) when the store already has a run with the id given to a new one."""
    if store.run_exists(run_id):
        raise UsageError(
            f"the run id {run_id} is in use: there is a run of that id in {store.url}",
            code=Code.RUN_ID_IN_USE,
            details={"run_id": run_id, "status": store.run_row(run_id).status},
            hint="nothing was written; `resume` goes on with that run, and without a run id, or with one from "
            "`new_run_id()`, a new one is started",
        )


def check_store(store: object) -> None:
    """Raise `UsageError` for a value that is not a store."""
    if type(store) not in _STORES and isinstance(store, Store):
        _STORES.add(type(store))
    if type(store) not in _STORES:
        hint = f"open it first: with open_store({store!r}) as store" if isinstance(store, str) else None
        raise UsageError(f"store must be a Store, not {type(store).__name__}", hint=hint)
