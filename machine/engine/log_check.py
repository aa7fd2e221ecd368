"""The rules that a run's log must keep, for everything that reads one: `verify`, import, export and others.

`fold` checks the rules that need nothing but the log. Here are those that also need what the log refers to: its
manifest, its plan, and the contexts that its states began on. No user code runs, and nothing is written.
"""

from __future__ import annotations

import contextlib
from typing import Final, TypeVar

from machine import canonical, codec
from machine.config import FORMATS, BuildProvenance, RunManifest
from machine.engine.fork_prefix import SharedPast, shared_past_id
from machine.errors import Code, CodecError, CorruptionError, LogError, NotFoundError, OtherStoreError
from machine.events import (
    ArtifactKind,
    CleanupBegun,
    Entry,
    RunCompleted,
    RunResumed,
    RunStarted,
    StateCompleted,
    StateEntered,
    StateFailed,
    StateSkipped,
)
from machine.kernel.frontier import Conflict, Frontier
from machine.kernel.history import History
from machine.kernel.log_rules import out_of_cleanup
from machine.kernel.outputs import pieces_of
from machine.kernel.snapshot import Load, Snapshot
from machine.kernel.value_chunks import CHUNKED_ABOVE, joined
from machine.plan import Graph, recorded_graph


class Joins:
    """Checks of the contexts that a plan prescribes for its states. It runs nothing."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._frontier: Frontier | None = None
        self._plan_id: str | None = None

    def check(self, history: History, entry: Entry) -> None:
        """Check an entry before it is folded.

        Raises `LogError` where its snapshot is not the one that states wrote.
        """
        event = entry.event
        if history.max_concurrency is None or history.cleanup is not None:
            return
        try:
            if isinstance(event, CleanupBegun):
                if self.frontier(history).left().id != event.base_snapshot_id:
                    text = "the cleanup begins on a context that the states before it did not leave"
                    raise LogError(entry.seq, text, code=Code.LOG_BASE_SNAPSHOT)
            elif isinstance(event, StateEntered):
                frontier = self.frontier(history)
                if (
                    not frontier.may_begin(event.state_id)
                    or frontier.base(event.state_id).id != event.base_snapshot_id
                ):
                    text = f"{event.state_id} begins on a context that its ancestors did not leave"
                    raise LogError(entry.seq, text, code=Code.LOG_BASE_SNAPSHOT)
            elif isinstance(event, RunCompleted):
                final = event.final_snapshot_id
                if final is not None and self.frontier(history).final().id != final:
                    text = "the run ends on a context that its states did not leave"
                    raise LogError(entry.seq, text, code=Code.LOG_END_SNAPSHOT)
        except Conflict as exc:
            raise LogError(entry.seq, str(exc), code=Code.LOG_BASE_SNAPSHOT) from None

    def frontier(self, history: History) -> Frontier:
        """Return the states that may begin after what was folded, and their contexts."""
        if self._frontier is None or self._plan_id != history.plan_id:
            self._plan_id = history.plan_id
            self._frontier = Frontier(recorded_graph(self._load(history.plan_id or "")), self._load)
        self._frontier.follow(history)
        return self._frontier


T = TypeVar("T")

_BEGINS: Final = (StateEntered, StateSkipped)
_ENDS: Final = (StateCompleted, StateFailed)

_JSON: Final = frozenset(
    {
        ArtifactKind.FACT_REQUEST,
        ArtifactKind.FACT_PAYLOAD,
        ArtifactKind.CONTEXT_VALUE,
        ArtifactKind.CONTEXT_CHUNKS,
        ArtifactKind.NEXT_INPUT,
    }
)
"""The kinds of artifacts that hold one arbitrary JSON value, or stand for one."""


class LogCheck:
    """The rules of a log, checked entry by entry; `history` is the fold so far.

    `joins` is false for a reader that compares the contexts of concurrent states itself. `plan` is the plan that
    the log is expected to have: its shape need not be read once more where the recorded one has the same bytes.
    """

    def __init__(
        self, load: Load, *, joins: bool = True, history: History | None = None, plan: Graph | None = None
    ) -> None:
        self.history = History() if history is None else history
        self.context_format: int | None = None
        """The format of the run's contexts, once its first entry was checked."""
        self._plan = plan
        self._load = load
        self._joins = Joins(load) if joins else None
        self._graph: Graph | None = None
        self._graphs: dict[str, Graph] = {}
        self._passed = 0

    def add(self, entry: Entry) -> None:
        """Check one more entry and fold it.

        Raises `LogError` where it breaks a rule, and `CorruptionError` or what `load` raises for a needed artifact
        that is missing or does not match its id.
        """
        event = entry.event
        if isinstance(event, _BEGINS) and self._graph is not None:
            if event.state_id not in self.history.states:  # otherwise its turn was checked when it began
                self._check_turn(entry.seq, event.state_id, self._graph)
        elif "read" in entry.info and isinstance(event, _ENDS):
            _check_read(entry)
        if self._joins is not None:
            self._joins.check(self.history, entry)
        self.history.advance(entry)
        if isinstance(event, RunStarted):
            self._follow(entry.seq, event.plan_id)
            self._check_opening(entry, event)
        elif isinstance(event, RunResumed) and event.plan_id is not None:
            self._follow(entry.seq, event.plan_id)

    def end(self) -> tuple[str, ...]:
        """Return the order of the states in the digest. Raises `LogError` for a log without events."""
        if self._graph is None:
            raise LogError(1, "the log has no events", code=Code.LOG_FIRST_EVENT)
        return self._graph.order

    def _follow(self, seq: int, plan_id: str) -> None:
        """Switch to another plan.

        It must contain all states that have begun, and none of them before its predecessors.
        """
        if self._graph is not None and self._graph.plan_id == plan_id:
            return
        if plan_id not in self._graphs:
            shape, plan = self._load(plan_id), self._plan
            same = plan is not None and plan.shape_bytes == shape
            self._graphs[plan_id] = plan if plan is not None and same else recorded_graph(shape)
        graph = self._graph = self._graphs[plan_id]
        self._passed = 0
        states = self.history.states
        for state_id in states:
            if state_id not in graph.parents:
                raise _no_state(seq, state_id)
        for earlier, later in graph.edges:
            if later in states and later not in graph.cleanup and not self._settled(earlier):
                raise _out_of_turn(seq, later, earlier)

    def _check_turn(self, seq: int, state_id: str, graph: Graph) -> None:
        if state_id not in graph.parents:
            raise _no_state(seq, state_id)
        if (self.history.cleanup is not None) is not (state_id in graph.cleanup):
            raise out_of_cleanup(seq, state_id)
        if self.history.cleanup is not None:
            self._check_cleanup(seq, state_id, graph)
            return
        if self.history.max_concurrency is not None:
            for parent in graph.parents[state_id]:
                if not self._settled(parent):
                    raise _out_of_turn(seq, state_id, parent)
            return
        while self._passed < len(graph.order) and self._settled(graph.order[self._passed]):
            self._passed += 1
        before = graph.order[self._passed : self._passed + 1]
        if (
            before and before[0] != state_id and not self._settled(state_id)
        ):  # otherwise `fold` reports the error
            raise _out_of_turn(seq, state_id, before[0])

    def _check_cleanup(self, seq: int, state_id: str, graph: Graph) -> None:
        """Check that all cleanup states before one have begun or were skipped."""
        for before in graph.cleanup:
            if before == state_id:
                return
            if before not in self.history.states:
                raise _out_of_turn(seq, state_id, before)

    def _settled(self, state_id: str) -> bool:
        state = self.history.states.get(state_id)
        return state is not None and state.status.settled

    def _check_opening(self, entry: Entry, started: RunStarted) -> None:
        """Check what the first event names: a matching manifest, the provenance, the shared past of a fork."""
        manifest = manifest_in(started.manifest_id, self._load)
        self.context_format = manifest.context_format
        writes = {key: canonical.encode(value) for key, value in manifest.input_params.items()}
        snapshot, _ = Snapshot.empty(self._load).update(writes, manifest.context_format)
        said = manifest.op_id, snapshot.id, manifest.run_config.execution_mode.max_concurrency
        if said != (started.op_id, started.initial_snapshot_id, started.max_concurrency):
            text = "it does not say what its manifest says"
            raise LogError(entry.seq, text, code=Code.LOG_BAD_EVENT)
        built = provenance_id(entry)
        if built is not None:
            value_in(built, self._load, BuildProvenance)
        past_id = shared_past_id(entry)
        if past_id is not None:
            with contextlib.suppress(
                NotFoundError
            ):  # `verify` reports it; a run that has used it up is complete without it
                SharedPast.from_bytes(self._load(past_id), self._load)


