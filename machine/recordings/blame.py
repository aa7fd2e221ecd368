"""The origin of a context value: a chain from a leaf back to the facts and the input it may come from.

A log knows which state changed what, and which facts the state had. It does not know what a handler read: the
possible inputs of a state are its facts and the keys of its base context. The writer is certain; a source is
only likely, because an equal value occurs in it. A value that occurs in no source is reported as computed.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Final

import attrs

from machine import canonical
from machine.default_store import DEFAULT_STORE, with_default_store
from machine.engine.plan_change import recorded_shape
from machine.engine.run_reader import PastRun
from machine.errors import Code, UsageError
from machine.events import FactRecorded, RunStarted, StateCompleted, StateEntered, StateFailed
from machine.ids import RESERVED_FACT_PREFIX
from machine.kernel.linearize import one_after_another
from machine.kernel.snapshot import Snapshot
from machine.plan_shape import parts_of
from machine.recordings.json_diff import ABSENT, pointer_of, tokens_of, value_at
from machine.recordings.result_json import fields_json
from machine.recordings.value_search import Occurrence, leaves, occurrences
from machine.state import SideEffects
from machine.stores.base import Store

MOST_FOLLOWED: Final = 8
"""Keys that a computed value may have come from are followed further when there are no more than these."""

MOST_STEPS: Final = 200
"""The most steps of one chain."""


@attrs.frozen
class Write:
    """One change of a value: the state and event that made it, or the input when `state_id` is None.

    `kind` is set or removed.
    """

    seq: int
    state_id: str | None
    attempt: int | None
    kind: str
    value: Any

    def to_json(self) -> dict[str, Any]:
        """Return the write as a JSON object; a removed value is left out."""
        found = attrs.asdict(self, recurse=False)
        if self.kind == "removed":
            del found["value"]
        return found


@attrs.frozen
class FactSource:
    """A fact that the writer had; `found` lists where the value occurs in its response, and may be empty."""

    seq: int
    key: str
    namespace: str
    request: Any
    found: Sequence[Occurrence]

    def to_json(self) -> dict[str, Any]:
        """Return the source as a JSON object."""
        return fields_json(self)


@attrs.frozen
class KeySource:
    """A context key that the writer could read; `pointer` leads to the step of index `step`, if it is followed.

    `seq` and `state_id` name the last writer of the key (`state_id` None: the input).
    """

    pointer: str
    seq: int
    state_id: str | None
    found: Sequence[Occurrence]
    step: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the source as a JSON object."""
        return fields_json(self)


@attrs.frozen
class Step:
    """One value of the chain: its last writer, its earlier writers, and the sources the last writer had."""

    pointer: str
    value: Any
    write: Write
    earlier: Sequence[Write]
    facts: Sequence[FactSource]
    keys: Sequence[KeySource]

    @property
    def computed(self) -> bool:
        """True when a state wrote the value and it occurs in no source that the state had."""
        found = any(fact.found for fact in self.facts) or any(key.found for key in self.keys)
        return self.write.state_id is not None and not found

    def to_json(self) -> dict[str, Any]:
        """Return the step as a JSON object."""
        return fields_json(self, "pointer", "value", "write", "earlier", "computed", "facts", "keys")


@attrs.frozen
class Blame:
    """The chain of a value: `steps[0]` is the value itself, and `KeySource.step` leads on.

    `seq` is the checkpoint that was examined.
    """

    run_id: str
    pointer: str
    seq: int
    steps: Sequence[Step]

    def to_json(self) -> dict[str, Any]:
        """Return the chain as a JSON object."""
        return fields_json(self)


@with_default_store()
def blame(run_id: str, pointer: str, *, store: Store = DEFAULT_STORE, at: int | None = None) -> Blame:
    """Find the writer of the value at a JSON Pointer of the context, and its sources; `at` is a seq.

    Without `at` the last checkpoint is used. Raises `NotFoundError`, `LogError` or `CorruptionError` for the
    run, and `UsageError`: `pointer_not_found` when nothing is at the pointer, with the nearest keys, and
    `usage` for an invalid pointer or a seq that the run does not have.
    """
    run = PastRun.read(run_id, store)
    head = run.history.head_seq
    if at is not None and not 1 <= at <= head:
        raise UsageError(f"run {run_id} has the events 1 to {head}, not {at}", code=Code.USAGE)
    chain = _Chain(run, head if at is None else at)
    try:
        tokens = tokens_of(pointer)
    except ValueError as exc:
        raise UsageError(
            f"{pointer!r} is no JSON Pointer: {exc}", code=Code.USAGE, hint=chain.keys()
        ) from None
    if not tokens:
        text = "the whole context has many writers: name one of its keys"
        raise UsageError(text, code=Code.USAGE, hint=chain.keys())
    chain.require(tokens)
    return Blame(run_id, pointer, chain.checkpoints[-1].seq, chain.follow(tokens))


