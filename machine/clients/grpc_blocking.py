"""Calls of gRPC by blocking clients: recorded, with the objects that `grpc` would return for them."""

from __future__ import annotations

import importlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NoReturn

import attrs
import grpc

from machine.clients.grpc_messages import (
    NAMESPACE,
    Metadata,
    Method,
    Rules,
    Status,
    failure_of,
    metadata_to_send,
    status_of,
)
from machine.errors import IoError
from machine.io.transport import Opened
from machine.io.waiting_thread import in_caller

_OPTIONS: Final = ("timeout", "metadata", "credentials", "wait_for_ready", "compression")
END: Final = "status"
"""The field of the last line of a stream, after its messages."""


def raised(failure: IoError) -> NoReturn:
    """Raise a recorded failure as the error of `grpc` that it was, or as it is if the call had no status."""
    status = status_of(failure)
    if status is None:
        raise failure
    internal = importlib.import_module("grpc._channel")
    state = internal._RPCState((), status.initial, status.trailing, status.status_code, status.details)  # noqa: SLF001 - grpc has no public constructor
    raise internal._InactiveRpcError(state) from failure  # noqa: SLF001 - the same


def _status(call: Any) -> Status:
    return Status(
        call.code().name, call.details() or "", call.initial_metadata() or (), call.trailing_metadata() or ()
    )


class Outcome(grpc.Call, grpc.Future):
    """A call that has ended well, with its response."""

    def __init__(self, response: Any, status: Status) -> None:
        self._response = response
        self._status = status

    def initial_metadata(self) -> Metadata:
        """Return the metadata that came before the response."""
        return self._status.initial

    def trailing_metadata(self) -> Metadata:
        """Return the metadata that came after the response."""
        return self._status.trailing

    def code(self) -> Any:
        """Return the status code."""
        return self._status.status_code

    def details(self) -> str:
        """Return the details of the status."""
        return self._status.details

    def is_active(self) -> bool:
        """Return False: the call has ended."""
        return False

    def time_remaining(self) -> float | None:
        """Return None: no deadline is left."""
        return None

    def cancel(self) -> bool:
        """Return False: the call has ended."""
        return False

    def add_callback(self, callback: Callable[[], Any]) -> bool:  # noqa: ARG002 - the signature of grpc
        """Return False: the call has ended, and nothing will call it."""
        return False

    def cancelled(self) -> bool:
        """Return False: the call has ended by itself."""
        return False

    def running(self) -> bool:
        """Return False: the call has ended."""
        return False

    def done(self) -> bool:
        """Return True: the call has ended."""
        return True

    def result(self, timeout: float | None = None) -> Any:  # noqa: ARG002 - the signature of grpc
        """Return the response."""
        return self._response

    def exception(self, timeout: float | None = None) -> None:
        """Return None: the call has ended well."""

    def traceback(self, timeout: float | None = None) -> None:
        """Return None: the call has ended well."""

    def add_done_callback(self, fn: Callable[[Any], Any]) -> None:
        """Call a function with this call at once."""
        fn(self)


@attrs.frozen
class Rpc:
    """A method of a service that is called through an `io`; `raw` calls it with bytes and unrecorded."""

    method: Method
    raw: Any
    takes_stream: bool
    io: Any
    rules: Rules

    def unary(self, messages: Iterable[Any], options: Mapping[str, Any]) -> Outcome:
        """Call a method with one response. Raises `grpc.RpcError` and the refusals of `io`."""
        given = list(messages)
        kind, rest = _kind(given), _rest(options)

        def send(request: Mapping[str, Any]) -> dict[str, Any]:
            sent = self._sent(request, kind)
            try:
                data, call = self.raw.with_call(sent, metadata=metadata_to_send(request), **rest)
            except grpc.RpcError as exc:
                raise failure_of(self.method.path, _status(exc)) from exc
            return {**_status(call).to_json(), "message": self.method.received(data)}

        request = self.method.request(given, options.get("metadata"), self.rules)
        try:
            response = self.io.client_call_blocking(NAMESPACE, request, send)
        except IoError as failure:
            raised(failure)
        return Outcome(self.method.message(response["message"]), Status.from_json(response))

    def stream(self, messages: Iterable[Any], options: Mapping[str, Any]) -> RecordedStream:
        """Call a method with several responses."""
        given = list(messages)
        kind, rest = _kind(given), _rest(options)

        async def open_answer(request: Mapping[str, Any]) -> Opened:
            sent = self._sent(request, kind)
            call = await in_caller(lambda: self.raw(sent, metadata=metadata_to_send(request), **rest))
            source = _Lines(call, self.method)
            initial = await in_caller(call.initial_metadata)
            return Opened({"initial": Status(initial=initial or ()).to_json()["initial"]}, source)

        request = self.method.request(given, options.get("metadata"), self.rules)
        try:
            return RecordedStream(
                self.method, self.io.client_stream_blocking(NAMESPACE, request, open_answer)
            )
        except IoError as failure:
            raised(failure)

    def _sent(self, request: Mapping[str, Any], kind: Any) -> Any:
        sent = self.method.sent(request, kind)
        return iter(sent) if self.takes_stream else sent[0]


def _kind(messages: list[Any]) -> Any:
    return type(messages[0]) if messages and hasattr(messages[0], "DESCRIPTOR") else None


def _rest(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "metadata"}


