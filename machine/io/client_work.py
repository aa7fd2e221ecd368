"""The part of a recorded call that a library's own code performs, and the transport that lets it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import attrs

from machine.errors import Code, OtherIoError
from machine.io.stream_end import whole_answer
from machine.io.transport import BaseTransport, Opened
from machine.watch.code_owner import RunningStep, called_by

CLIENT_NAMESPACES: Final = ("sql", "redis", "grpc", "websocket", "aws.settings")
"""The namespaces of clients whose protocol no other namespace has."""

IDEMPOTENCY_KEY: Final = "idempotency_key"
"""The field of a sent request with the key of its effect."""


@attrs.frozen
class ClientWork:
    """The functions of a library that perform one call: `send`, and `open_answer` for an answer in pieces."""

    namespace: str
    send: Callable[[Any], Awaitable[Any]]
    open_answer: Callable[[Any], Awaitable[Any]] | None = None

    async def perform(self, request: Any) -> Any:
        """Perform the call as a whole. Other clients that the library uses are not recorded meanwhile."""
        with called_by(RunningStep(f"a call of {self.namespace}")):
            return await self.send(request)

    async def open(self, request: Any) -> Any:
        """Perform the call; return an `Opened`, or the answer if it is there as a whole."""
        if self.open_answer is None:
            return await self.perform(request)
        with called_by(RunningStep(f"a call of {self.namespace}")):
            return await self.open_answer(request)


_performing: Final[ContextVar[ClientWork | None]] = ContextVar("machine_client_work", default=None)


class performing:  # noqa: N801 - a context manager, used like a function
    """Give the transport the work of the call that is made in this context."""

    __slots__ = ("_token", "_work")

    def __init__(self, work: ClientWork) -> None:
        self._work = work

    def __enter__(self) -> None:
        self._token = _performing.set(self._work)

    def __exit__(self, *exc: object) -> None:
        _performing.reset(self._token)


_only_reads: Final[ContextVar[bool]] = ContextVar("machine_only_reads", default=False)


@contextmanager
def reading() -> Iterator[None]:
    """Declare that the calls of clients in this context change nothing outside, whatever their method."""
    token = _only_reads.set(True)
    try:
        yield
    finally:
        _only_reads.reset(token)


def only_reads() -> bool:
    """Say whether the call of this context is declared to change nothing outside."""
    return _only_reads.get()


def client_work(namespace: str) -> ClientWork | None:
    """Return the work of the call of this context, if it is one of a client of this namespace."""
    work = _performing.get()
    return work if work is not None and work.namespace == namespace else None


async def whole_of(open_answer: Callable[[Any], Awaitable[Any]], request: Any) -> Any:
    """Open an answer and read it to its end."""
    opened = await open_answer(request)
    if not isinstance(opened, Opened):
        return opened
    pieces: list[bytes] = []
    try:
        while (piece := await opened.source.next()) is not None:
            pieces.append(piece)
    finally:
        await opened.source.aclose()
    return whole_answer(opened.head, pieces)


class ClientTransport(BaseTransport):
    """The transport of clients whose protocol is not that of a namespace of its own.

    A request says by `effect` whether it changes the outside world, and by `keyed` whether its receiver takes an
    idempotency key. A response with a true `again` is not given to a later attempt, which makes the call again.
    """

    __slots__ = ()
    one_effect_per_key = True
    works_in_caller = True
    """See `HttpTransport`."""

    def is_effect(self, namespace: str, request: Any) -> bool:  # noqa: ARG002 - the protocol's signature
        """Say whether the client declared an effect."""
        return isinstance(request, Mapping) and bool(request.get("effect"))

    def is_certain_effect(self, namespace: str, request: Any) -> bool:
        """Say whether the client declared an effect."""
        return self.is_effect(namespace, request)

    def is_final(self, namespace: str, response: Any) -> bool:  # noqa: ARG002 - the same
        """Return False for a response that says that it holds for its attempt alone."""
        return not (isinstance(response, Mapping) and response.get("again"))

    def with_idempotency_key(self, namespace: str, request: Any, key: str) -> Any:  # noqa: ARG002 - the same
        """Return the request with the key, if its receiver takes one."""
        return {**request, IDEMPOTENCY_KEY: key} if request.get("keyed") else request

    async def perform(self, namespace: str, request: Any) -> Any:
        """Let the library perform the call. Raises the `IoError` that its module makes of a failure."""
        return await self._work(namespace).perform(request)

    async def look_up(
        self, namespace: str, request: Any, ask: Callable[[], Awaitable[Mapping[str, Any]]]
    ) -> Mapping[str, Any]:
        """Let the library ask what became of an effect that a crash may have hidden; see `ClientCalls`."""
        del request
        with called_by(RunningStep(f"a question about a call of {namespace}")):
            return await ask()

    async def open_stream(self, namespace: str, request: Any) -> Any:
        """Let the library perform the call, and return its answer in pieces if it comes so."""
        return await self._work(namespace).open(request)

    def _work(self, namespace: str) -> ClientWork:
        work = client_work(namespace)
        if work is None:
            raise OtherIoError(
                f"{namespace} is for clients of libraries, and io.call has none",
                code=Code.IO_INVALID_REQUEST,
                hint="use the library itself in the handler of a plan with clients=[...]",
            )
        return work
