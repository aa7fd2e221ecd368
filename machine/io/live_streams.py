"""The answers that one attempt is receiving in pieces: their sources, and what is held back of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, cast

import anyio
import attrs

from machine.errors import IoError, OtherIoError
from machine.events import FactRecorded
from machine.exception_to_error_info import describe
from machine.io.attempt_scope import AttemptScope
from machine.io.call_identity import Call
from machine.io.model_usage import StreamReading
from machine.io.spending import reading_of, spent_in_stream
from machine.io.stream_end import end_of, piece_of
from machine.io.transport import Opened, PieceSource, Streaming, Transport
from machine.secrets.attempt_secrets import AttemptSecrets
from machine.secrets.held_back import HeldBack
from machine.secrets.stored_call import Answer
from machine.secrets.stream_pieces import held_back, may_stream, stored_end, stored_piece
from machine.watch.unprofiled import unprofiled

UNWRITTEN: Final = 8 * 1024 * 1024
"""The most bytes of pieces that wait for the disk."""


class Ending(NamedTuple):
    """The end of a stream as it is stored; `again` is true when a later attempt must make the call again."""

    answer: Answer
    again: bool | None


@attrs.define
class _Received:
    source: PieceSource
    held: HeldBack
    secrets: AttemptSecrets
    mac: str | None
    again: bool | None = None
    sealed: bool = False
    over: bool = False
    broken: IoError | None = None
    usage: StreamReading | None = None

    async def next(self, namespace: str) -> tuple[bytes, bytes] | None:
        """Return what may be handed out next, after what was handed out of its line; None at the end."""
        while not self.over:
            try:
                data = await self.source.next()
            except (IoError, KeyboardInterrupt, anyio.get_cancelled_exc_class()) as exc:
                if not isinstance(exc, IoError):
                    raise
                self.broken, data = exc, None
            except BaseException as exc:  # noqa: BLE001 - a transport may raise anything
                text = f"the transport of {namespace} raised {describe(exc).message}"
                self.broken, data = OtherIoError(text), None
            self.over = data is None
            line = self.held.line
            out = unprofiled(self.held.rest) if data is None else unprofiled(self.held.feed, data)
            if out:
                return line, out
        if self.broken is not None:
            raise self.broken
        return None


class LiveStreams:
    """The streams that one attempt has opened and not ended, by the keys of their calls."""

    def __init__(self, scope: AttemptScope) -> None:
        self._scope = scope
        self._open: dict[str, _Received] = {}
        self._unwritten = 0

    async def performed(self, transport: Transport, call: Call, request: Any) -> Any:
        """Perform a call, and return its response, or an `Opened` if its answer comes in pieces."""
        if not hasattr(transport, "open_stream") or not may_stream(self._scope.secrets):
            return await transport.perform(call.namespace, request)
        return await cast("Streaming", transport).open_stream(call.namespace, request)

    def begun(self, call: Call, found: Opened) -> Any:
        """Return the head of an answer that comes in pieces; the rest is received later."""
        secrets = cast("AttemptSecrets", self._scope.secrets)  # others open no stream
        self._open[call.key] = stream = _Received(found.source, held_back(secrets), secrets, call.mac)
        if (controls := self._scope.run.controls) is not None:
            stream.usage = reading_of(call, controls.spending)
        return found.head

    def first(self, call: Call) -> Call:
        """Return the call that the first fact of a call belongs to: the head, if a stream was opened."""
        return call.head() if call.key in self._open else call

    def began(self, call: Call, head: Answer, *, again: bool | None) -> bool:
        """Note how the head of a stream is stored; return False if the call opened none."""
        stream = self._open.get(call.key)
        if stream is None:
            return False
        stream.again, stream.sealed = again, head.seal is not None
        return True

    def mac(self, call: Call) -> str | None:
        """Return the keyed hash of the request of the stream that a call continues."""
        return self._of(call).mac

    async def next(self, call: Call, draft: Callable[[Call], FactRecorded]) -> Answer | None:
        """Return the next piece as it is stored; None at the end, also if the call closes its stream."""
        stream = self._of(call)
        assert call.part is not None
        if call.part.closes:
            return None
        found = await stream.next(call.namespace)
        if found is None:
            return None
        line, data = found
        if stream.usage is not None:
            stream.usage.feed(data)
        answer: Answer = unprofiled(
            stored_piece, stream.secrets, draft(call), call.request, piece_of(data), line
        )
        stream.sealed = stream.sealed or answer.seal is not None
        self._unwritten += len(data)
        return answer

    def ending(self, call: Call, fact: FactRecorded) -> Ending:
        """Return the end of the stream that a call continues, as it is stored."""
        stream, part = self._of(call), call.part
        assert part is not None
        pieces = part.number if part.closes else part.number - 1
        response = end_of(pieces, complete=not part.closes)
        return Ending(stored_end(stream.secrets, fact, response, sealed=stream.sealed), stream.again)

    def spent(self, call: Call) -> Mapping[str, str]:
        """Return the info of the end of a stream that says what its answer has used."""
        usage, controls = self._of(call).usage, self._scope.run.controls
        if usage is None or controls is None:
            return {}
        return spent_in_stream(call, usage, controls.spending)

    async def bounded(self) -> None:
        """Wait for the disk when it is too far behind."""
        if self._unwritten >= UNWRITTEN:
            self._unwritten = 0
            await self._scope.log.durable()

    async def close(self, key: str) -> None:
        """Stop receiving a stream, if it is open."""
        stream = self._open.pop(key, None)
        if stream is not None:
            with anyio.CancelScope(shield=True):
                await stream.source.aclose()

    async def close_all(self) -> None:
        """Stop receiving all streams."""
        for key in list(self._open):
            await self.close(key)

    def _of(self, call: Call) -> _Received:
        assert call.part is not None
        return self._open[call.part.key]
