"""The delivery of outcomes to a handler: one by one, in the recorded order, and durable when required."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import anyio
from anyio.lowlevel import checkpoint

from machine.config import Durability
from machine.events import FactRecorded
from machine.io.attempt_scope import AttemptScope
from machine.io.call_identity import Call


class _Ending:
    """The moment at which a call has returned."""

    __slots__ = ("_done",)

    def __init__(self) -> None:
        self._done: anyio.Event | None = None

    async def wait(self) -> None:
        """Wait until the call has returned."""
        if self._done is None:  # most calls have nobody who waits for them
            self._done = anyio.Event()
        await self._done.wait()

    def land(self) -> None:
        """Tell those who wait that the call has returned."""
        if self._done is not None:
            self._done.set()


class Flight(_Ending):
    """A call that has begun and has not returned yet."""

    __slots__ = ("call", "scope")

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call
        self.scope = anyio.CancelScope()

    def cancel(self) -> None:
        """End the call."""
        self.scope.cancel()


class ThreadFlight(_Ending):
    """A call that a thread of a plain handler makes, and that the event loop may only end."""

    __slots__ = ("_give_up", "call", "fact", "given_up", "scope")

    def __init__(self, call: Call, give_up: Callable[[ThreadFlight], Awaitable[None]]) -> None:
        """Take `give_up`, which records what becomes of the call."""
        super().__init__()
        self.call = call
        self.scope: anyio.CancelScope | None = None
        """The scope in which it waits on the event loop for its turn, None before."""
        self.fact: FactRecorded | None = None
        """Its fact, once that is in the log."""
        self.given_up = False
        """True once its attempt has ended: the thread may record nothing more."""
        self._give_up = give_up

    def cancel(self) -> None:
        """End the call; what it does in its thread is left to its end, and its answer is lost."""
        if self.scope is None:
            self.given_up = True
        else:
            self.scope.cancel()

    async def wait(self) -> None:
        """Wait until the call has returned, or what became of it is recorded."""
        await (self._give_up(self) if self.given_up else super().wait())


class HandOut:
    """The calls of one attempt in flight, by key in `in_flight`."""

    def __init__(self, scope: AttemptScope) -> None:
        self.in_flight: dict[str, Flight | ThreadFlight] = {}
        self.waits_in_hand: dict[str, Flight | ThreadFlight] = {}
        """The waits for external input that have begun and have not returned, by key: none is in flight."""
        self._scope = scope

    @contextmanager
    def waiting(self, call: Call) -> Iterator[None]:
        """Let a call in flight count as one that waits for external input."""
        self.waits_in_hand[call.key] = self.in_flight.pop(call.key)
        try:
            yield
        finally:
            self.in_flight[call.key] = self.waits_in_hand.pop(call.key)

    async def turn(self, call: Call, seq: int) -> None:
        """Return when the handler has settled from the last outcome, and this one, at `seq`, is durable as needed.

        Both happen in one turn, so that no outcome that was recorded later is delivered earlier.
        """
        racing = len(self.in_flight) > 1 or not self._scope.barrier.alone
        if racing or self._must_be_durable(call):
            async with self._one_at_a_time:
                if racing:
                    await self._scope.barrier.settle()
                elif self._scope.concurrent:
                    await (
                        checkpoint()
                    )  # events that other attempts are about to write go to the disk in the same commit
                await self.durable(call, seq)

    def waits(self, call: Call) -> bool:
        """Say whether an outcome of a call that is there already would still have to wait to be handed out."""
        return bool(self.in_flight) or self._must_be_durable(call) or not self._scope.barrier.alone

    async def durable(self, call: Call, seq: int | None = None) -> None:
        """Return when the outcome of a call, at `seq`, is durable, if the handler must not receive it earlier."""
        if self._must_be_durable(call):
            await self._scope.log.durable(seq)

    def flush(self, call: Call) -> None:
        """Make an outcome that was recorded before the call durable, without suspending the handler.

        The order in which two tasks receive such outcomes is not recorded, so nothing else may happen in between.
        """
        if self._must_be_durable(call):
            self._scope.log.flush()

    def _must_be_durable(self, call: Call) -> bool:
        return call.effect or self._scope.run.config.durability is Durability.FACTS

    def _may_change(self, call: Call) -> bool:
        """Say whether a call may change the outside world, even against the declaration of its state."""
        transport = self._scope.transport(call.namespace)
        return call.effect or (transport is not None and transport.is_effect(call.namespace, call.request))

    @functools.cached_property
    def _one_at_a_time(self) -> anyio.Lock:
        return anyio.Lock(fast_acquire=True)

    async def end(self) -> None:
        """Cancel the calls that a handler left in flight, and record each as cancelled."""
        self._scope.ending = True
        if not (self.in_flight or self.waits_in_hand):
            return
        for flight in self.in_flight.values():
            if self._may_change(flight.call):
                self._scope.leave_behind(
                    f"was still calling {flight.call.namespace}", "was interrupted and may have been done"
                )
        with anyio.CancelScope(shield=True):
            while left := [*self.in_flight.values(), *self.waits_in_hand.values()]:
                left[0].cancel()
                await left[0].wait()
