"""The keeper of a run: holds its lease while it is driven, and listens to its inbox.

In a thread of its own, so that a handler that keeps the event loop busy loses neither. The lease keeps two
drivers apart; that a loser can change nothing is the store's doing, which checks the lease at every append.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Final, Self

from machine.engine.control import Control
from machine.errors import Concurrency, StoreError
from machine.stores.base import Store
from machine.stores.lease import Lease, owner_here

__all__ = ["CANCEL", "Keeper"]

CANCEL: Final = "cancel"
"""The kind of message that asks a run to end cancelled."""

LEASE_MS: Final = 15_000
"""How long a lease holds without being renewed, in milliseconds."""

_RENEW_SECONDS: Final = 5.0
_LISTEN_SECONDS: Final = 0.2


class Keeper:
    """Takes the lease of a run when made, raising `Concurrency` (`run_leased`) when somebody drives it."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.control = Control()
        self._store = store
        self.run_id = run_id
        self._heard = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.lease: Lease = store.acquire(run_id, owner_here(), LEASE_MS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(StoreError):  # a driver that is gone loses its lease all the same
            self._store.release(self.lease)

    def keep(self, *, listen_now: bool) -> None:
        """Begin to renew and to listen; with `listen_now`, hear first what was said before."""
        if listen_now:
            self._listen()
        self._thread = threading.Thread(target=self._keep, name="machine lease keeper", daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        renewed = time.monotonic()
        while not self._stopping.wait(_LISTEN_SECONDS):
            try:
                if time.monotonic() - renewed >= _RENEW_SECONDS:
                    self._store.renew(self.lease)
                    renewed = time.monotonic()
                self._listen()
            except Concurrency as exc:
                self.control.fail(exc)
                return
            except StoreError:  # the run meets it at its next append, or it has passed by then
                continue

    def _listen(self) -> None:
        for message in self._store.inbox(self.run_id, self._heard):
            self._heard = message.number
            if message.kind == CANCEL:
                self.control.cancel()
