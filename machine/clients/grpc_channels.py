"""Recorded channels of `grpc` and `grpc.aio`: each method is called through an `io`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Self

import grpc
from grpc import aio

from machine.clients import grpc_async
from machine.clients.grpc_async import AsyncRpc
from machine.clients.grpc_blocking import Rpc, named_options
from machine.clients.grpc_messages import Method, Rules
from machine.errors import Code, OtherIoError, UsageError

Find = Callable[[], tuple[Any, Rules] | None]
"""A function that returns the `io` that records what runs here, with its rules, or None."""

_WITHOUT_WAITING: Final[tuple[type[Any], ...]] = (list, tuple, type(iter([])), type(iter(())))


def recorded(channel: Any, io: Any, reads: Iterable[str] = (), keyed: Iterable[str] = ()) -> Any:
    """Return a channel whose calls are calls of `io`, made on `channel`, which may be of `grpc` or `grpc.aio`.

    `reads` are patterns of methods that only read, such as `"/shop.Stock/Get*"`; any other call is an effect.
    `keyed` are patterns of methods whose server honours the idempotency key that is sent with an effect as
    metadata. Raises `UsageError` for what is no channel.
    """
    rules = Rules(reads, keyed)
    if isinstance(channel, aio.Channel):
        return _AsyncChannel(channel, lambda: (io, rules))
    if isinstance(channel, grpc.Channel):
        return _Channel(channel, lambda: (io, rules))
    raise UsageError(
        f"io.grpc_channel() records a channel of grpc or grpc.aio, not a {type(channel).__name__}",
        hint="make it with grpc.insecure_channel(...) or grpc.secure_channel(...)",
    )


def _known_messages(path: str, messages: Any) -> Any:
    """Return messages that do not wait for responses. Raises `OtherIoError` for an iterator that might."""
    if isinstance(messages, _WITHOUT_WAITING):
        return messages
    raise OtherIoError(
        f"{path} sends and receives streams, and its messages come from an iterator that may wait for responses",
        code=Code.IO_INVALID_REQUEST,
        hint="give the call a list of its messages; a conversation can be a step, with io.step(...)",
    )


# -- blocking ------------------------------------------------------------------------------------------------


class RecordedMethod:
    """A method of a recorded channel, of the four kinds that `grpc` has."""

    def __init__(self, raw: Any, plain: Any, method: Method, kind: str, find: Find) -> None:
        self._raw = raw
        self._plain = plain
        self._method = method
        self._kind = kind
        self._find = find

    def _rpc(self) -> Rpc | None:
        found = self._find()
        takes_stream = self._kind.startswith("stream")
        return None if found is None else Rpc(self._method, self._raw, takes_stream, *found)

    def _given(self, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        name = "request_iterator" if self._kind.startswith("stream") else "request"
        first, *others = args or (options.pop(name),)
        messages = first if self._kind.startswith("stream") else [first]
        if self._kind == "stream_stream":
            messages = _known_messages(self._method.path, messages)
        return messages, named_options(tuple(others), options)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the method, and return its response, or the stream of its responses."""
        rpc = self._rpc()
        if rpc is None:
            return self._plain(*args, **options)
        messages, named = self._given(args, options)
        return (
            rpc.stream(messages, named)
            if self._kind.endswith("stream")
            else rpc.unary(messages, named).result()
        )


class RecordedUnaryMethod(RecordedMethod):
    """One with one response."""

    def with_call(self, *args: Any, **options: Any) -> tuple[Any, Any]:
        """Call the method, and return the response and the call."""
        rpc = self._rpc()
        if rpc is None:
            found: tuple[Any, Any] = self._plain.with_call(*args, **options)
            return found
        outcome = rpc.unary(*self._given(args, options))
        return outcome.result(), outcome

    def future(self, *args: Any, **options: Any) -> Any:
        """Call the method, and return the call, which has ended."""
        rpc = self._rpc()
        if rpc is None:
            return self._plain.future(*args, **options)
        try:
            return rpc.unary(*self._given(args, options))
        except grpc.RpcError as exc:
            return exc  # which is a future too, that has failed


