"""Replay IO: never do it, look it up.

It hands recorded outcomes out in the recorded order. It never touches the outside, never sleeps, and never
falls through to live.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, Protocol

import anyio

from machine.events import EffectIntended, FactRecorded
from machine.io.call import Call
from machine.io.provider import VALUE_NAMESPACE, IoProvider
from machine.io.scope import AttemptScope, Log

__all__ = ["Recording", "ReplayIo"]


class Recording(Log, Protocol):
    """A log that compares what is emitted with what was recorded, and holds an emission back until its turn."""

    def fact(self, key: str) -> FactRecorded | None:
        """Return the fact the open attempt recorded under a key."""
        ...

    def intended(self, key: str) -> EffectIntended | None:
        """Return the intent of an effect that the open attempt recorded under a key."""
        ...

    def not_given_up(self, fact: FactRecorded) -> NoReturn:
        """Raise: the handler waits for a call that it had cancelled when it was recorded."""
        ...

    @property
    def stall_seconds(self) -> float:
        """How long to wait for a handler before calling it stuck."""
        ...

    def unrecorded(self, call: Call) -> NoReturn:
        """Raise: the handler made a call that was never recorded."""
        ...


class ReplayIo(IoProvider):
    """Answers every call from the recording, or raises the divergence."""

    def __init__(
        self, scope: AttemptScope, recording: Recording, like: Callable[[str, bytes, bytes], bytes]
    ) -> None:
        """`like` returns the recorded request that a request stands for, given it also without its secrets."""
        super().__init__(scope)
        self._recording = recording
        self._like = like

    def _veiled(self, namespace: str, data: bytes) -> bytes:
        return self._like(namespace, data, self._scope.vault.request(namespace, data))

    def _was_effect(self, key: str) -> bool:
        return self._recording.intended(key) is not None

    def _intended_through(self, call: Call) -> str | None:
        intent = self._recording.intended(call.key)
        # an intent as old as the format names none
        return call.namespace if intent is None or intent.namespace is not None else None

    async def _obtain(self, call: Call) -> FactRecorded:
        fact = self._recording.fact(call.key)
        if (
            fact is None
            and call.namespace != VALUE_NAMESPACE
            and self._scope.transport(call.namespace) is None
        ):
            raise self._no_transport(call)  # as it was when recorded: such a call leaves no fact
        if fact is None or fact.request_digest != call.digest or fact.namespace != call.namespace:
            self._recording.unrecorded(call)
        if call.effect:
            await self._intend(call)
        if fact.given_up:
            await self._be_cancelled(fact)
        await self._recording.emit([fact])
        return fact

    async def _be_cancelled(self, fact: FactRecorded) -> NoReturn:
        """Wait to be cancelled: the recording's handler gave this call up, and only today's can do so again."""
        try:
            with anyio.move_on_after(self._recording.stall_seconds):
                await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self._recording.emit([fact])
            raise
        self._recording.not_given_up(fact)

    async def _record(self, call: Call, value: bytes) -> FactRecorded:
        del value  # the recorded one counts
        return await self._obtain(call)