@attrs.frozen(eq=False)
class _Checkpoint:
    """The context after an event, and the base context of the attempt that made it."""

    seq: int
    state_id: str | None
    attempt: int | None
    snapshot: Snapshot
    base: Snapshot


class _Chain:
    def __init__(self, run: PastRun, at: int) -> None:
        self.run = run
        self.checkpoints: list[_Checkpoint] = []
        attempt, base = 0, ""
        for entry in one_after_another(run.entries[:at]):
            match entry.event:
                case RunStarted() as event:
                    opened = run.snapshot(event.initial_snapshot_id)
                    self.checkpoints.append(_Checkpoint(entry.seq, None, None, opened, opened))
                case StateEntered() as event:
                    attempt, base = event.attempt, event.base_snapshot_id
                case StateCompleted() as event:
                    after = self._after(event)
                    began = run.snapshot(base)
                    self.checkpoints.append(_Checkpoint(entry.seq, event.state_id, attempt, after, began))
                case _:
                    pass
        self.steps: list[Step] = []
        self.waiting: list[tuple[Sequence[str], int]] = []
        self.versions: dict[str, list[tuple[int, bytes | None]]] = {}
        self.known: dict[tuple[str, int], int] = {}

    def _after(self, event: StateCompleted) -> Snapshot:
        """Return the context after a state completed, including what concurrent states had written by then."""
        after = self.run.snapshot(event.context_snapshot_id)
        if event.wrote is None:
            return after
        return self.checkpoints[-1].snapshot.changed({key: after.value(key) for key in event.wrote})[0]

    # -- lookup ------------------------------------------------------------------------------------------

    def keys(self) -> str:
        """Return the existing keys as a hint."""
        names = sorted(self.checkpoints[-1].snapshot.keys())
        if not names:
            return "its context is empty: no state has written to it"
        more = ", ..." if len(names) > MOST_FOLLOWED else ""
        return f"its keys are {', '.join(pointer_of([name]) for name in names[:MOST_FOLLOWED])}{more}"

    def require(self, tokens: Sequence[str]) -> None:
        """Raise `UsageError` (`pointer_not_found`), with the nearest keys, when nothing is at the pointer."""
        last = len(self.checkpoints) - 1
        if self.value(tokens, last) is not ABSENT:
            return
        pointer = pointer_of(tokens)
        writes = list(self.writes(tokens, last))
        depth = next(n for n in range(len(tokens) - 1, -1, -1) if self.value(tokens[:n], last) is not ABSENT)
        there = self.value(tokens[:depth], last)
        names = (
            list(map(str, there if isinstance(there, dict) else range(len(there)))) if _nests(there) else []
        )
        near = difflib.get_close_matches(tokens[depth], names, 3) or names[:MOST_FOLLOWED]
        nearest = [pointer_of((*tokens[:depth], name)) for name in near] or [pointer_of(tokens[:depth])]
        gone = ""
        if writes:
            gone = f"; {writes[-1].state_id} removed it at event {writes[-1].seq}"
        raise UsageError(
            f"the context of run {self.run.run_id} has nothing at {pointer}{gone}",
            code=Code.POINTER_NOT_FOUND,
            details={"pointer": pointer, "nearest": nearest},
            hint=f"there is {', '.join(nearest)}",
        )

    def value(self, tokens: Sequence[str], index: int) -> Any:
        """Return the value at a pointer after a checkpoint."""
        snapshot = self.checkpoints[index].snapshot
        if not tokens:
            return snapshot.to_dict()
        data = snapshot.get(tokens[0])
        return ABSENT if data is None else value_at(snapshot.decoded(tokens[0]), tokens[1:])

    def writes(self, tokens: Sequence[str], last: int) -> Iterator[Write]:
        """Yield the changes of a value up to a checkpoint, in order; writing an equal value is no change."""
        before: Any = ABSENT
        for index, data in self._versions(tokens[0]):
            if index > last:
                return
            decoded = self.checkpoints[index].snapshot.decoded
            value = ABSENT if data is None else value_at(decoded(tokens[0]), tokens[1:])
            if _differ(value, before):
                kind, shown = ("removed", None) if value is ABSENT else ("set", value)
                point = self.checkpoints[index]
                yield Write(point.seq, point.state_id, point.attempt, kind, shown)
            before = value

    def _versions(self, key: str) -> list[tuple[int, bytes | None]]:
        """Return the values of a key, each with the checkpoint that changed it."""
        if key not in self.versions:
            found: list[tuple[int, bytes | None]] = []
            for index, point in enumerate(self.checkpoints):
                data = point.snapshot.get(key)
                if data != (found[-1][1] if found else None):
                    found.append((index, data))
            self.versions[key] = found
        return self.versions[key]

    # -- backwards ---------------------------------------------------------------------------------------

    def follow(self, tokens: Sequence[str]) -> list[Step]:
        """Return the chain of a value as of the last checkpoint."""
        self.waiting.append((tokens, len(self.checkpoints) - 1))
        while len(self.steps) < len(self.waiting):
            self.steps.append(self._step(*self.waiting[len(self.steps)]))
        return self.steps

    def _step(self, tokens: Sequence[str], last: int) -> Step:
        *earlier, write = self.writes(tokens, last)
        pointer = pointer_of(tokens)
        if write.state_id is None:
            return Step(pointer, write.value, write, earlier, (), ())
        wanted = leaves(write.value)
        facts = list(self._facts(write, wanted))
        base = next(i for i, point in enumerate(self.checkpoints) if point.seq == write.seq) - 1
        keys = list(self._keys(base, wanted))
        computed = not any(fact.found for fact in facts) and not any(key.found for key in keys)
        keys = [
            self._led_on(key, base) if key.found or (computed and len(keys) <= MOST_FOLLOWED) else key
            for key in sorted(keys, key=lambda key: (not key.found, -key.seq))
        ]
        return Step(pointer, write.value, write, earlier, facts, keys)

    def _led_on(self, source: KeySource, base: int) -> KeySource:
        """Schedule a source to be followed; each version of a value is followed once."""
        version = source.pointer, source.seq
        if version not in self.known:
            if len(self.waiting) >= MOST_STEPS:
                return source
            self.known[version] = len(self.waiting)
            self.waiting.append((tokens_of(source.pointer), base))
        return attrs.evolve(source, step=self.known[version])

    def _keys(self, base: int, wanted: dict[str, Any]) -> Iterator[KeySource]:
        snapshot = self.checkpoints[base + 1].base
        for key in sorted(snapshot.keys()):
            found = occurrences(wanted, snapshot.decoded(key)) if wanted else []
            tokens = [key, *_common([tokens_of(item.pointer) for item in found])]
            *_, write = self.writes(tokens, base)
            yield KeySource(pointer_of(tokens), write.seq, write.state_id, found)

    def _facts(self, write: Write, wanted: dict[str, Any]) -> Iterator[FactSource]:
        """Yield the facts available to the attempt: its own, those it may reuse, and matching explicit facts."""
        state_id, attempt = write.state_id or "", write.attempt or 0
        first = self._reuses_from(state_id, attempt)
        for entry in self.run.entries[: write.seq]:
            fact = entry.event
            if not isinstance(fact, FactRecorded):
                continue
            own = fact.state_id == state_id and first <= fact.attempt <= attempt
            own = own and (fact.attempt == attempt or fact.outcome.final)
            shared = not own and not fact.key.startswith(RESERVED_FACT_PREFIX)
            if own or shared:
                call = self.run.call(fact)
                found = occurrences(wanted, call["response"]) if wanted and "response" in call else []
                if own or found:
                    yield FactSource(entry.seq, fact.key, fact.namespace, call["request"], found)

    def _reuses_from(self, state_id: str, attempt: int) -> int:
        """Return the first attempt whose successes an attempt of the state may reuse."""
        plan, _ = parts_of(recorded_shape(self.run.store, self.run.history.plan_id or ""))
        if plan.get(state_id, {}).get("side_effects") == SideEffects.APPLY_SIDE_EFFECT:
            return 0
        fresh = began = 0
        for entry in self.run.lanes[state_id]:
            if isinstance(entry.event, StateEntered):
                began = entry.event.attempt
            elif isinstance(entry.event, StateFailed) and not entry.event.cut and began < attempt:
                fresh = began + 1
        return fresh


def _nests(value: Any) -> bool:
    return isinstance(value, dict | list)


def _differ(one: Any, other: Any) -> bool:
    if one is ABSENT or other is ABSENT:
        return one is not other
    return canonical.encode(one) != canonical.encode(other)


def _common(paths: Sequence[list[str]]) -> list[str]:
    """Return the tokens that all paths begin with."""
    tokens = zip(*paths, strict=False)
    return [token for token, *others in itertools.takewhile(lambda column: len(set(column)) == 1, tokens)]
