"""Calls of the clients of other libraries, which their own code performs and a handler's `io` records.

A library's code makes the request, `io` records it and the answer, and a replay gives the library the recorded
answer without performing anything. A library that works without an event loop is served in any thread.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, TypeVar
from weakref import WeakSet

import attrs
from anyio import from_thread

from machine.errors import Code, StateError
from machine.events import EffectIntended, FactRecorded
from machine.io.attempt_scope import AttemptScope
from machine.io.call_identity import Call
from machine.io.client_work import ClientWork, performing, whole_of
from machine.io.lent_work import handed_to_loop
from machine.io.redirect_secrets import Sensitive
from machine.io.request_identity import RequestRules
from machine.io.streamed_answer import CallStream, UnrecordedStream
from machine.io.transaction_answers import Place
from machine.io.transport import Opened
from machine.io.waiting_thread import WaitingThread, alone, at_once, in_caller
from machine.kernel.known_after_apply import given
from machine.recorded_clients import Clients
from machine.watch.code_owner import running_step
from machine.watch.threads_and_programs import follow_callers
from machine.watch.watch import engine_at_work

T = TypeVar("T")


class ClientCalls(ABC):
    """The part of an `io` through which clients of other libraries are recorded."""

    _scope: AttemptScope
    performs = True
    """False where calls are only looked up in a recording."""

    @property
    @abstractmethod
    def scope(self) -> AttemptScope:
        """The attempt whose handler has this `io`."""

    @property
    @abstractmethod
    def _applies(self) -> bool:
        """True where calls may be effects."""

    @abstractmethod
    def sensitive(self, message: dict[str, Any]) -> Sensitive:
        """Return the parts of an HTTP request that hold a secret."""

    @property
    def clients(self) -> Clients:
        """The libraries whose clients are recorded, with their options."""
        return self._scope.run.clients

    @property
    @abstractmethod
    def open_sessions(self) -> WeakSet[Any]:
        """The connections that the handler has opened and not closed; see `WaitCalls`."""

    @abstractmethod
    def _identify(
        self, namespace: str, request: Any, fact_key: str | None, *, rules: RequestRules | None = None
    ) -> Call:
        """Return the call of a request; see `IoProvider`."""

    @abstractmethod
    async def _fact(self, call: Call) -> FactRecorded:
        """Return the one fact of a call; see `IoProvider`."""

    @abstractmethod
    def _fact_at_once(self, call: Call) -> FactRecorded:
        """Return the fact of a call on the event loop's own thread, which cannot wait; see `StepCalls`."""

    @abstractmethod
    def _whole(self, fact: FactRecorded) -> Any:
        """Return the result of a call; see `StreamCalls`."""

    @abstractmethod
    def _opening(self, namespace: str, request: Any, fact_key: str | None, rules: RequestRules) -> Call:
        """Return the call of a request that opens a stream; see `StreamCalls`."""

    @abstractmethod
    def _stream_of(self, call: Call, fact: FactRecorded) -> CallStream:
        """Return the stream that a fact opened; see `StreamCalls`."""

    @abstractmethod
    async def open_client_stream(self, namespace: str, request: Any, rules: RequestRules) -> CallStream:
        """Open a stream for a client; see `StreamCalls`."""

    async def client_call(
        self,
        namespace: str,
        request: Any,
        send: Callable[[Any], Awaitable[Any]],
        rules: RequestRules | None = None,
        place: Place | None = None,
    ) -> Any:
        """Record a call that `send` performs, and return the recorded response.

        `send` gets the request as it is to be sent and returns the response, both JSON. `place` is that of the call
        in a transaction. Raises the recorded `IoError` if that raised one.
        """
        if not self.stops_the_loop():
            raise StateError(
                f"an asynchronous client ({namespace}) is used on an event loop of another thread than the run's",
                code=Code.IO_IN_ANOTHER_LOOP,
                hint="declare the handler with async def and await the client there, or use the blocking client of "
                "its library in a handler that is a plain function",
            )
        with engine_at_work(), performing(ClientWork(namespace, send)):
            return given(
                self._whole(await self._fact(self._client(namespace, request, rules, place))).response
            )

    def client_call_blocking(
        self,
        namespace: str,
        request: Any,
        send: Callable[[Any], Any],
        rules: RequestRules | None = None,
        place: Place | None = None,
    ) -> Any:
        """Record a call as `client_call` does, in any thread: `send` is called in the thread that calls this.

        On the thread of the event loop nothing else runs meanwhile, and an effect is refused there.
        """
        work = ClientWork(namespace, partial(in_caller, send))
        if not self.stops_the_loop():
            identify = partial(self._client, namespace, request, rules, place)
            with engine_at_work():
                return self.made_in_thread(work, identify, self._response_of)
        with engine_at_work(), performing(work):
            self._refuse_effect(namespace, request)
            call = self._client(namespace, request, rules, place)
            return given(self._whole(self._fact_at_once(call)).response)

    async def client_stream(
        self,
        namespace: str,
        request: Any,
        open_answer: Callable[[Any], Awaitable[Opened | Any]],
        rules: RequestRules | None = None,
    ) -> CallStream:
        """Record a call whose answer comes in pieces, and return the stream of them.

        `open_answer` gets the request as it is to be sent, and returns an `Opened`, or the answer if it is short.
        """
        follow_callers()
        with performing(ClientWork(namespace, partial(whole_of, open_answer), open_answer)):
            return await self.open_client_stream(namespace, request, rules or self._scope.run.requests)

    def client_stream_blocking(
        self,
        namespace: str,
        request: Any,
        open_answer: Callable[[Any], Awaitable[Opened | Any]],
        rules: RequestRules | None = None,
    ) -> BlockingStream:
        """Record a call as `client_stream` does, in any thread, and return a stream that is read without `await`.

        What `open_answer` and its pieces do in the calling thread they do through `in_caller`. On the thread of the
        event loop the answer is recorded whole.
        """
        if not self.stops_the_loop():
            rules = rules or self._scope.run.requests
            in_one_part = partial(in_caller, alone, open_answer)
            if running_step() is not None:
                return BlockingStream(
                    self, self.in_thread(partial(self.client_stream, namespace, request, in_one_part, rules))
                )
            work = ClientWork(namespace, partial(whole_of, in_one_part), in_one_part)
            identify = partial(self._opening, namespace, request, None, rules)
            with engine_at_work():
                follow_callers()
                return BlockingStream(self, self.made_in_thread(work, identify, self._stream_of))
        with engine_at_work(), performing(ClientWork(namespace, partial(whole_of, open_answer))):
            self._refuse_effect(namespace, request)
            call = self._client(namespace, request, rules)
            answer = given(self._whole(self._fact_at_once(call)).response)
        return BlockingStream(self, UnrecordedStream(namespace, answer))

    @abstractmethod
    async def look_up_effect(
        self, intent: EffectIntended, look_up: Callable[[], Awaitable[Mapping[str, Any]]]
    ) -> None:
        """Record what became of an effect on a database that a crash may have hidden.

        `look_up` says whether that is `known`, whether the effect was `done`, and with which `response`. Raises
        `StateError` (`effect_uncertain`) where it is not known.
        """

    def look_up_effect_blocking(
        self, intent: EffectIntended, look_up: Callable[[], Mapping[str, Any]]
    ) -> None:
        """Record what became of an effect as `look_up_effect` does, in any thread."""
        looking = partial(self.look_up_effect, intent, partial(in_caller, look_up))
        if not self.stops_the_loop():
            self.in_thread(looking)
            return
        with engine_at_work():
            at_once(looking())

    def made_in_thread(
        self, work: ClientWork, identify: Callable[[], Call], result: Callable[[Call, FactRecorded], T]
    ) -> T:
        """Make the call that `identify` returns, whose part is `work`, from another thread than the event loop's.

        Returns the `result` of the call and its fact.
        """

        async def made() -> T:
            with performing(work):
                call = identify()
                return result(call, await self._fact(call))

        return self.in_thread(made)

    def _response_of(self, call: Call, fact: FactRecorded) -> Any:
        """Return the response of a call that is answered as a whole."""
        del call
        return self._whole(fact).response

    @property
    def can_wait(self) -> bool:
        """True where this code may wait for the event loop: garbage is collected in any thread, at any moment."""
        lent = self._scope.lent
        return not self.stops_the_loop() and (lent is None or not lent.is_done_here)

    def stops_the_loop(self) -> bool:
        """Say whether this code runs on the thread of the event loop, which has to answer it."""
        return threading.get_ident() == self._scope.run.thread

    def in_thread(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a call on the event loop of the run, from another thread."""
        loop = self._scope.run.loop
        with engine_at_work(), handed_to_loop(self._scope.lent):
            return (
                WaitingThread().wait_for(call, loop) if self.performs else from_thread.run(call, token=loop)
            )

    def _refuse_effect(self, namespace: str, request: Any) -> None:
        transport = self._scope.transport(namespace)
        if self._applies and transport is not None and transport.is_effect(namespace, request):
            raise StateError(
                f"a client without an event loop makes an effect ({namespace}) on the thread of the event loop, "
                "which has to make its intent durable first",
                code=Code.BLOCKING_EFFECT,
                hint="make the handler a plain function, call the client in asyncio.to_thread, or use the "
                "asynchronous client of its library",
            )

    def _client(
        self, namespace: str, request: Any, rules: RequestRules | None, place: Place | None = None
    ) -> Call:
        self._scope.check_open("called", namespace)
        follow_callers()
        call = self._identify(namespace, request, None, rules=rules)
        return call if place is None else attrs.evolve(call, place=place)


class BlockingStream:
    """A stream that is read without `await`; `head` is what came before its pieces."""

    def __init__(self, io: ClientCalls, stream: CallStream) -> None:
        self._io = io
        self.stream = stream
        self.head = stream.head

    @property
    def size(self) -> int | None:
        """The number of bytes of all pieces, None as long as it is not known."""
        return self.stream.size

    @property
    def ended(self) -> bool:
        """True once the stream was read to its end or closed."""
        return self.stream.ended

    def next(self) -> bytes | None:
        """Return the next piece, None at the end. Raises the recorded error of a stream that broke off."""
        if self.stream.is_whole:
            return self.stream.next_of_whole()
        return self.run(self.stream.next)

    def close(self) -> None:
        """Stop reading. The place where a stream that goes on was closed is recorded.

        One that is closed where its thread cannot wait is closed at the end of its attempt.
        """
        if self.stream.is_whole:
            self.stream.ended = True
        elif not self.stream.ended and self._io.can_wait:
            self.run(self.stream.aclose)

    def run(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a read of the stream, from the thread of the client."""
        if self.stream.is_whole:  # it waits for nothing
            return at_once(call())
        return self._io.in_thread(call)
