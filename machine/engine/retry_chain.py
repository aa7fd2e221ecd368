"""The retries of failed runs: a run has one at most, which may have one in turn.

A retry is a run of its own, started under an invocation key that names the run it retries. The store lets one run
have a key, so of two retries in the same moment one is refused.
"""

from __future__ import annotations

from typing import Final

from machine.engine import run_reader
from machine.kernel.run_status import RunStatus
from machine.stores.base import Store

_PREFIX: Final = "retry:"


def key_of_retry(run_id: str) -> str:
    """Return the invocation key of the retry of a run."""
    return f"{_PREFIX}{run_id}"


def retried_by(invocation_key: str | None) -> str | None:
    """Return the run that a run with this invocation key is the retry of, None for another key."""
    if invocation_key is None or not invocation_key.startswith(_PREFIX):
        return None
    return invocation_key.removeprefix(_PREFIX)


def retry_of(store: Store, run_id: str) -> str | None:
    """Return the retry of a run, None when it has none."""
    found = store.find_invocation(key_of_retry(run_id))
    if found is None:
        return None
    parent = run_reader.parent_of(run_reader.first_entry(store, found)[0])
    return found if parent is not None and parent[0] == run_id else None


def latest_retry(store: Store, run_id: str) -> str:
    """Return the last run in the chain of retries that begins with a run: itself when it has none."""
    while (after := retry_of(store, run_id)) is not None:
        run_id = after
    return run_id


def stands_for(store: Store, run_id: str) -> str:
    """Return the run whose result a start under a run's invocation key gets: of a failed one, its latest retry."""
    return latest_retry(store, run_id) if store.run_row(run_id).status == RunStatus.FAILED else run_id