def named_options(args: tuple[Any, ...], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a call, of which `grpc` takes some by position."""
    return dict(zip(_OPTIONS, args, strict=False)) | dict(options)


class _Lines:
    """The messages of a live stream, each as a line of JSON, and its status as the last line."""

    def __init__(self, call: Any, method: Method) -> None:
        self._call = call
        self._method = method
        self._ended = False

    async def next(self) -> bytes | None:
        return None if self._ended else await in_caller(self._next)

    def _next(self) -> bytes:
        try:
            data = next(self._call, None)
        except grpc.RpcError as exc:
            raise failure_of(self._method.path, _status(exc)) from exc
        if data is not None:
            return line({"message": self._method.received(data)})
        self._ended = True
        return line({END: _status(self._call).to_json()})

    async def aclose(self) -> None:
        self._call.cancel()


def line(value: Any) -> bytes:
    """Return a JSON value as one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode() + b"\n"


class Lines:
    """The lines that were recorded of a stream, from pieces of any size."""

    def __init__(self) -> None:
        self._left = b""
        self._lines: deque[dict[str, Any]] = deque()

    def add(self, piece: bytes) -> None:
        """Add a recorded piece."""
        *whole, self._left = (self._left + piece).split(b"\n")
        self._lines.extend(json.loads(text) for text in whole)

    def take(self) -> dict[str, Any] | None:
        """Return the next whole line, None if it is not there yet."""
        return self._lines.popleft() if self._lines else None


class RecordedStream(grpc.Call, grpc.Future):
    """The responses of a call, as they come."""

    def __init__(self, method: Method, stream: Any) -> None:
        self._method = method
        self._stream = stream
        self._lines = Lines()
        self._read_ahead: deque[Any] = deque()
        self._status: Status | None = None
        self._failure: IoError | None = None
        self._initial = Status.from_json(
            {"code": "OK", "details": "", "initial": stream.head["initial"], "trailing": []}
        ).initial

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._read_ahead:
            return self._read_ahead.popleft()
        stored = self._next()
        if stored is not None:
            return self._method.message(stored)
        if self._failure is not None:
            raised(self._failure)
        if self.cancelled():
            raised(failure_of(self._method.path, self._ended()))
        raise StopIteration

    def next(self) -> Any:
        """Return the next response. Raises `StopIteration` at the end, and `grpc.RpcError`."""
        return next(self)

    def _next(self) -> dict[str, Any] | None:
        """Return the next message as it is recorded, None once the stream has ended."""
        while self._status is None:
            try:
                found = self._lines.take()
                while found is None and (piece := self._stream.next()) is not None:
                    self._lines.add(piece)
                    found = self._lines.take()
            except IoError as failure:
                self._failure, self._status = failure, status_of(failure)
                if self._status is None:
                    raise
                return None
            if found is not None and "message" in found:
                message: dict[str, Any] = found["message"]
                return message
            self._status = (
                Status.from_json(found[END]) if found is not None else Status(initial=self._initial)
            )
            if self._stream.next() is not None:  # the recorded end follows
                raise AssertionError("a stream went on after its status")
        return None

    def _ended(self) -> Status:
        """Return the status, after reading ahead to the end."""
        while (stored := self._next()) is not None:
            self._read_ahead.append(self._method.message(stored))
        assert self._status is not None
        return self._status

    def initial_metadata(self) -> Metadata:
        """Return the metadata that came before the responses."""
        return self._initial

    def trailing_metadata(self) -> Metadata:
        """Return the metadata that came after the responses, when they have all come."""
        return self._ended().trailing

    def code(self) -> Any:
        """Return the status code, when all responses have come."""
        return self._ended().status_code

    def details(self) -> str:
        """Return the details of the status, when all responses have come."""
        return self._ended().details

    def is_active(self) -> bool:
        """Return True as long as responses may come."""
        return self._status is None

    def time_remaining(self) -> float | None:
        """Return None: how long a stream may still last is not recorded."""
        return None

    def cancel(self) -> bool:
        """Stop receiving; return False if all responses have come."""
        if self._status is not None:
            return False
        self._status = Status("CANCELLED", "Locally cancelled by application!", self._initial)
        self._stream.close()
        return True

    def add_callback(self, callback: Callable[[], Any]) -> bool:  # noqa: ARG002 - the signature of grpc
        """Return False: nothing calls back, as nothing runs besides its reader."""
        return False

    def cancelled(self) -> bool:
        """Say whether the stream was cancelled here."""
        return self._status is not None and self._status.code == "CANCELLED"

    def running(self) -> bool:
        """Return True as long as responses may come."""
        return self.is_active()

    def done(self) -> bool:
        """Return True once all responses have come."""
        return not self.is_active()

    def result(self, timeout: float | None = None) -> Any:  # noqa: ARG002 - the signature of grpc
        """Return this stream, when all responses have come. Raises `grpc.RpcError`."""
        self._ended()
        if self._failure is not None:
            raised(self._failure)
        return self

    def exception(self, timeout: float | None = None) -> Any:
        """Return the error of the stream, None if it ended well."""
        try:
            self.result(timeout)
        except grpc.RpcError as exc:
            return exc
        return None

    def traceback(self, timeout: float | None = None) -> Any:
        """Return the traceback of the error of the stream, None if it ended well."""
        exc = self.exception(timeout)
        return None if exc is None else exc.__traceback__

    def add_done_callback(self, fn: Callable[[Any], Any]) -> None:
        """Call a function with this stream, when all responses have come."""
        self._ended()
        fn(self)
