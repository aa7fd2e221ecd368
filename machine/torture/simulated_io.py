"""Simulated I/O, made of the responses of a first run, so that a matrix makes external calls only once.

It answers each request with the outcomes that were recorded for it, in order. As the receiver of effects, it
treats a second arrival under one idempotency key as the same effect. It notes what no receiver should see.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import anyio
import attrs
from anyio.lowlevel import checkpoint

from machine import canonical
from machine.errors import Code, IoError, OtherIoError
from machine.events import (
    Entry,
    FactError,
    FactRecorded,
    StateCompleted,
    StateEntered,
    StateFailed,
)
from machine.ids import stream_key
from machine.io.step_transport import STEP, has_no_key
from machine.io.stream_end import bytes_of, whole_answer
from machine.io.transport import Opened, Transport
from machine.kernel.transactions import SQL, dropped
from machine.plan import Graph
from machine.state import SideEffects
from machine.stores.base import Store
from machine.torture.death_after_entry import Returns
from machine.torture.faults import PowerCut
from machine.torture.faulty_store import TorturedStore
from machine.torture.run_summary import interrupted_attempts
from machine.torture.true_values import TrueValues, asked_for

IDEMPOTENT: Final = frozenset({"file.write"})
"""Namespaces of this library's transports in which effects are idempotent."""

_Call = tuple[str, str]


@attrs.frozen
class Answer:
    """The answer to a request."""

    value: Any = attrs.field(repr=False)


@attrs.frozen
class StreamAnswer:
    """The head and the pieces of a streamed answer, and the error that broke it off, if there was one."""

    head: Any = attrs.field(repr=False)
    pieces: list[bytes] = attrs.field(repr=False)
    error: FactError | None = None


_Outcome: TypeAlias = Answer | StreamAnswer | FactError


@attrs.frozen
class Script:
    """The outcomes of a first run, for each request by its namespace and its name as it is sent."""

    outcomes: Mapping[_Call, list[_Outcome]]
    stored: Mapping[str, str]
    """The digests of the requests as they are stored, by the names of the requests."""
    run_id: str
    secrets: TrueValues
    idempotent: frozenset[str] = IDEMPOTENT

    @classmethod
    def of(cls, entries: Iterable[Entry], store: Store, run_id: str, idempotent: Iterable[str]) -> Script:
        """Return the script of a recorded run."""
        outcomes: dict[_Call, list[_Outcome]] = {}
        parts: dict[str, list[Any]] = {}
        stored: dict[str, str] = {}
        secrets = TrueValues(store, run_id)
        for entry in entries:
            if isinstance(fact := entry.event, FactRecorded):
                outcome = fact.outcome if isinstance(fact.outcome, FactError) else secrets.answer(entry, fact)
                if fact.piece is not None:
                    parts.setdefault(stream_key(fact.key), []).append(outcome)
                    continue
                name = asked_for(entry, fact)
                stored[name] = fact.request_digest
                outcomes.setdefault((fact.namespace, name), []).append(
                    _outcome(outcome, parts.pop(fact.key, []))
                )
        return cls(outcomes, stored, run_id, secrets, IDEMPOTENT | frozenset(idempotent))

    def name(self, request: bytes) -> str:
        """Return the name under which a script has the outcomes of a request, given its canonical bytes as sent."""
        hashed = self.secrets.hashed(request)
        return hashed if hashed is not None and hashed in self.stored else canonical.artifact_id(request)


