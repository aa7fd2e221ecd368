"""The wait until nobody drives a run, for what another process does to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio

from machine.errors import Code, ConcurrencyError
from machine.stores.base import Store

T = TypeVar("T")

_POLL_SECONDS: Final = 0.05


async def once_undriven(
    store: Store, run_id: Callable[[], str], act: Callable[[str], Awaitable[T]], seconds: float
) -> T | None:
    """Do something to a run as soon as nobody drives it, and return what that returns.

    None if its driver has not let go of it within so many seconds. `run_id` is called before each look, since a run
    may go on as another meanwhile; `act` takes the lease.
    """
    with anyio.move_on_after(seconds):
        while True:
            chosen = run_id()
            if store.lease_of(chosen) is None:
                try:
                    return await act(chosen)
                except ConcurrencyError as exc:  # a driver took the run first, and reads its inbox
                    if exc.code != Code.RUN_LEASED:
                        raise
            await anyio.sleep(_POLL_SECONDS)
    return None
