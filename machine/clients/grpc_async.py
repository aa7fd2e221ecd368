"""Calls of gRPC by asynchronous clients: recorded, with the objects that `grpc.aio` would return for them."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping
from typing import Any, NoReturn

import attrs
import grpc
from grpc import aio

from machine.clients.grpc_blocking import END, Lines, line
from machine.clients.grpc_messages import (
    NAMESPACE,
    Method,
    Rules,
    Status,
    failure_of,
    metadata_to_send,
    status_of,
)
from machine.errors import Code, IoError, OtherIoError
from machine.io.transport import Opened

Invoke = Callable[[Any, Any], Any]
"""A function that makes a live call with the bytes of its message, or an iterator of several, and its metadata."""


def raised(failure: IoError) -> NoReturn:
    """Raise a recorded failure as the error of `grpc.aio` that it was, or as it is if the call had no status."""
    status = status_of(failure)
    if status is None:
        raise failure
    raise _error(status) from failure


def _error(status: Status) -> aio.AioRpcError:
    initial, trailing = aio.Metadata(*status.initial), aio.Metadata(*status.trailing)
    return aio.AioRpcError(status.status_code, initial, trailing, status.details)


async def _status(call: Any) -> Status:
    return Status(
        (await call.code()).name,
        await call.details() or "",
        tuple(await call.initial_metadata() or ()),
        tuple(await call.trailing_metadata() or ()),
    )


def _status_of_error(exc: aio.AioRpcError) -> Status:
    return Status(
        exc.code().name,
        exc.details() or "",
        tuple(exc.initial_metadata() or ()),
        tuple(exc.trailing_metadata() or ()),
    )


@attrs.frozen
class AsyncRpc:
    """A method of a service that is called through an `io`."""

    method: Method
    invoke: Invoke
    takes_stream: bool
    io: Any
    rules: Rules

    async def unary(self, messages: Any, metadata: Any) -> tuple[Any, Status]:
        """Call a method with one response. Raises `grpc.aio.AioRpcError` and the refusals of `io`."""
        given = await _listed(messages)

        async def send(request: Mapping[str, Any]) -> dict[str, Any]:
            call = self._invoked(given, request)
            try:
                data = await call
            except aio.AioRpcError as exc:
                raise failure_of(self.method.path, _status_of_error(exc)) from exc
            finally:
                call.cancel()
            return {**(await _status(call)).to_json(), "message": self.method.received(data)}

        request = self.method.request(given, metadata, self.rules)
        try:
            response = await self.io.client_call(NAMESPACE, request, send)
        except IoError as failure:
            raised(failure)
        return self.method.message(response["message"]), Status.from_json(response)

    async def stream(self, messages: Any, metadata: Any) -> Any:
        """Call a method with several responses, and return the recorded stream of their lines."""
        given = await _listed(messages)

        async def open_answer(request: Mapping[str, Any]) -> Opened:
            call = self._invoked(given, request)
            try:
                initial = tuple(await call.initial_metadata() or ())
            except BaseException:
                call.cancel()
                raise
            head = {"initial": Status(initial=initial).to_json()["initial"]}
            return Opened(head, _Lines(call, self.method))

        request = self.method.request(given, metadata, self.rules)
        return await self.io.client_stream(NAMESPACE, request, open_answer)

    def _invoked(self, given: list[Any], request: Mapping[str, Any]) -> Any:
        kind = type(given[0]) if given and hasattr(given[0], "DESCRIPTOR") else None
        sent = self.method.sent(request, kind)
        return self.invoke(iter(sent) if self.takes_stream else sent[0], metadata_to_send(request))


async def _listed(messages: Any) -> list[Any]:
    return [message async for message in messages] if hasattr(messages, "__aiter__") else list(messages)


class _Lines:
    """The messages of a live stream, each as a line of JSON, and its status as the last line."""

    def __init__(self, call: Any, method: Method) -> None:
        self._call = call
        self._method = method
        self._ended = False

    async def next(self) -> bytes | None:
        if self._ended:
            return None
        try:
            data = await self._call.read()
        except aio.AioRpcError as exc:
            raise failure_of(self._method.path, _status_of_error(exc)) from exc
        if data is not aio.EOF:
            return line({"message": self._method.received(data)})
        self._ended = True
        return line({END: (await _status(self._call)).to_json()})

    async def aclose(self) -> None:
        self._call.cancel()


class _Recorded(aio.Call):
    """The part that all recorded calls have: they end with a task, or with a status."""

    _task: asyncio.Task[Any]

    @abstractmethod
    async def _ended(self) -> Status:
        """Return the status with which the call ended."""

    async def initial_metadata(self) -> Any:
        """Return the metadata that came before the response."""
        return aio.Metadata(*(await self._ended()).initial)

    async def trailing_metadata(self) -> Any:
        """Return the metadata that came after the response."""
        return aio.Metadata(*(await self._ended()).trailing)

    async def code(self) -> Any:
        """Return the status code."""
        return (await self._ended()).status_code

    async def details(self) -> str:
        """Return the details of the status."""
        return (await self._ended()).details

    async def debug_error_string(self) -> str:
        """Return nothing: it would name ports and times."""
        return ""

    async def wait_for_connection(self) -> None:
        """Do nothing: a connection is no part of a recorded call."""

    def time_remaining(self) -> float | None:
        """Return None: how long a call may still last is not recorded."""
        return None

    def cancelled(self) -> bool:
        """Say whether the call was cancelled."""
        return self._task.cancelled()

    def done(self) -> bool:
        """Say whether the call has ended."""
        return self._task.done()

    def cancel(self) -> bool:
        """Cancel the call; return False if it has ended."""
        return self._task.cancel()

    def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
        """Call a function with this call when it has ended."""
        self._task.add_done_callback(lambda _: callback(self))

    async def write(self, request: Any) -> None:
        """Refuse: a recorded call needs its messages when it begins."""
        del request
        raise writes()

    async def done_writing(self) -> None:
        """Refuse, as `write` does."""
        raise writes()


def writes() -> OtherIoError:
    """Return the refusal of a call whose messages are written one by one."""
    return OtherIoError(
        "a call of gRPC cannot be recorded whose messages are written one by one",
        code=Code.IO_INVALID_REQUEST,
        hint="give the call its messages, as an iterator",
    )


class RecordedUnary(_Recorded, aio.UnaryUnaryCall, aio.StreamUnaryCall):
    """A call with one response, which is awaited."""

    def __init__(self, calling: Awaitable[tuple[Any, Status]]) -> None:
        self._task = asyncio.ensure_future(calling)
        # of a call that nobody awaits
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            response, _ = yield from self._task.__await__()
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        return response

    async def _ended(self) -> Status:
        try:
            status: Status = (await asyncio.shield(self._task))[1]
        except aio.AioRpcError as exc:
            return _status_of_error(exc)
        return status


class RecordedStream(_Recorded, aio.UnaryStreamCall, aio.StreamStreamCall):
    """A call with several responses, which are read as they come."""

    def __init__(self, method: Method, opening: Awaitable[Any]) -> None:
        self._method = method
        self._task = asyncio.ensure_future(opening)
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._lines = Lines()
        self._status: Status | None = None
        self._failure: IoError | None = None
        self._read_ahead: list[Any] = []
        self._iterator: AsyncIterator[Any] | None = None
        self._callbacks: list[Callable[[Any], Any]] = []

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._iterator is None:
            self._iterator = self._messages()
        return self._iterator

    async def _messages(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not aio.EOF:
            yield message

    async def read(self) -> Any:
        """Return the next response, `grpc.aio.EOF` at the end. Raises `grpc.aio.AioRpcError`."""
        if self._read_ahead:
            return self._read_ahead.pop(0)
        stored = await self._next()
        if stored is not None:
            return self._method.message(stored)
        if self._failure is not None:
            raised(self._failure)
        if self.cancelled():
            raise asyncio.CancelledError
        return aio.EOF

    async def _next(self) -> dict[str, Any] | None:
        """Return the next message as it is recorded, None once the stream has ended."""
        while self._status is None:
            try:
                stream = await self._task
                found = self._lines.take()
                while found is None and (piece := await stream.next()) is not None:
                    self._lines.add(piece)
                    found = self._lines.take()
                if found is not None and "message" in found:
                    message: dict[str, Any] = found["message"]
                    return message
                await stream.next()  # the recorded end follows the last line
            except IoError as failure:
                if status_of(failure) is None:
                    raise
                self._failure = failure
                self._end(status_of(failure))
                return None
            self._end(Status() if found is None else Status.from_json(found[END]))
        return None

    def _end(self, status: Status | None) -> None:
        self._status = status
        for callback in self._callbacks:
            callback(self)
        self._callbacks.clear()

    async def _ended(self) -> Status:
        while (stored := await self._next()) is not None:
            self._read_ahead.append(self._method.message(stored))
        assert self._status is not None
        return self._status

    async def initial_metadata(self) -> Any:
        """Return the metadata that came before the responses."""
        try:
            stream = await asyncio.shield(self._task)
        except IoError as failure:
            raised(failure)
        stored = {"code": "OK", "details": "", "initial": stream.head["initial"], "trailing": []}
        return aio.Metadata(*Status.from_json(stored).initial)

    def cancelled(self) -> bool:
        """Say whether the stream was cancelled here."""
        return self._status is not None and self._status.code == grpc.StatusCode.CANCELLED.name

    def done(self) -> bool:
        """Say whether all responses have come."""
        return self._status is not None

    def cancel(self) -> bool:
        """Stop receiving; return False if all responses have come."""
        if self._status is not None:
            return False
        self._end(Status("CANCELLED", "Locally cancelled by application!"))
        if not self._task.done():
            self._task.cancel()
        elif not self._task.cancelled() and self._task.exception() is None:
            self._closing = asyncio.ensure_future(self._task.result().aclose())
        return True

    def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
        """Call a function with this call when all responses have come."""
        if self._status is not None:
            callback(self)
        else:
            self._callbacks.append(callback)
