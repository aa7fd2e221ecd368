"""The keeper of a run: it holds the lease while the run is driven, and listens to the inbox.

It has a thread of its own, so that a handler that blocks the event loop stops neither. The lease keeps two drivers
apart, but it is the store that protects the log: it checks the lease at every append.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Final, Self

import anyio

from machine.engine.cancel_reason import CANCEL
from machine.engine.stop_signal import Control
from machine.errors import Code, ConcurrencyError, StoreError, UsageError
from machine.stores.base import Store
from machine.stores.lease import MAX_TTL_MS, Driver, Lease, driver_of, owner_here

PAUSE: Final = "pause"
"""The kind of message that asks for a run to be paused."""

CONTINUE: Final = "continue"
"""The kind of message that lets a paused run go on, and takes back an earlier pause."""

LEASE_SECONDS: Final = 15.0
"""Default time of a lease, in seconds, for which it is valid without a renewal."""

_SHORTEST_SECONDS: Final = 1.0
_RENEWALS: Final = 3
"""Renewals within the time of a lease."""

_LISTEN_SECONDS: Final = 0.2


def lease_ms_of(seconds: float) -> int:
    """Return a lease's time in milliseconds. Raises `UsageError` for an invalid time."""
    most = MAX_TTL_MS / 1000
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not _SHORTEST_SECONDS <= seconds <= most:
        raise UsageError(
            f"the lease is {seconds!r}: it must be a number of seconds from {_SHORTEST_SECONDS:g} to {most:g}"
        )
    return int(seconds * 1000)


class Keeper:
    """The holder of a run's lease; creating it raises `ConcurrencyError` (`run_leased`) if another process has it.

    The lease is owned by the keeper's thread: it lives exactly as long as the run is driven, even if the store
    fails when the lease is to be released. It is renewed from the start, also while nothing is driven yet, because
    the preparation may take longer than the lease.
    """

    def __init__(self, store: Store, run_id: str, lease_ms: int = int(LEASE_SECONDS * 1000)) -> None:
        self.control = Control()
        self._store = store
        self.run_id = run_id
        self._renew_seconds = lease_ms / 1000 / _RENEWALS
        self._heard = 0
        self._listening = False
        self._lease: Lease | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._live, name="machine lease keeper", daemon=True)
        self._thread.start()
        try:
            self.lease = self._lease = store.acquire(run_id, owner_here(self._thread.native_id), lease_ms)
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop keeping the run, and release the lease. Twice is harmless."""
        if self._stopping.is_set():
            return
        self._end()
        with contextlib.suppress(StoreError):  # if its thread dies, a driver loses its lease all the same
            self._store.release(self.lease)

    def listen(self, *, from_the_start: bool) -> None:
        """Begin to listen to the inbox; `from_the_start` also delivers earlier messages."""
        if from_the_start:
            self._hear()
        self._listening = True

    def _end(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _live(self) -> None:
        try:
            self._keep()
        except BaseException as exc:  # noqa: BLE001 - a run that nobody keeps must not go on
            self.control.fail(exc)

    def _keep(self) -> None:
        renewed = time.monotonic()
        while not self._stopping.wait(min(_LISTEN_SECONDS, self._renew_seconds)):
            if self._lease is None:  # it is still being acquired
                continue
            try:
                if time.monotonic() - renewed >= self._renew_seconds:
                    self._store.renew(self._lease)
                    renewed = time.monotonic()
                if self._listening:
                    self._hear()
            except ConcurrencyError:
                raise
            except (
                StoreError
            ):  # the run meets the error at its next append, or the store has recovered by then
                continue

    def _hear(self) -> None:
        pause = False
        for message in self._store.inbox(self.run_id, self._heard):
            self._heard = message.number
            if message.kind == CANCEL:
                self.control.cancel(message.ts_millis)
            elif message.kind in {PAUSE, CONTINUE}:
                pause = message.kind == PAUSE
        if pause:  # the last word of the messages that have come
            self.control.pause()


async def keeper_of(
    store: Store, run_id: str, lease_ms: int, waiting: Callable[[ConcurrencyError, float], None]
) -> Keeper:
    """Return the keeper of a run once its last driver is known not to drive it any more.

    A driver on another machine is known to be gone when its lease has expired: `waiting` is called with the seconds
    of that wait. Raises `ConcurrencyError` (`run_leased`) as soon as the driver is known to be alive, from the
    system or by a heartbeat.
    """
    waited = False
    while True:
        try:
            return Keeper(store, run_id, lease_ms)
        except ConcurrencyError as exc:
            left = (exc.info.details or {}).get("expires_in_ms")
            if exc.code != Code.RUN_LEASED or left is None:
                raise
            if waited:
                exc.hint = (
                    "it has just renewed its lease, so it is alive: wait until it has finished, or stop it"
                )
                raise
            waiting(exc, left / 1000)
        waited = True
        held = store.lease_of(run_id)
        while held is not None and driver_of(held.owner) is Driver.UNKNOWN:
            await anyio.sleep(_LISTEN_SECONDS)
            if store.lease_of(run_id) != held:
                break
