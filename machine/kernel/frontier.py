"""The frontier of a run with concurrent states: the states that may begin, their contexts, and conflicts.

A state's base is the merge of what its ancestors in the plan wrote. It is computed from the plan and the log alone,
so it cannot depend on the order in which states ended. The module is pure: missing data is requested through
`load`.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right, insort
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import Any, Final

from machine import canonical
from machine.errors import Code, CodecError, ErrorCategory, ErrorInfo
from machine.events import Artifact
from machine.kernel.ancestors import Ancestors, UpTo
from machine.kernel.history import History
from machine.kernel.snapshot import Load, Snapshot
from machine.kernel.snapshot_value import Value
from machine.kernel.state_history import StateHistory, StateStatus
from machine.plan import Graph

_MOST_KEPT_BYTES: Final = 32 * 1024 * 1024
"""The number of bytes of larger values held in memory."""


class Conflict(Exception):  # noqa: N818 - what it carries is the error
    """Two states with no order between them wrote different values to one key."""

    def __init__(self, error: ErrorInfo) -> None:
        super().__init__(error.message)
        self.error = error


class _Users:
    """Index from a context key to its users: one state, or several by their chains, in the order of each."""

    __slots__ = ("_first", "_order", "_several")

    def __init__(self, order: Ancestors) -> None:
        self._order = order
        self._first: dict[str, int] = {}
        self._several: dict[str, dict[int, list[int]]] = {}

    def add(self, key: str, place: int) -> None:
        """Record that a state used a key."""
        first = self._first.setdefault(key, place)
        if first == place:
            return
        chains = self._several.get(key)
        if chains is None:
            chains = self._several[key] = {self._order.chain[first]: [first]}
        # at the end, unless the run goes on with another plan
        insort(chains.setdefault(self._order.chain[place], []), place)

    def unordered(self, key: str, place: int) -> int | None:
        """Return the first user of a key that is neither the state at `place` nor one of its ancestors, or None."""
        found = None
        for chain, users in self._of(key):
            last = self._order.last(place, chain)
            if users[-1] > last:
                user = users[bisect_right(users, last)]
                found = user if found is None else min(found, user)
        return found

    def last_in(self, key: str, up_to: UpTo) -> list[int]:
        """Return, of each chain, the last user of a key in a set of states."""
        found = ((users, bisect_right(users, up_to.last(chain))) for chain, users in self._of(key))
        return [users[count - 1] for users, count in found if count]

    def _of(self, key: str) -> Iterable[tuple[int, Sequence[int]]]:
        several = self._several.get(key)
        if several is not None:
            return several.items()
        first = self._first.get(key)
        return () if first is None else ((self._order.chain[first], (first,)),)


class Frontier:
    """The order of a plan's states and their contexts, as far as a history determines them.

    A state is given by its place in the order of the plan.
    """

    def __init__(self, graph: Graph, load: Load) -> None:
        self._graph = graph
        self._load = load
        self._place = {state_id: place for place, state_id in enumerate(graph.order)}
        self._unsettled = [len(graph.parents[state_id]) for state_id in graph.order]
        self._order = Ancestors(
            [self._place[parent] for parent in graph.parents[state_id]] for state_id in graph.order
        )
        self._fresh = [place for place, count in enumerate(self._unsettled[: len(graph.work)]) if not count]
        self._ready = [graph.order[place] for place in self._fresh]
        self._seen = 0
        self._initial: str | None = None
        self._snapshots: dict[str, Snapshot] = {}
        self._after: dict[int, str | None] = {}
        self._bases: dict[int, Snapshot] = {}
        self._needed = [len(graph.children[state_id]) for state_id in graph.order]
        self._made: dict[str, Artifact] = {}
        self._writes: dict[int, dict[str, Value | None]] = {}
        self._wrote: dict[int, list[int]] = {}  # the states that wrote, by their chains
        self._writers = _Users(self._order)
        self._readers = _Users(self._order)
        self._kept_bytes = 0
        self._lacking: tuple[int, int, str] | None = None
        self._clashing: int | None = None
        self.last: Snapshot | None = None
        """The merged writes of all states, once computed."""
        self.error: ErrorInfo | None = None
        """The reason why the run cannot complete: states wrote different values to one key, or an edge is
        missing."""

    def know(self, snapshot: Snapshot) -> None:
        """Add a snapshot that is in memory, so that it need not be loaded."""
        self._snapshots[snapshot.id] = snapshot

    def follow(self, history: History) -> None:
        """Take in the states that have settled since the last call."""
        if self._initial is None and history.started is not None:
            self._initial = history.started.initial_snapshot_id
        for state_id in history.settled[self._seen :]:
            self._settle(state_id, history.states[state_id])
        self._seen = len(history.settled)

    def fresh(self, history: History, busy: Container[str] = ()) -> str | None:
        """Return the first state, in plan order, that may begin and has not begun before, or None."""
        while self._fresh:
            state_id = self._graph.order[self._fresh[0]]
            if state_id not in history.states and state_id not in busy:
                return state_id
            heapq.heappop(self._fresh)
        return None

    def clash(self, state_id: str, error: ErrorInfo) -> None:
        """Record that a state has no context to begin on; the first such state in plan order is reported."""
        place = self._place[state_id]
        if self._clashing is None or place < self._clashing:
            self._clashing, self.error = place, error

    def take_ready(self) -> list[str]:
        """Return the states that may begin now and could not at the last call."""
        ready, self._ready = self._ready, []
        return ready

    def may_begin(self, state_id: str | None) -> bool:
        """Say whether all predecessors of a state have settled."""
        place = self._place.get(state_id or "")
        return place is not None and not self._unsettled[place]

    def followed(self, state_id: str, among: Collection[str]) -> list[str]:
        """Return those of the given states that a state follows, in plan order."""
        place = self._place[state_id]
        places = sorted(self._place[other] for other in among if other in self._place)
        return [self._graph.order[other] for other in places if self._order.follows(place, other)]

    def base(self, state_id: str) -> Snapshot:
        """Return the merged writes of a state's ancestors. Raises `Conflict`."""
        place = self._place[state_id]
        base = self._bases.get(place)
        if base is None:
            base = self._bases[place] = self._merged(self._graph.parents[state_id])
        return base

    def final(self) -> Snapshot:
        """Return the merged writes of all settled states. Raises `Conflict`."""
        self.last = self._merged(self._ends())
        return self.last

    def _ends(self) -> list[str]:
        """Return the settled states that no settled state follows, in plan order."""
        return [
            state_id
            for place, state_id in enumerate(self._graph.order)
            if place in self._after
            and not any(self._place[child] in self._after for child in self._graph.children[state_id])
        ]

    def left(self) -> Snapshot:
        """Return the merged writes of all settled states; of two that conflict, the later in the plan counts."""
        return self._merged(self._ends(), conflicts=False)

    def take_made(self) -> dict[str, Artifact]:
        """Return the nodes of merged snapshots that were made since the last call, by id."""
        made, self._made = self._made, {}
        return made

    def missing_edge(self, state_id: str, state: StateHistory) -> ErrorInfo | None:
        """Return the missing edge if a state read a key that a state it does not follow wrote, otherwise None."""
        place = self._place[state_id]
        for key in _keys(state.read):
            writer = self._writers.unordered(key, place)
            if writer is not None:
                return self._no_edge(place, writer, key)
        return None

    def _settle(self, state_id: str, state: StateHistory) -> None:
        place = self._place.get(state_id)
        if place is None:  # skipped under another plan
            return
        if state.status is StateStatus.COMPLETED:
            self._after[place] = state.snapshot_id
            self._note(place, state)
            self._bases.pop(place, None)
        else:
            self._after[place] = None
        for parent in self._graph.parents[state_id]:
            above = self._place[parent]
            self._needed[above] -= 1
            if not self._needed[above]:  # no remaining state will read what it wrote
                self._snapshots.pop(self._after.get(above) or "", None)
                self._bases.pop(above, None)
        for child in self._graph.children[state_id]:
            below = self._place[child]
            self._unsettled[below] -= 1
            if not self._unsettled[below]:
                heapq.heappush(self._fresh, below)
                self._ready.append(child)

    def _note(self, place: int, state: StateHistory) -> None:
        """Record what a state wrote and read, and any edge that is missing between it and another state."""
        keys = _keys(state.read)
        for key in keys:
            writer = self._writers.unordered(key, place)
            if writer is not None:
                self._lacks(place, writer, key)
        if state.wrote:
            after = self._snapshot(state.snapshot_id or "")
            held = {key: after.value(key) for key in state.wrote}
            self._writes[place] = {key: self._kept(value) for key, value in held.items()}
            insort(self._wrote.setdefault(self._order.chain[place], []), place)
        for key in state.wrote:
            reader = self._readers.unordered(key, place)
            if reader is not None:
                self._lacks(reader, place, key)
            self._writers.add(key, place)
        for key in keys:
            self._readers.add(key, place)

    def _kept(self, value: Value | None) -> Value | None:
        """Return a value, or only its id when the memory limit is reached: it can be loaded again."""
        if value is None or value.ref is None or value.data is None:
            return value
        self._kept_bytes += len(value.data)
        return value if self._kept_bytes <= _MOST_KEPT_BYTES else value.unloaded()

    def _lacks(self, reader: int, writer: int, key: str) -> None:
        """Record a missing edge. The first one in plan order is reported, not the first one found."""
        lacking = (reader, writer, key)
        if self._lacking is None or lacking < self._lacking:
            self._lacking = lacking
            if self._clashing is None:
                self.error = self._no_edge(reader, writer, key)

    def _merged(self, parents: Sequence[str], *, conflicts: bool = True) -> Snapshot:
        """Return the context after some states and all their ancestors.

        Raises `Conflict`, unless `conflicts` is false.
        """
        if not parents:
            return self._snapshot(self._initial or "")
        places = [self._place[state_id] for state_id in parents]
        if len(places) == 1:
            return self._out(places[0], conflicts=conflicts)
        most = max(places, key=self._order.count)
        start = self._out(most, conflicts=conflicts)
        up_to = self._order.up_to(tuple(places))
        keys = dict.fromkeys(key for other in self._beside(most, up_to) for key in self._writes[other])
        changes = {key: self._agreed(key, up_to, conflicts=conflicts) for key in keys}
        merged, nodes = start.changed(changes)
        self._made.update(nodes)
        return merged

    def _beside(self, most: int, up_to: UpTo) -> list[int]:
        """Return the states in a set that wrote, but for one of them and its ancestors, in plan order."""
        found: list[int] = []
        for chain, last in up_to.items():
            before = self._order.last(most, chain)
            if before < last and (wrote := self._wrote.get(chain)):
                found += wrote[bisect_right(wrote, before) : bisect_right(wrote, last)]
        return sorted(found)

    def _out(self, place: int, *, conflicts: bool) -> Snapshot:
        """Return the context after a state that has settled."""
        snapshot_id, state_id = self._after[place], self._graph.order[place]
        if snapshot_id is not None:
            return self._snapshot(snapshot_id)
        return (
            self.base(state_id) if conflicts else self._merged(self._graph.parents[state_id], conflicts=False)
        )

    def _agreed(self, key: str, up_to: UpTo, *, conflicts: bool) -> Value | None:
        """Return the value of a key that the last writers in a set of states agree on, else raise `Conflict`.

        Unless `conflicts`, it is that of the last of them in the plan.
        """
        last, *others = self._order.latest(self._writers.last_in(key, up_to))
        if not conflicts:
            return self._writes[max(last, *others, last)][key]
        value = self._writes[last][key]
        for before in others:
            other = self._writes[before][key]
            if not (value is other or (value is not None and value.equals(other))):
                raise Conflict(self._conflict(key, before, last))
            last = before
        return value

    def _snapshot(self, snapshot_id: str) -> Snapshot:
        snapshot = self._snapshots.get(snapshot_id)
        if snapshot is None:
            snapshot = self._snapshots[snapshot_id] = Snapshot.open(snapshot_id, self._load)
        return snapshot

    def _conflict(self, key: str, one: int, other: int) -> ErrorInfo:
        a, b = self._graph.order[one], self._graph.order[other]
        return _error(
            f"{a} and {b} wrote different values to {key!r}, and neither follows the other",
            "let one follow the other, or write to two keys and join them in a state that follows both",
            Code.CONTEXT_CONFLICT,
            {"key": key, "states": [a, b]},
        )

    def _no_edge(self, reader: int, writer: int, key: str) -> ErrorInfo:
        later, earlier = self._graph.order[reader], self._graph.order[writer]
        return _error(
            f"{later} reads {key!r}, which {earlier} writes, and does not follow it",
            f"declare {later} with after=[{earlier!r}]",
            Code.CONTEXT_EDGE_MISSING,
            {"key": key, "reader": later, "writer": earlier},
        )


def _error(message: str, hint: str, code: Code, details: Mapping[str, Any]) -> ErrorInfo:
    return ErrorInfo(
        code=code,
        category=ErrorCategory.CONTEXT,
        retryable=False,
        message=f"{message} ({hint})",
        details=details,
    )


def _keys(read: object) -> list[str]:
    """Return the recorded read keys; one that cannot be parsed counts as empty: it is only informational."""
    try:
        keys = canonical.decode(read.encode()) if isinstance(read, str) else []
    except CodecError:
        return []
    return keys if isinstance(keys, list) and all(isinstance(key, str) for key in keys) else []
