"""The log of a fork: it first copies or repeats its shared past, and then continues live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from machine.engine import run_reader
from machine.engine.driver_protocols import Outside
from machine.engine.fork_prefix import SharedPast, shared_past_id
from machine.engine.log import Draft, LiveLog
from machine.events import Entry
from machine.io.attempt_scope import Payloads
from machine.kernel.decisions import EnterState
from machine.plan import Graph, earlier_graph
from machine.stores.base import Store


def past_of(store: Store, run_id: str) -> SharedPast | None:
    """Return the shared past that a run was given when it was forked, or None when nothing of it remains."""
    first, _ = run_reader.first_entry(store, run_id)
    artifact_id = shared_past_id(first)
    if artifact_id is None:
        return None
    past = SharedPast.from_bytes(store.get(artifact_id), store.get)
    for entry, _ in run_reader.entries(store, run_id):
        past.note(entry.event)
    return past


class ForkLog(LiveLog):
    """A live log that copies the shared past of a fork. `graph` is the plan of the run after that past."""

    def __init__(self, past: SharedPast, graph: Graph, store: Store, run_id: str, **options: Any) -> None:
        super().__init__(store, run_id, **options)
        self._past = past
        self._graphs = {graph.plan_id: graph}
        self._graph = graph

    def outside(self, graph: Graph) -> Outside:
        """Return the plan under which the next state of the shared past ran, or the plan of the fork after it."""
        said = super().outside(graph)
        plan_id = self._past.plan_now(self.history) or self._graph.plan_id
        if plan_id not in self._graphs:
            self._graphs[plan_id] = earlier_graph(self._graph, self.load(plan_id))
        return said._replace(graph=self._graphs[plan_id])

    def carry(self, decision: EnterState) -> bool:
        """Copy the entries of a state whose inputs are unchanged, and say whether there was one."""
        entries = self._past.carried(decision, self.history)
        if entries is None:
            return False
        self.copy(entries)
        return True

    def _put(self, drafts: Sequence[Draft], payloads: Payloads | None, *, notify: bool = True) -> None:
        super()._put(drafts, payloads, notify=notify)
        for event, _, _ in drafts:
            self._past.note(event)

    def copy(self, entries: Sequence[Entry], payloads: Payloads | None = None) -> None:
        """Queue events of the shared past, and record their seqs."""
        first = self.history.head_seq + 1
        super().copy(entries, payloads)
        self._past.copied.update({first + at: entry.seq for at, entry in enumerate(entries)})
