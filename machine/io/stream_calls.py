"""The streams of a handler's `io`: calls whose answers are read in pieces."""

from __future__ import annotations

import functools
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import attrs

from machine import canonical
from machine.config import IoMode
from machine.errors import Code, StateError
from machine.events import FactRecorded
from machine.ids import piece_key
from machine.ignore import Ignore
from machine.io import files, secret
from machine.io.attempt_scope import AttemptScope
from machine.io.call_identity import Call
from machine.io.http_message import http_request
from machine.io.outcome_turns import HandOut
from machine.io.piece_reader import FileStream, HttpStream
from machine.io.redirect_secrets import Sensitive, parts
from machine.io.request_identity import RequestRules
from machine.io.stream_end import pieces_of
from machine.io.streamed_answer import CallStream, Parts, UnrecordedStream
from machine.kernel.known_after_apply import given
from machine.watch.code_owner import running_step
from machine.watch.watch import engine_at_work


class StreamCalls(ABC):
    """The part of an `io` that opens, reads and closes streams."""

    _scope: AttemptScope

    @functools.cached_property
    def _handing(self) -> HandOut:
        return HandOut(self._scope)

    @functools.cached_property
    def _open_streams(self) -> dict[str, CallStream]:
        return {}

    @property
    def unused(self) -> bool:
        """True until the first call is made: most handlers make none, and there is nothing to end."""
        return "_handing" not in vars(self)

    @abstractmethod
    def _identify(
        self,
        namespace: str,
        request: Any,
        fact_key: str | None,
        *,
        rules: RequestRules | None = None,
        opens: bool = False,
    ) -> Call:
        """Return the call of a request, which `opens` a stream; see `IoProvider`."""

    @abstractmethod
    async def _fact(self, call: Call, value: bytes | None = None) -> FactRecorded:
        """Return the one fact of a call; see `IoProvider`."""

    @abstractmethod
    async def _obtain(self, call: Call) -> FactRecorded:
        """Return the fact of a call that has none yet; see `IoProvider`."""

    @abstractmethod
    def _result(self, fact: FactRecorded) -> Any:
        """Return the result of a call; see `IoProvider`."""

    async def _let_go(self, key: str) -> None:
        """Stop receiving the answer of a stream, if anything is received."""
        del key

    def http_stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        data: str | bytes | Mapping[str, Any] | None = None,
        timeout: float = 30.0,
        max_body: int = 2**40,
        fact_key: str | None = None,
        ignore: Ignore | None = None,
        **options: Any,
    ) -> HttpStream:
        """Make an HTTP request and read its answer piece by piece: `async with io.http_stream(...) as answer`.

        `timeout` is in seconds and covers the time to the head, and then to each piece; `ignore` says which parts
        of the request are not compared. See `http_request`.
        """
        request = http_request(
            method,
            url,
            headers=headers,
            params=params,
            json=json,
            data=data,
            timeout=timeout,
            max_body=max_body,
            stream=True,
            **options,
        )
        return HttpStream(functools.partial(self.open_stream, "http", request, fact_key, ignore=ignore))

    def open_file(
        self,
        path: str | os.PathLike[str],
        *,
        piece_bytes: int = files.PIECE_BYTES,
        fact_key: str | None = None,
    ) -> FileStream:
        """Read a regular file of any size piece by piece: `async with io.open_file(path) as file`.

        `piece_bytes` is about the size of a piece. The path is recorded as given.
        """
        request = files.open_request(path, piece_bytes=piece_bytes)
        return FileStream(functools.partial(self.open_stream, files.OPEN, request, fact_key))

    async def open_stream(
        self, namespace: str, request: Any, fact_key: str | None = None, *, ignore: Ignore | None = None
    ) -> CallStream:
        """Make a call as `call` does, and return its answer as a stream, which has to be read or closed.

        It comes in pieces if the transport of `namespace` can do so (`Streaming`), else as a whole.
        """
        rules = self._scope.run.requests.of_call(namespace, ignore)
        return await self._opened(namespace, request, fact_key, rules)

    async def open_client_stream(self, namespace: str, request: Any, rules: RequestRules) -> CallStream:
        """Open a stream for a client, which is recorded unless it is part of a step."""
        transport = self._scope.transport(namespace)
        if running_step() is None or transport is None:
            return await self._opened(namespace, request, None, rules)
        with engine_at_work(), secret.naming_parts(self.sensitive(request)):
            return UnrecordedStream(namespace, await transport.perform(namespace, request))

    def sensitive(self, message: dict[str, Any]) -> Sensitive:
        """Return the parts of a request of a client that hold a secret."""
        secrets = self._scope.secrets
        return parts(secrets.stored("http", canonical.encode(message)), secrets.run.stand_ins.values())

    async def _opened(
        self, namespace: str, request: Any, fact_key: str | None, rules: RequestRules
    ) -> CallStream:
        with engine_at_work():
            call = self._opening(namespace, request, fact_key, rules)
            return self._stream_of(call, await self._fact(call))

    def _opening(self, namespace: str, request: Any, fact_key: str | None, rules: RequestRules) -> Call:
        """Return the call of a request that opens a stream."""
        call = self._identify(namespace, request, fact_key, rules=rules, opens=True)
        if self._is_unfinished(call.key):
            raise StateError(
                f"the fact {call.key!r} is that of a stream of this attempt which has no end",
                code=Code.FACT_KEY_CONFLICT,
                hint="read the stream to its end or close it first, or give another fact key",
            )
        return call

    def _stream_of(self, call: Call, fact: FactRecorded) -> CallStream:
        """Return the stream that a fact opened."""
        if self._scope.run.config.io_mode is IoMode.DRY_RUN:
            given(self._response(fact))
        stream = CallStream(self._parts, call, fact)
        if fact.piece is not None:
            self._open_streams[call.key] = stream
        return stream

    def _is_unfinished(self, key: str) -> bool:
        """Say whether a call of this attempt has opened a stream under a key that has no end."""
        facts, own = self._scope.log.history.facts, (self._scope.state.id, self._scope.attempt)
        head, end = facts.get(piece_key(key, 0)), facts.get(key)
        here = [fact is not None and (fact.state_id, fact.attempt) == own for fact in (head, end)]
        return here == [True, False]

    @functools.cached_property
    def _parts(self) -> Parts:
        log = self._scope.log
        return Parts(self._next_part, self._close_part, log.history.facts.get, self._response)

    async def _next_part(self, call: Call) -> FactRecorded:
        assert call.part is not None
        with engine_at_work():
            fact = await self._fact(call)
        if fact.piece is None:
            self._open_streams.pop(call.part.key, None)
        return fact

    async def _close_part(self, call: Call) -> None:
        """Record that the reader closed a stream, unless its attempt is interrupted."""
        assert call.part is not None
        self._open_streams.pop(call.part.key, None)
        scope = self._scope
        with engine_at_work():
            if not scope.cut and scope.log.abort() is None:
                await self._obtain(call)
                await self._handing.durable(call, scope.log.history.head_seq)
            await self._let_go(call.part.key)

    def _response(self, fact: FactRecorded) -> Any:
        return self._result(fact).response

    def _whole(self, fact: FactRecorded) -> Any:
        """Return the result of a call that asks for no stream, also where one answered it before."""
        result = self._result(fact)
        if pieces_of(result.response) is None or not self._parts.ends_stream(fact):
            return result
        return attrs.evolve(result, response=self._parts.whole(fact))

    async def end(self) -> None:
        """Cancel the calls that a handler left in flight, and record each as cancelled; then close its streams."""
        await self._handing.end()
        for stream in list(self._open_streams.values()):
            await stream.aclose()
        if (databases := self._scope.opened_databases) is not None:
            databases.abandon()