def value_in(artifact_id: str, load: Load, kind: type[T]) -> T:
    """Return the value of an artifact. Raises `CorruptionError` when it is not of this kind."""
    try:
        return codec.from_json(canonical.decode(load(artifact_id)), kind)
    except CodecError as exc:
        raise CorruptionError(f"artifact {artifact_id}: {exc}", code=Code.ARTIFACT_CORRUPT) from exc


def manifest_in(artifact_id: str, load: Load) -> RunManifest:
    """Return the manifest of a run.

    Raises `CorruptionError` when it is invalid, and `OtherStoreError` (`run_newer_format`) when it names a format
    that this version does not know.
    """
    try:
        return value_in(artifact_id, load, RunManifest)
    except CorruptionError:
        for name, number in _formats(load(artifact_id)).items():
            if number > max(FORMATS.get(name, (0,))):
                raise OtherStoreError(
                    f"the run was recorded by a newer version of machine: its {name} is {number}",
                    code=Code.RUN_NEWER_FORMAT,
                    details={"format": name, "number": number},
                    hint="update machine",
                ) from None
        raise


def _formats(manifest: bytes) -> dict[str, int]:
    """Return the format numbers in the bytes of a manifest, which may be anything."""
    try:
        value = canonical.decode(manifest)
    except CodecError:
        return {}
    fields = value if isinstance(value, dict) else {}
    return {
        name: number for name, number in fields.items() if name.endswith("_format") and type(number) is int
    }