class SimulatedIo:
    """The simulated I/O of one trial, over all processes of its run; `problems` lists violations it has seen."""

    def __init__(self, script: Script, graph: Graph, real_transports: Mapping[str, Transport]) -> None:
        self.problems: list[str] = []
        self.applied: set[tuple[str, str]] = set()
        """Distinct effects by their receivers: namespace, and key (the request if it has none)."""
        self.transports: dict[str, Transport] = {
            prefix: _SimulatedTransport(self, inner) for prefix, inner in real_transports.items()
        }
        self._script = script
        self._graph = graph
        self._dealt: Counter[_Call] = Counter()
        self._sent: dict[str, tuple[str, str]] = {}
        self._asked: dict[bytes, str] = {}
        self._arrived: Counter[_Call] = Counter()
        self._used: Counter[str] = Counter()
        self._open: set[str] = set()
        self._store: TorturedStore | None = None
        self._returns: Returns | None = None
        self._begun = False

    def live(
        self, store: TorturedStore, entries: Iterable[Entry] = (), *, dies_after: int | None = None
    ) -> None:
        """Begin a process on a store with the log `entries`; with `dies_after`, it dies after that seq.

        A call whose outcome was not recorded is made again, and answered with the same.
        """
        self._returns = None if dies_after is None else Returns(store, dies_after)
        self._store, self._used, self._open = store, Counter(), set()
        known = list(entries)
        self._begun = bool(known)
        interrupted = interrupted_attempts(known)
        secrets = TrueValues(store, self._script.run_id)  # this store has a key of its own
        names = {secrets.hashed(request): name for request, name in self._asked.items()}
        without_end = dropped(known)
        self._dealt = Counter(
            (entry.event.namespace, names.get(asked_for(entry, entry.event), entry.event.request_digest))
            for entry in known
            if isinstance(entry.event, FactRecorded)
            and entry.event.piece is None
            and entry.event.key not in without_end
            and (entry.event.outcome.final or (entry.event.state_id, entry.event.attempt) not in interrupted)
        )

    def entry(self, entry: Entry) -> None:
        """Note which attempts are open."""
        if self._returns is not None:
            self._seen(self._returns, entry)
        match entry.event:
            case StateEntered(state_id):
                self._open.add(state_id)
            case StateCompleted(state_id) | StateFailed(state_id):
                self._open.discard(state_id)
            case _:
                return

    def sent_as(self, request: Any, keyed: Any, key: str) -> None:
        """Note the request that an effect becomes with its idempotency key."""
        name = self._name(request)
        self._sent[_digest(keyed)] = (name, key if keyed != request else name)

    async def answer(self, inner: Transport, namespace: str, request: Any, *, opens: bool = False) -> Any:
        """Answer a request that has arrived, in pieces if it `opens` a stream that was one.

        Raises the recorded `IoError` if that was the outcome.
        """
        await checkpoint()
        if self._returns is not None:
            self._seen(self._returns)
        store = self._store
        if store is None or store.dead:
            raise PowerCut
        name, receiver = self._sent.get(_digest(request)) or (self._name(request),) * 2
        call = namespace, name
        if not self._begun and not store.told:
            self._wrong(f"{namespace} was called before the run itself was durable")
        if self._is_effect(inner, namespace, request):
            # it carries a key, added or its own
            keyed = receiver != name or inner.with_idempotency_key(namespace, request, "key") == request
            keyed = keyed and not (namespace == STEP and has_no_key(request))
            knows = namespace in self._script.idempotent or (inner.one_effect_per_key and keyed)
            knows = knows or namespace == SQL  # whose next attempt looks first
            self._effect(call, receiver, store, knows=knows)
        outcomes = self._script.outcomes.get(call)
        if outcomes is None:
            self._wrong(f"{namespace} was asked for something that the first run never asked for")
            raise OtherIoError(f"nothing is recorded for this request of {namespace}", code=Code.MISSING_FACT)
        number = self._dealt[call]
        self._dealt[call] += 1
        if number >= len(outcomes):
            self._wrong(f"{namespace} was asked again for what the run had learned already")
        outcome = outcomes[min(number, len(outcomes) - 1)]
        if isinstance(outcome, FactError):
            if outcome.error.code == Code.CALL_CANCELLED:
                await anyio.sleep_forever()  # the handler gave the call up, as it did in the first run
            raise IoError.from_fact(outcome.kind, outcome.error)
        if isinstance(outcome, Answer):
            return outcome.value
        source = _SimulatedPieces(store, outcome)
        return Opened(outcome.head, source) if opens else whole_answer(outcome.head, outcome.pieces)

    def looked_up(self, namespace: str, request: Any) -> dict[str, Any]:
        """Return whether an effect on a database arrived, whose outcome was not recorded."""
        call = namespace, self._name(request)
        number, outcomes = self._dealt[call], self._script.outcomes.get(call, ())
        outcome = outcomes[number] if number < len(outcomes) else None
        done = self._arrived[call] > number and isinstance(outcome, Answer)
        if done:
            self._dealt[call] += 1
        return {
            "known": True,
            "done": done,
            "response": outcome.value if isinstance(outcome, Answer) else None,
        }

    def _name(self, request: Any) -> str:
        data = canonical.encode(request)
        self._asked[data] = name = self._script.name(data)
        return name

    def _seen(self, returns: Returns, entry: Entry | None = None) -> None:
        try:
            if entry is None:
                returns.seen()
            else:
                returns.entry(entry)
        finally:
            if returns.lost:
                self._wrong("an effect's call had returned, and its outcome was not durable")

    def _is_effect(self, inner: Transport, namespace: str, request: Any) -> bool:
        applies = (
            self._graph.states[state_id].meta.side_effects is SideEffects.APPLY_SIDE_EFFECT
            for state_id in self._open
        )
        return inner.is_effect(namespace, request) and any(applies)

    def _effect(self, call: _Call, receiver: str, store: TorturedStore, *, knows: bool) -> None:
        namespace, name = call
        digest = self._script.stored.get(name, name)
        self._used[digest] += 1
        if self._used[digest] > store.intents[digest]:
            self._wrong(f"an effect of {namespace} left before its intent was durable")
        self._arrived[call] += 1
        if self._arrived[call] > len(self._script.outcomes.get(call, ())) and not knows:
            self._wrong(f"an effect of {namespace} was sent twice, and its receiver cannot tell")
        self.applied.add((namespace, receiver))

    def _wrong(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def _outcome(outcome: Any, parts: list[Any]) -> _Outcome:
    """Return the outcome of a call, given that of its fact and the parts of its stream before."""
    if not parts:
        return outcome if isinstance(outcome, FactError) else Answer(outcome)
    head, *pieces = parts
    error = outcome if isinstance(outcome, FactError) else None
    return StreamAnswer(
        head, [bytes_of(piece) for piece in pieces if not isinstance(piece, FactError)], error
    )


class _SimulatedPieces:
    """The pieces of a streamed answer, until the process of its reader dies."""

    def __init__(self, store: TorturedStore, answer: StreamAnswer) -> None:
        self._store = store
        self._left = list(answer.pieces)
        self._error = answer.error

    async def next(self) -> bytes | None:
        await checkpoint()
        if self._store.dead:
            raise PowerCut
        if not self._left and self._error is not None:
            raise IoError.from_fact(self._error.kind, self._error.error)
        return self._left.pop(0) if self._left else None

    async def aclose(self) -> None:
        """Close nothing."""


class _SimulatedTransport:
    """The transport of one prefix: the real one answers questions about requests but performs none."""

    def __init__(self, simulated: SimulatedIo, inner: Transport) -> None:
        self._simulated = simulated
        self._inner = inner
        self.one_effect_per_key = inner.one_effect_per_key

    def is_effect(self, namespace: str, request: Any) -> bool:
        return self._inner.is_effect(namespace, request)

    def is_final(self, namespace: str, response: Any) -> bool:
        return self._inner.is_final(namespace, response)

    def is_certain_effect(self, namespace: str, request: Any) -> bool:
        return self._inner.is_certain_effect(namespace, request)

    def with_idempotency_key(self, namespace: str, request: Any, key: str) -> Any:
        keyed = self._inner.with_idempotency_key(namespace, request, key)
        self._simulated.sent_as(request, keyed, key)
        return keyed

    async def perform(self, namespace: str, request: Any) -> Any:
        return await self._simulated.answer(self._inner, namespace, request)

    async def open_stream(self, namespace: str, request: Any) -> Any:
        return await self._simulated.answer(self._inner, namespace, request, opens=True)

    async def look_up(self, namespace: str, request: Any, ask: Any) -> dict[str, Any]:
        del ask
        await checkpoint()
        return self._simulated.looked_up(namespace, request)

    async def aclose(self) -> None:
        """Close nothing: the real transport belongs to its opener."""


def _digest(value: Any) -> str:
    return canonical.artifact_id(canonical.encode(value))
