"""Recorded clients of gRPC: the channels of `grpc` and `grpc.aio`, unmodified.

A call of a method is a call of `grpc` with its messages and metadata. It is an effect unless its method is declared
to read, as nothing else tells. A channel connects when it is first needed, so in a replay none does.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from grpc import aio

from machine.clients import grpc_channels
from machine.clients.grpc_channels import RecordedMethod, RecordedUnaryMethod, async_call, replays
from machine.clients.grpc_messages import NAMESPACE, Method, Rules
from machine.clients.recording import all_of, recorder, replaced
from machine.watch.watch import unguarded

recorded = grpc_channels.recorded


def _found() -> tuple[Any, Rules] | None:
    io = recorder(NAMESPACE)
    return None if io is None else (io, Rules.of(io.clients[NAMESPACE]))


def patch() -> Callable[[], None]:
    """Record every channel in the handlers whose plan records gRPC; return a function that undoes this."""
    return all_of([*_blocking_changes(), *_async_changes()])


def _blocking_changes() -> Iterator[Callable[[], None]]:
    internal = importlib.import_module("grpc._channel")
    kinds = {
        "_UnaryUnaryMultiCallable": "unary_unary",
        "_UnaryStreamMultiCallable": "unary_stream",
        "_SingleThreadedUnaryStreamMultiCallable": "unary_stream",
        "_StreamUnaryMultiCallable": "stream_unary",
        "_StreamStreamMultiCallable": "stream_stream",
    }
    for name, kind in kinds.items():
        owner = getattr(internal, name)
        for action in ("__call__", "with_call", "future") if kind.endswith("unary") else ("__call__",):
            yield replaced(owner, action, _dispatching(kind, action))
    yield replaced(internal.Channel, "subscribe", _subscribing)


def _dispatching(kind: str, action: str) -> Callable[[Any], Any]:
    made = RecordedUnaryMethod if kind.endswith("unary") else RecordedMethod

    def make(plain: Any) -> Any:
        def call(self: Any, *args: Any, **options: Any) -> Any:
            found = _found()
            if found is None:
                return plain(self, *args, **options)
            raw = copy.copy(self)
            raw._request_serializer = raw._response_deserializer = None  # noqa: SLF001 - grpc has no other way
            path = self._method.decode() if isinstance(self._method, bytes) else self._method
            method = Method(path, self._request_serializer, self._response_deserializer)
            return getattr(made(raw, self, method, kind, lambda: found), action)(*args, **options)

        return call

    return make


def _subscribing(plain: Any) -> Any:
    def subscribe(self: Any, callback: Any, try_to_connect: Any = None) -> None:
        if replays(_found):
            callback(grpc.ChannelConnectivity.READY)
        else:
            plain(self, callback, try_to_connect)

    return subscribe


def _async_changes() -> Iterator[Callable[[], None]]:
    channel, interceptor = (
        importlib.import_module(f"grpc.aio.{name}") for name in ("_channel", "_interceptor")
    )
    kinds = {
        "UnaryUnaryCall": "unary_unary",
        "UnaryStreamCall": "unary_stream",
        "StreamUnaryCall": "stream_unary",
        "StreamStreamCall": "stream_stream",
    }
    for name, kind in kinds.items():
        for module in (channel, interceptor):  # which makes the calls of a channel with interceptors
            yield replaced(module, name, _async_dispatching(kind))
    for name in ("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream"):
        yield replaced(getattr(channel, f"{name}MultiCallable"), "__call__", _seen_below)
    yield replaced(channel.Channel, "get_state", _ready)
    for name in ("wait_for_state_change", "channel_ready"):
        yield replaced(channel.Channel, name, _ready_later)


def _seen_below(plain: Any) -> Any:
    """Let the watch on handlers not see a call that is recorded when its object is made."""

    def call(self: Any, *args: Any, **options: Any) -> Any:
        if _found() is None:
            return plain(self, *args, **options)
        with unguarded():
            return plain(self, *args, **options)

    return call


def _async_dispatching(kind: str) -> Callable[[Any], Any]:
    def make(plain: Any) -> Any:
        def call(  # noqa: PLR0917 - the constructor that it stands for takes them by position
            first: Any,
            deadline: Any,
            metadata: Any,
            credentials: Any,
            wait_for_ready: Any,
            channel: Any,
            path: bytes,
            serializer: Any,
            deserializer: Any,
            *others: Any,
        ) -> Any:
            found = _found()
            options = (credentials, wait_for_ready, channel, path)
            if found is None:
                return plain(first, deadline, metadata, *options, serializer, deserializer, *others)

            def invoke(sent: Any, pairs: Any) -> Any:
                return plain(sent, deadline, aio.Metadata(*pairs), *options, None, None, *others)

            method = Method(path.decode() if isinstance(path, bytes) else path, serializer, deserializer)
            return async_call(method, invoke, kind, first, metadata=metadata, found=found)

        return call

    return make


def _ready(plain: Any) -> Any:
    def get_state(self: Any, try_to_connect: bool = False) -> Any:
        return grpc.ChannelConnectivity.READY if replays(_found) else plain(self, try_to_connect)

    return get_state


def _ready_later(plain: Any) -> Any:
    async def ready(self: Any, *args: Any) -> None:
        if not replays(_found):
            await plain(self, *args)

    return ready
