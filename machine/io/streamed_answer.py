"""One streamed answer as a handler reads it: each piece is a call of its own, recorded before it is returned.

A call that was answered before is read from the log. Whether an answer is a stream stands in its facts, live and in
replay alike.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import attrs

from machine.errors import Code, CorruptionError
from machine.events import FactRecorded, FactValue
from machine.ids import piece_key
from machine.io.call_identity import Call
from machine.io.files import FileContent
from machine.io.http_message import HttpResponse
from machine.io.request_fields import unpack
from machine.io.stream_end import bytes_of, closed_before, given_up, is_complete, pieces_of, whole_answer


@attrs.frozen
class Parts:
    """The access of a stream to the facts of its call."""

    obtain: Callable[[Call], Awaitable[FactRecorded]]
    """Returns the fact of the next part, which is in the log by then."""
    close: Callable[[Call], Awaitable[None]]
    """Records that the reader closed the stream."""
    recorded: Callable[[str], FactRecorded | None]
    """Returns the fact under a key, if the log has one."""
    response: Callable[[FactRecorded], Any]
    """Returns the response of a fact. Raises its error, if that was the outcome."""

    def ends_stream(self, fact: FactRecorded) -> bool:
        """Say whether a fact is the end of a stream, and not an answer that looks like one."""
        if not isinstance(fact.outcome, FactValue) or self.recorded(piece_key(fact.key, 0)) is None:
            return False
        return pieces_of(self.response(fact)) is not None

    def of(self, end: FactRecorded, number: int) -> FactRecorded:
        """Return a part of a stream that ended. Raises `CorruptionError` for a log that lacks it."""
        fact = self.recorded(piece_key(end.key, number))
        if fact is None or not isinstance(fact.outcome, FactValue):
            text = f"the log has the end of the stream {end.key!r}, and not its part {number}"
            raise CorruptionError(text, code=Code.ARTIFACT_CORRUPT)
        return fact

    def whole(self, end: FactRecorded) -> Any:
        """Return the answer that a stream in the log has as a whole."""
        count = pieces_of(self.response(end)) or 0
        pieces = (bytes_of(self.response(self.of(end, number))) for number in range(1, count + 1))
        return whole_answer(self.response(self.of(end, 0)), pieces)


class CallStream:
    """The answer to one call, in pieces; `head` is what came before them, `size` their length if it is known."""

    def __init__(self, parts: Parts, call: Call, fact: FactRecorded) -> None:
        """Take the fact that opened the stream: its head, its end in the log, or an answer that came whole."""
        self._parts = parts
        self._call = call
        self._number = 0
        self._answered: FactRecorded | None = None
        self._whole: list[bytes] | None = None
        self.ended = self._given_up = False
        self._reading = fact.piece is not None
        if fact.piece is None and parts.ends_stream(fact):
            self._answered, fact = fact, parts.of(fact, 0)
        answer = parts.response(fact)
        if fact.piece is None:
            answer, self._whole = _parted(call.namespace, answer)
        self.head: dict[str, Any] = answer
        self.size = None if self._whole is None else sum(map(len, self._whole))

    @functools.cached_property
    def _one_at_a_time(self) -> anyio.Lock:
        return anyio.Lock(fast_acquire=True)  # an answer that came whole, as most do, needs none

    @property
    def is_whole(self) -> bool:
        """True when all of the answer is there, so that no read of it waits."""
        return self._whole is not None

    def next_of_whole(self) -> bytes | None:
        """Return the next piece of an answer that is there as a whole, None at the end."""
        self.ended = not self._whole
        return self._whole.pop(0) if self._whole else None

    async def next(self) -> bytes | None:
        """Return the next piece, None at the end. Raises the recorded error of a stream that broke off."""
        if self._whole is not None:
            return self.next_of_whole()
        async with self._one_at_a_time:
            if self._given_up:
                raise given_up(self._call.namespace)
            if self.ended:
                return None
            self._number += 1
            if self._answered is not None:
                fact = self._in_log(self._answered)
            else:
                try:
                    fact = await self._parts.obtain(self._call.following(self._number))
                except anyio.get_cancelled_exc_class():
                    self._given_up = True  # a stream without an end, as after a crash
                    raise
            if fact.piece is not None:
                return bytes_of(self._parts.response(fact))
            self.ended, self._reading = True, False
            answer = self._parts.response(fact)
            if not is_complete(answer):
                raise closed_before(self._call.namespace, self._number - 1)
            return None

    async def aclose(self) -> None:
        """Stop reading. The place where a stream that goes on was closed is recorded."""
        if not self.ended:
            self.ended = True
            if self._reading:
                self._reading = False
                if not self._given_up:
                    with anyio.CancelScope(shield=True):
                        await self._parts.close(self._call.following(self._number, closes=True))

    def _in_log(self, end: FactRecorded) -> FactRecorded:
        pieces = pieces_of(self._parts.response(end)) or 0
        return self._parts.of(end, self._number) if self._number <= pieces else end


class UnrecordedStream(CallStream):
    """An answer to a call that is part of a step, which no fact holds."""

    def __init__(self, namespace: str, answer: Any) -> None:
        self.head, self._whole = _parted(namespace, answer)
        self.size = sum(map(len, self._whole))
        self.ended = False

    async def next(self) -> bytes | None:
        """Return the next piece, None at the end."""
        return self.next_of_whole()

    async def aclose(self) -> None:
        """Stop reading."""
        self.ended = True


def _parted(namespace: str, answer: Any) -> tuple[dict[str, Any], list[bytes]]:
    """Return the head and the pieces of an answer that came whole."""
    if namespace == "http":
        head = {name: value for name, value in answer.items() if name not in {"body", "chunks"}}
        return head, HttpResponse.from_json(answer).pieces
    if "path" not in answer:
        head = {name: value for name, value in answer.items() if name != "pieces"}
        return head, [unpack(piece) for piece in answer["pieces"]]
    content = FileContent.from_json(answer).bytes
    return {"path": answer["path"], "size": len(content)}, [content] if content else []
