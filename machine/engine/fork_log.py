"""The logs of runs that are given facts of another: forks, and runs whose calls a recording answers.

The log of a fork first copies or repeats its shared past, and then continues live.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from machine.config import IoMode
from machine.engine import run_reader
from machine.engine.driver_protocols import Outside
from machine.engine.fork_prefix import FACTS_FROM_ID, SharedPast, shared_past_id
from machine.engine.log import LiveLog
from machine.engine.recorded_answers import RecordedAnswers, no_answers, recorded_past
from machine.events import Entry
from machine.io.apply_io import ApplyIo
from machine.io.attempt_scope import AttemptScope, Payloads
from machine.io.dry_io import DryIo
from machine.io.fork_io import SharedIo
from machine.io.live_io import LiveIo
from machine.io.provider import IoProvider
from machine.io.recorded_answers_io import RecordedAnswersIo
from machine.kernel.decisions import EnterState
from machine.plan import Graph, earlier_graph
from machine.secrets.both_formats import RunSecrets
from machine.stores.base import Store


def past_of(store: Store, run_id: str) -> SharedPast | None:
    """Return the facts of another run that a run was given at its beginning, or None when it was given none."""
    first, started = run_reader.first_entry(store, run_id)
    artifact_id = shared_past_id(first)
    if artifact_id is None:
        return None
    past: SharedPast
    if FACTS_FROM_ID in first.info:
        mode = run_reader.manifest_of(store, started).run_config.io_mode
        past = recorded_past(first, store.get(artifact_id), store.get, shut=mode is IoMode.REPLAY)
    else:
        past = SharedPast.from_bytes(store.get(artifact_id), store.get)
    for entry, _ in run_reader.entries(store, run_id):
        past.note(entry.event)
    return past


def log_and_io(
    past: SharedPast | None, graph: Graph, store: Store, run_id: str, *, dry: bool = False, **options: Any
) -> tuple[LiveLog, Callable[[AttemptScope], IoProvider]]:
    """Return the log of a live run, and what makes the `io` of its handlers; `past` are the facts it was given.

    In a dry run, `dry`, those are the outcomes of effects.
    """
    if past is None:
        return LiveLog(store, run_id, **options), LiveIo if not dry else functools.partial(
            DryIo, past=no_answers(store)
        )
    if dry:
        return _GivenLog(past, store, run_id, **options), functools.partial(DryIo, past=past)
    if not isinstance(past, RecordedAnswers):
        return ForkLog(past, graph, store, run_id, **options), functools.partial(SharedIo, past=past)
    secrets = options.get("secrets")
    if isinstance(secrets, RunSecrets):
        secrets.shows = past.shut
    made = ApplyIo if past.shows else RecordedAnswersIo
    return _GivenLog(past, store, run_id, **options), functools.partial(made, past=past)


class _GivenLog(LiveLog):
    """A live log that notes its events in the facts that the run was given, which follow its attempts."""

    def __init__(self, past: SharedPast, store: Store, run_id: str, **options: Any) -> None:
        super().__init__(store, run_id, **options)
        self._past = past

    def _note(self, entry: Entry, *, notify: bool = True) -> None:
        super()._note(entry, notify=notify)
        self._past.note(entry.event)


class ForkLog(_GivenLog):
    """A live log that copies the shared past of a fork. `graph` is the plan of the run after that past."""

    def __init__(self, past: SharedPast, graph: Graph, store: Store, run_id: str, **options: Any) -> None:
        super().__init__(past, store, run_id, **options)
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

    def copy(self, entries: Sequence[Entry], payloads: Payloads | None = None) -> None:
        """Queue events of the shared past, and record their seqs."""
        first = self.history.head_seq + 1
        super().copy(entries, payloads)
        self._past.copied.update({first + at: entry.seq for at, entry in enumerate(entries)})
