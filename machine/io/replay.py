"""Replay IO: never do it, look it up.

It hands recorded outcomes out in the recorded order. It never touches the outside, never sleeps, and never
falls through to live.
"""

from __future__ import annotations

from typing import NoReturn, Protocol

import anyio

from machine.errors import Code
from machine.events import FactError, FactRecorded
from machine.io.provider import Call, IoProvider
from machine.io.scope import AttemptScope, Log

__all__ = ["Recording", "ReplayIo"]


class Recording(Log, Protocol):
    """A log that compares what is emitted with what was recorded, and holds an emission back until its turn."""

    def fact(self, key: str) -> FactRecorded | None:
        """Return the fact the open attempt recorded under a key."""
        ...

    def unrecorded(self, call: Call) -> NoReturn:
        """Raise: the handler made a call that was never recorded."""
        ...


class ReplayIo(IoProvider):
    """Answers every call from the recording, or raises the divergence."""

    def __init__(self, scope: AttemptScope, recording: Recording) -> None:
        super().__init__(scope)
        self._recording = recording

    def _recorded(self, key: str) -> bool:
        return self._recording.fact(key) is not None

    async def _obtain(self, call: Call) -> FactRecorded:
        fact = self._recording.fact(call.key)
        if fact is None or fact.request_digest != call.digest or fact.namespace != call.namespace:
            self._recording.unrecorded(call)
        if call.effect:
            await self._intend(call)
        if isinstance(fact.outcome, FactError) and fact.outcome.error.code == Code.CALL_CANCELLED:
            try:
                # the recording's handler cancelled this call; only today's handler can do so again
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await self._recording.emit([fact])
        await self._recording.emit([fact])
        return fact

    async def _record(self, call: Call, value: bytes) -> FactRecorded:
        del value  # the recorded one counts
        return await self._obtain(call)
