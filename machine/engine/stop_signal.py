"""How a run that is being driven is told to stop, by whoever does not stand in its event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
from anyio.lowlevel import current_token

__all__ = ["Control"]


class Control:
    """One run's ear to the outside. `cancel` and `fail` may be called from any thread."""

    def __init__(self) -> None:
        self.cancelling = False
        """True once the run was asked to end cancelled."""
        self.failure: BaseException | None = None
        """Why the run may not go on at all, None while it may."""
        self.scope: anyio.CancelScope | None = None
        """What everything that may be waited for happens in."""
        self._soon: Callable[..., Any] | None = None

    def cancel(self) -> None:
        """Cut what is going on; the run ends cancelled."""
        self.cancelling = True
        self._wake()

    def fail(self, reason: BaseException) -> None:
        """Cut what is going on and write nothing more: `reason` is raised out of the run."""
        self.failure = self.failure or reason
        self._wake()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Cut what happens in this context when the run is told to stop. Needs an event loop."""
        native: Any = current_token().native_token
        with anyio.CancelScope() as self.scope:
            # asyncio's loop calls it one name, trio's token the other
            self._soon = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon
            try:
                if self.cancelling or self.failure is not None:
                    self.scope.cancel()
                yield
            finally:
                self._soon = None

    def _wake(self) -> None:
        soon = self._soon
        if soon is not None and self.scope is not None:
            try:
                soon(self.scope.cancel)
            except RuntimeError:  # the loop has closed since: there is nothing left to cut
                return