def _no_state(seq: int, state_id: str) -> LogError:
    text = f"it concerns state {state_id}, which the recorded plan does not have"
    return LogError(seq, text, code=Code.RECOVERY_STATE_NOT_IN_PLAN)


def _out_of_turn(seq: int, state_id: str, before: str) -> LogError:
    text = f"{state_id} comes before {before} has settled, against the recorded plan"
    return LogError(seq, text, code=Code.LOG_OUT_OF_TURN)


def _check_read(entry: Entry) -> None:
    read = entry.info["read"]
    try:
        keys = canonical.decode(read.encode())
        sound = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    except (CodecError, AttributeError):
        sound = False
    if not sound:
        text = "its list of read keys is not a JSON array of keys"
        raise LogError(entry.seq, text, code=Code.LOG_BAD_EVENT)


def check_content(artifact_id: str, kind: str, load: Load, context_format: int | None = None) -> None:
    """Raise `CorruptionError` when an artifact of a JSON kind does not hold JSON, or a value is stored otherwise.

    `context_format` is that of the run, None where it may be any. Raises what `load` raises, for every kind.
    """
    data = load(artifact_id)
    if kind == ArtifactKind.CONTEXT_CHUNKS:
        other_way = context_format == 1
        data = joined(artifact_id, load)
    elif kind == ArtifactKind.OUTPUT_PIECES:
        other_way = False
        for _ in pieces_of(artifact_id, load, in_pieces=True):
            pass
    else:
        other_way = (
            kind == ArtifactKind.CONTEXT_VALUE
            and context_format not in {None, 1}
            and len(data) > CHUNKED_ABOVE
        )
    if other_way:
        raise CorruptionError(
            f"artifact {artifact_id} is a value that context format {context_format} stores in another way",
            code=Code.ARTIFACT_CORRUPT,
        )
    if kind in _JSON:
        canonical.decode_stored(artifact_id, data)


def provenance_id(entry: Entry) -> str | None:
    """Return the id of the provenance in a run's first entry, or None when there is none."""
    found = entry.info.get("provenance_id")
    return found if isinstance(found, str) else None