class _Channel(grpc.Channel):
    """A channel whose calls are recorded."""

    def __init__(self, channel: Any, find: Find) -> None:
        self._channel = channel
        self._find = find

    def unary_unary(self, *args: Any, **options: Any) -> Any:
        """Return a method with one message and one response."""
        return self._of("unary_unary", RecordedUnaryMethod, args, options)

    def unary_stream(self, *args: Any, **options: Any) -> Any:
        """Return a method with one message and several responses."""
        return self._of("unary_stream", RecordedMethod, args, options)

    def stream_unary(self, *args: Any, **options: Any) -> Any:
        """Return a method with several messages and one response."""
        return self._of("stream_unary", RecordedUnaryMethod, args, options)

    def stream_stream(self, *args: Any, **options: Any) -> Any:
        """Return a method with several messages and several responses."""
        return self._of("stream_stream", RecordedMethod, args, options)

    def _of(self, kind: str, made: type[RecordedMethod], args: Any, options: Any) -> Any:
        make, method = getattr(self._channel, kind), _method(args, options)
        return made(make(method.path), make(*args, **options), method, kind, self._find)

    def subscribe(self, callback: Callable[[Any], Any], try_to_connect: bool = False) -> None:
        """Call a function with the state of the channel; in a replay it is ready."""
        if replays(self._find):
            callback(grpc.ChannelConnectivity.READY)
        else:
            self._channel.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[[Any], Any]) -> None:
        """Call the function no more."""
        self._channel.unsubscribe(callback)

    def close(self) -> None:
        """Close the channel that was given."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _method(args: tuple[Any, ...], options: dict[str, Any]) -> Method:
    named = dict(zip(("method", "request_serializer", "response_deserializer"), args, strict=False)) | options
    return Method(named["method"], named.get("request_serializer"), named.get("response_deserializer"))


def replays(find: Find) -> bool:
    """Say whether what runs here is a replay, in which no channel connects."""
    found = find()
    return found is not None and not found[0].performs


# -- asynchronous --------------------------------------------------------------------------------------------


class _AsyncCallable:
    """A method of a recorded channel of `grpc.aio`."""

    def __init__(self, raw: Any, method: Method, kind: str, find: Find) -> None:
        self._raw = raw
        self._method = method
        self._kind = kind
        self._find = find

    def __call__(self, *args: Any, **options: Any) -> Any:
        first, *others = args or (options.pop("request_iterator", options.pop("request", None)),)
        named = named_options(tuple(others), options)
        metadata = named.pop("metadata", None)

        def invoke(sent: Any, pairs: Any) -> Any:
            return self._raw(sent, metadata=aio.Metadata(*pairs), **named)

        found = self._find()
        assert found is not None
        return async_call(self._method, invoke, self._kind, first, metadata=metadata, found=found)


def async_call(
    method: Method, invoke: Any, kind: str, first: Any, *, metadata: Any, found: tuple[Any, Rules]
) -> Any:
    """Return the recorded call of a method of `grpc.aio`. Raises `OtherIoError` for one that cannot be recorded."""
    takes_stream = kind.startswith("stream")
    messages = first if takes_stream else [first]
    if messages is None:
        raise grpc_async.writes()
    if kind == "stream_stream":
        messages = _known_messages(method.path, messages)
    rpc = AsyncRpc(method, invoke, takes_stream, *found)
    if kind.endswith("stream"):
        return grpc_async.RecordedStream(method, rpc.stream(messages, metadata))
    return grpc_async.RecordedUnary(rpc.unary(messages, metadata))


class _AsyncChannel(aio.Channel):
    """A channel of `grpc.aio` whose calls are recorded."""

    def __init__(self, channel: Any, find: Find) -> None:
        self._channel = channel
        self._find = find

    def unary_unary(self, *args: Any, **options: Any) -> Any:
        """Return a method with one message and one response."""
        return self._of("unary_unary", args, options)

    def unary_stream(self, *args: Any, **options: Any) -> Any:
        """Return a method with one message and several responses."""
        return self._of("unary_stream", args, options)

    def stream_unary(self, *args: Any, **options: Any) -> Any:
        """Return a method with several messages and one response."""
        return self._of("stream_unary", args, options)

    def stream_stream(self, *args: Any, **options: Any) -> Any:
        """Return a method with several messages and several responses."""
        return self._of("stream_stream", args, options)

    def _of(self, kind: str, args: Any, options: Any) -> Any:
        method = _method(args, options)
        return _AsyncCallable(getattr(self._channel, kind)(method.path), method, kind, self._find)

    async def close(self, grace: float | None = None) -> None:
        """Close the channel that was given; `grace` is in seconds."""
        await self._channel.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> Any:
        """Return the state of the channel; in a replay it is ready."""
        return (
            grpc.ChannelConnectivity.READY if replays(self._find) else self._channel.get_state(try_to_connect)
        )

    async def wait_for_state_change(self, last_observed_state: Any) -> None:
        """Wait until the channel has another state; in a replay do nothing."""
        if not replays(self._find):
            await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until the channel is ready; in a replay it is."""
        if not replays(self._find):
            await self._channel.channel_ready()
