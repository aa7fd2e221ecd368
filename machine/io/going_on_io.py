"""The IO of an attempt that was put away and goes on: a replay up to the end of its recording, live from there.

A call that the recording has is answered by it, and nothing is sent again. One that it does not have waits until
the recording is over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, NoReturn, Protocol

from machine.errors import OtherIoError
from machine.events import EffectIntended, FactRecorded
from machine.ids import RESERVED_FACT_PREFIX
from machine.io.attempt_scope import AttemptScope
from machine.io.call_identity import Call
from machine.io.child_runs import CHILD_RUN
from machine.io.live_io import LiveIo
from machine.io.provider import IoProvider
from machine.io.replay_io import ReplayIo


class Progress(Protocol):
    """The progress of an attempt through its recording."""

    @property
    def keys(self) -> Collection[str]:
        """The keys of the calls and waits that the recording has."""
        ...

    @property
    def over(self) -> bool:
        """True at the end of the recording, from where the attempt is live."""
        ...

    async def until_over(self) -> None:
        """Return at the end of the recording. Raises a divergence when that does not come."""
        ...

    def let_rest_through(self) -> None:
        """Let the rest of the recording through, as far as somebody waits for it."""
        ...

    def nothing_comes(self) -> NoReturn:
        """Raise a divergence: the handler waits for external input, where it did something else."""
        ...


class GoingOnIo(IoProvider):
    """The `io` of an attempt that goes on.

    `past` looks calls up in its recording, `live` performs those after it.
    """

    def __init__(self, scope: AttemptScope, past: ReplayIo, live: LiveIo, progress: Progress) -> None:
        super().__init__(scope)
        self._past = past
        self._live = live
        self._progress = progress
        shared = {
            "_handing": self._handing,
            "_parking": self._parking,
            "_open_streams": self._open_streams,
            "waiter": self,
        }
        for side in (past, live):
            vars(side).update(shared)
        live.gate = progress.until_over

    def _side(self, call: Call) -> IoProvider:
        key = call.key if call.part is None else call.part.key
        return self._live if self._progress.over or key not in self._progress.keys else self._past

    def _identify(self, namespace: str, request: Any, fact_key: str | None, **more: Any) -> Call:
        if not self._progress.over:
            call = self._past._identify(namespace, request, fact_key, **more)  # noqa: SLF001 - a part of this object
            if call.key in self._progress.keys:
                return call
            if call.key.startswith(RESERVED_FACT_PREFIX):
                self._scope.counts.uncount(namespace, call.digest, reconciling=self._scope.reads_only)
        return self._live._identify(namespace, request, fact_key, **more)  # noqa: SLF001 - a part of this object

    def _has_version(self, call: Call) -> bool:
        return self._progress.over or call.key in self._progress.keys

    async def _fact(self, call: Call, value: bytes | None = None) -> FactRecorded:
        side = self._side(call)
        if side is self._live and not self._progress.over:
            await self._past.ask_again(call)
        return await side._fact(call, value)  # noqa: SLF001 - a part of this object

    async def _obtain(self, call: Call) -> FactRecorded:
        return await self._side(call)._obtain(call)  # noqa: SLF001 - a part of this object

    async def _record(self, call: Call, value: bytes) -> FactRecorded:
        return await self._side(call)._record(call, value)  # noqa: SLF001 - a part of this object

    async def _refused_to_repeat(self, call: Call, refusal: OtherIoError) -> FactRecorded:
        return await self._side(call)._refused_to_repeat(call, refusal)  # noqa: SLF001 - a part of this object

    def _before(self, call: Call) -> FactRecorded | OtherIoError | None:
        return self._side(call)._before(call)  # noqa: SLF001 - a part of this object

    def _make_way(self, call: Call) -> None:
        side = self._side(call)
        if side is self._past:
            side._make_way(call)  # noqa: SLF001 - a part of this object
        else:
            self._progress.let_rest_through()

    async def _answer(self, call: Call) -> FactRecorded:
        side = self._side(call)
        if side is self._past and call.namespace == CHILD_RUN and not self._past.is_answered(call):
            await self._past.begin_wait(call)
            side = self._live  # which drives the child on
        if side is self._live:
            await self._progress.until_over()
        return await side._answer(call)  # noqa: SLF001 - a part of this object

    def _may_be_put_away(self) -> bool:
        return self._progress.over

    def _nothing_comes(self) -> None:
        self._progress.nothing_comes()

    def _slept_in_place(self, request: Mapping[str, Any]) -> bool:
        side = self._live if self._progress.over else self._past
        return side._slept_in_place(request)  # noqa: SLF001 - a part of this object

    async def look_up_effect(
        self, intent: EffectIntended, look_up: Callable[[], Awaitable[Mapping[str, Any]]]
    ) -> None:
        """Take over what the attempt found out about an effect on a database, or find it out."""
        if not self._progress.over and intent.key in self._progress.keys:
            await self._past.look_up_effect(intent, look_up)
        else:
            await self._progress.until_over()
            await self._live.look_up_effect(intent, look_up)

    async def _let_go(self, key: str) -> None:
        await self._live._let_go(key)  # noqa: SLF001 - a part of this object

    async def end(self) -> None:
        """Cancel the calls that a handler left in flight, close its streams, and stop receiving any."""
        await self._live.end()
