"""The signal to stop a run that is being driven, given from outside its event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
from anyio.lowlevel import current_token


class Control:
    """The stop signal of one run. `cancel` and `fail` may be called from any thread."""

    def __init__(self) -> None:
        self.cancelling = False
        """True once the run was asked to end cancelled, or since its cleanup has begun, to end that."""
        self._cancelled_ms = -1
        self._cleanup_ms = -1
        self.limited = False
        """True once the run has used up a limit, until its cleanup begins."""
        self.pausing = False
        """True once the run was asked to be paused."""
        self.failure: BaseException | None = None
        """The reason why the run may not continue at all, None while it may."""
        self.stopped: BaseException | None = None
        """The reason why the run is not driven on here, None while it is."""
        self.scope: anyio.CancelScope | None = None
        """The scope in which the run waits for anything."""
        self._soon: Callable[..., Any] | None = None

    def cancel(self, at_ms: int) -> None:
        """Interrupt all attempts; the run ends cancelled. It was asked to at this time, in milliseconds."""
        self._cancelled_ms = max(self._cancelled_ms, at_ms)
        if at_ms > self._cleanup_ms:
            self.cancelling = True
            self._wake()

    def begin_cleanup(self, at_ms: int) -> None:
        """Go on with the cleanup that began at this time: only what is asked after it is about the cleanup."""
        self._cleanup_ms = at_ms
        self.cancelling, self.limited = self._cancelled_ms > at_ms, False

    def limit(self) -> None:
        """Interrupt all attempts; the run has used up a limit, and ends."""
        self.limited = True
        self._wake()

    def pause(self) -> None:
        """Interrupt all attempts; the run is paused."""
        self.pausing = True
        self._wake()

    @property
    def ending(self) -> bool:
        """True once the run is to end or to be put away: by a cancel, a used up limit or a pause."""
        return self.cancelling or self.limited or self.pausing

    def fail(self, reason: BaseException) -> None:
        """Interrupt all attempts and write nothing more: `reason` is raised out of the run."""
        self.failure = self.failure or reason
        self._wake()

    def stop(self, reason: BaseException) -> None:
        """Interrupt all attempts, as Ctrl-C does; `reason` is raised out of the run, which can be resumed."""
        self.stopped = self.stopped or reason
        self._wake()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Interrupt the enclosed work when the run is asked to stop. Needs an event loop."""
        native: Any = current_token().native_token
        with anyio.CancelScope() as self.scope:
            # asyncio's loop uses one method name, trio's token the other
            self._soon = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon
            try:
                if self.ending or self.failure is not None or self.stopped is not None:
                    self.scope.cancel()
                yield
            finally:
                self._soon = None

    def _wake(self) -> None:
        soon = self._soon
        if soon is not None and self.scope is not None:
            try:
                soon(self.scope.cancel)
            except RuntimeError:  # the loop has closed since, so there is nothing left to interrupt
                return
