"""Absurd logs: recorded runs, a blow dealt to one event, and every hash mended: only rules can refuse them.

`recorded` are runs with a bit of everything, `blows` what may happen to a log; `Absurd` puts one into a store and
into a bundle, and says what each reader makes of it.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import attrs
from blake3 import blake3
from rich_run import World, plan_in, record

import machine
from machine import MachineError, Plan, RetryPolicy, RunConfig, canonical, codec, fork, replay, run, verify
from machine.config import FanOutJoin
from machine.errors import BundleError, LogError
from machine.events import Artifact, chain_next
from machine.io.transport import BaseTransport
from machine.kernel.history import fold
from machine.recordings import bundle_line
from machine.recordings.divergence import DivergenceKind
from machine.stores import MemoryStore
from machine.stores.base import ZERO_CHAIN, StoredEvent

__all__ = ["Absurd", "Recorded", "blows", "recorded", "spread"]


class Recorded(NamedTuple):
    """A run as it was recorded: what is needed to replay it, its events as JSON, and its artifacts."""

    name: str
    plan: Plan
    transports: dict[str, Any]
    run_id: str
    events: list[tuple[dict[str, Any], dict[str, Any]]]
    artifacts: dict[str, tuple[str, bytes]]


class Outside(BaseTransport):
    """Answers everything with what was asked; `pay` is an effect."""

    def is_effect(self, namespace, request):
        return namespace == "pay"

    async def perform(self, namespace, request):
        return {"asked": request}


OUTSIDE = {"world": Outside(), "pay": Outside()}


def concurrent_plan() -> Plan:
    """Return a plan of concurrent states that join, one of which fails before it succeeds."""
    plan = Plan("wide")
    failed: list[int] = []

    @plan.state("step.first")
    async def first(ctx, io, rec):
        ctx["first"] = (await io.call("world", {"n": 1})).response

    @plan.state("step.left", after=[first], retry=RetryPolicy(3))
    async def left(ctx, io, rec):
        asked = (await io.call("world", {"n": 2})).response
        if not (await io.call("world", {"attempt": len(failed)}, fact_key=f"try {len(failed)}")).response:
            raise LookupError
        ctx["left"] = asked

    @plan.state("step.right", after=[first], side_effects="apply_side_effect", idempotency="once")
    async def right(ctx, io, rec):
        await io.call("pay", {"n": 3})
        await rec.emit(machine.DomainEvent("paid", {"text": "x" * 20_000}))
        ctx["right"] = ["y" * 200, ctx["first"]]

    @plan.state("step.report", after=[first], tags=["report"])
    async def report(ctx, io, rec):
        ctx["report"] = 1

    @plan.state("step.last", after=[left, right, report])
    async def last(ctx, io, rec):
        ctx.update({f"key {number}": number for number in range(20)})
        del ctx["right"]

    return plan


def failing_plan() -> Plan:
    """Return a plan one of whose states fails twice and then for good."""
    plan = Plan("weak")

    @plan.state("step.first")
    async def first(ctx, io, rec):
        ctx["at"] = await io.now()

    @plan.state("step.second", after=[first], retry=RetryPolicy(2))
    async def second(ctx, io, rec):
        await io.call("world", {"n": 1})
        raise LookupError("there is none")

    return plan


def recorded(folder: Path | None = None) -> list[Recorded]:
    """Record the runs that blows are dealt to."""
    del folder
    world = World()
    found = []
    with MemoryStore() as store:
        rich = record(store)
        doors = {"world": world, "pay": world, "flaky": world}
        found.append(_recorded("a bit of everything", plan_in("bundle-1"), doors, store, rich))
    with MemoryStore() as store:
        plan = concurrent_plan()
        config = RunConfig(execution_mode=FanOutJoin(2), skip_tags=["report"])
        result = run(plan, store=store, input={"order": 7}, config=config, transports=OUTSIDE)
        found.append(_recorded("concurrent", plan, OUTSIDE, store, result.run_id))
    with MemoryStore() as store:
        plan = failing_plan()
        result = run(plan, store=store, transports=OUTSIDE)
        found.append(_recorded("failing", plan, OUTSIDE, store, result.run_id))
        facts = [entry for entry in store.read_range(result.run_id) if b'"clock.now"' in entry.data]
        seq = facts[0].seq
        forked = fork(
            result.run_id, plan=plan, store=store, at=seq + 3, set_facts={str(seq): 7}, transports=OUTSIDE
        )
        found.append(_recorded("forked", plan, OUTSIDE, store, forked.run_id))
    return found


def _recorded(name: str, plan: Plan, transports: dict[str, Any], store: MemoryStore, run_id: str) -> Recorded:
    envelopes = [json.loads(stored.data) for stored in store.read_range(run_id)]
    events = [(envelope["event"], envelope["info"]) for envelope in envelopes]
    return Recorded(name, plan, transports, run_id, events, dict(store._contents.artifacts))


# -- blows ---------------------------------------------------------------------------------------------------

VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    10_001,
    2**53 - 1,
    1 - 2**53,
    0.5,
    "",
    "x",
    "0" * 64,
    "@",
    "@a/\u00b2/b/\u00b2",
    "@a/" + "9" * 5000 + "/b/0",
    "a.b.c",
    "\u0000\U0001f600",
    "x" * 1000,
    [],
    ["x"],
    [{"type": "effect_outcome", "key": "k", "state_id": "s"}],
    {},
    {"type": "value", "payload_id": "0" * 64},
]


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, dict) and len(path) < 3:
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list) and len(path) < 3:
        for index, item in enumerate(value[:3]):
            yield from _leaves(item, (*path, index))


def _put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    value = copy.deepcopy(value)
    place = value
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = new
    return value


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def blows(run: Recorded) -> Iterator[tuple[str, list[tuple[dict[str, Any], dict[str, Any]]]]]:
    """Yield what may happen to a log, by name: events dropped, doubled, moved, fields replaced."""
    events = run.events
    for number in range(len(events)):
        yield f"event {number + 1} dropped", events[:number] + events[number + 1 :]
        yield f"event {number + 1} doubled", events[: number + 1] + events[number:]
        yield f"cut after event {number + 1}", events[: number + 1]
        for place in {0, 1, number - 1, number + 1, number + 2, len(events) - 1} - {number, -1}:
            rest = events[:number] + events[number + 1 :]
            yield f"event {number + 1} moved to {place + 1}", [*rest[:place], events[number], *rest[place:]]
    for number, (event, info) in enumerate(events):
        both = {"event": event, "info": info}
        for path in list(_leaves(both)):
            if len(path) < 2 or path == ("info", "run_id"):
                continue
            here = _at(both, path)
            others = [_at({"event": one, "info": two}, path) for one, two in events]
            known = [*VALUES, *(other for other in _different(others) if other is not None)]
            for value in known:
                if type(value) is type(here) and value == here:
                    continue
                changed = _put(both, path, value)
                log = [*events[:number], (changed["event"], changed["info"]), *events[number + 1 :]]
                yield f"event {number + 1} with {'.'.join(map(str, path))} = {str(value)[:40]!r}", log
            if path[0] == "event":
                less = copy.deepcopy(both)
                place = _at(less, path[:-1])
                del place[path[-1]]
                log = [*events[:number], (less["event"], less["info"]), *events[number + 1 :]]
                yield f"event {number + 1} without {'.'.join(map(str, path))}", log
        for extra in ("max_concurrency", "wrote", "not_taken", "plan_id", "again", "more"):
            for value in (None, -1, 0, 2, [], ["k"], "x"):
                if extra not in event:
                    log = [*events[:number], ({**event, extra: value}, info), *events[number + 1 :]]
                    yield f"event {number + 1} with {extra} = {value!r} added", log
        for extra in ("read", "parent_seq", "parent_run_id", "shared_past_id", "provenance_id", "trace"):
            for value in (-1, "", "[1]", '["first"]', "9" * 5000, "\u00b2", "0" * 64, None):
                if extra not in info:
                    log = [*events[:number], (event, {**info, extra: value}), *events[number + 1 :]]
                    yield f"event {number + 1} with info {extra} = {str(value)[:40]!r} added", log


def _different(values: list[Any]) -> list[Any]:
    return list({repr(value): value for value in values}.values())


def spread(items: list[Any], most: int) -> list[Any]:
    """Return at most so many of the items, spread over all of them."""
    step = max(len(items) // most, 1)
    return items[:: step + (1 if step % 2 == 0 else 0)][:most]


# -- what readers make of it ---------------------------------------------------------------------------------


@attrs.define
class Absurd:
    """A log in a store of its own and in a bundle."""

    run: Recorded
    events: list[tuple[dict[str, Any], dict[str, Any]]]
    path: Path
    artifacts: dict[str, tuple[str, bytes]] = attrs.field(factory=dict)

    def stored(self) -> list[StoredEvent]:
        """Return the log as a store keeps it, under a chain that is right."""
        chain, log = ZERO_CHAIN, []
        for seq, (event, info) in enumerate(self.events, 1):
            data = b'{"event":%b,"info":%b,"seq":%d}' % (canonical.encode(event), canonical.encode(info), seq)
            chain = chain_next(chain, data)
            log.append(StoredEvent(seq, data, chain))
        return log

    def store(self) -> MemoryStore:
        """Return a store with the log and all artifacts."""
        store = MemoryStore()
        store._contents.artifacts.update(self.run.artifacts)
        store._contents.artifacts.update(self.artifacts)
        if self.events:
            store.append(self.run.run_id, 0, self.stored())
        return store

    def folds(self) -> bool:
        """Say whether `fold` accepts the log."""
        try:
            fold(codec.decode_entry(stored.seq, stored.data) for stored in self.stored())
        except LogError as exc:
            assert exc.code  # noqa: PT017 - either is right
            assert 1 <= exc.seq <= len(self.events)  # noqa: PT017
            return False
        return True

    def verifies(self) -> bool:
        """Say whether `verify` finds nothing wrong."""
        with self.store() as store:
            return verify(self.run.run_id, store=store).ok

    def imports(self) -> bool:
        """Say whether a bundle of the log is imported; of one that cannot be exported one is put together."""
        with self.store() as store, MemoryStore() as other:
            try:
                data = machine.export_run(self.run.run_id, store=store)
            except MachineError:
                data = self._bundle()
            self.path.write_bytes(data)
            try:
                machine.import_bundle(self.path, store=other)
            except BundleError:
                assert not other.list_runs().rows
                return False
            assert verify(self.run.run_id, store=other).ok
            return True

    def _bundle(self) -> bytes:
        """Return a bundle whose checksums, hashes, counts, chain and digest are right, whatever the log says."""
        first, info = self.events[0]
        artifacts = {**self.run.artifacts, **self.artifacts}
        plan = artifacts.get(str(first.get("plan_id")), (None, b"{}"))[1]
        built = artifacts.get(str(info.get("provenance_id")), (None, None))[1]
        header = bundle_line.Header(self.run.run_id, plan, built)
        log = self.stored()
        lines = [bundle_line.header_line(header)]
        said = json.dumps([*self.events, *(str(data) for _, data in artifacts.values())])
        carried = [
            Artifact(name, kind, data)
            for name, (kind, data) in artifacts.items()
            if data not in {plan, built} and name in said
        ]
        lines += map(bundle_line.artifact_line, carried)
        lanes: dict[str, bytes] = {}
        for stored, (event, about) in zip(log, self.events, strict=True):
            lines.append(bundle_line.event_line(stored.seq, canonical.encode(event), about))
            lane = str(event.get("state_id", ""))
            lanes[lane] = blake3(lanes.get(lane, bytes(32)) + canonical.encode(event)).digest()
        whole = blake3(lanes.get("", bytes(32)))
        for state_id in re.findall(r'"id":"([a-z0-9_.]+)"', plan.decode(errors="replace")):
            whole.update(lanes.get(state_id, bytes(32)))
        lines.append(
            bundle_line.end_line(
                artifacts=len(carried), chain=log[-1].chain, digest=whole.hexdigest(), events=len(log)
            )
        )
        return b"\n".join([*lines, b""])

    def replays(self) -> str:
        """Return what a replay comes to: identical, the kind of its divergence, or the code of its error."""
        with self.store() as store:
            try:
                result = replay(
                    self.run.run_id, plan=self.run.plan, store=store, transports=self.run.transports
                )
            except MachineError as exc:
                return f"error: {exc.code}"
        return "identical" if result.divergence is None else result.divergence.kind.value

    def lacks_past(self) -> bool:
        """Say whether all that is wrong is that the past of a fork is missing, which a whole run needs no more."""
        with self.store() as store:
            problems = verify(self.run.run_id, store=store).problems
        past = self.events[0][1].get("shared_past_id")
        return [problem.where for problem in problems] == [f"artifact {past}"]

    def agree(self) -> str:
        """See that all readers agree, and return what the replay came to."""
        sound = self.verifies()
        assert self.imports() == sound
        found = self.replays()
        damaged = found in {DivergenceKind.CORRUPT, "error: run_not_found"}
        other_op = found == "error: op_id_mismatch"
        assert damaged != sound or other_op or self.lacks_past(), (sound, found)
        if sound:
            assert self.folds()
        else:
            self.folds()
        return found


def sample(runs: list[Recorded], most: int) -> list[tuple[Recorded, str, list[Any]]]:
    """Return blows spread over all runs."""
    every = [(one, name, log) for one in runs for name, log in blows(one)]
    return spread(every, most)


def counted(found: list[str]) -> dict[str, int]:
    """Return how often each outcome was found."""
    return {name: len(list(group)) for name, group in itertools.groupby(sorted(found))}
