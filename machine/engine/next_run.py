"""The run that continues a run which has completed: begun in the transaction that ends that one.

Its id follows from the time of that end and from the run that it continues, so it is in the log of that run before
anybody can find it. Whoever ended the run holds the lease on it already and drives it on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from machine import canonical, codec
from machine.config import RunManifest
from machine.engine import run_reader
from machine.engine.children import CHILD_ANSWERED, PARENT, PARENT_KEY
from machine.engine.fork_prefix import FACTS_FROM_ID
from machine.engine.log import LiveLog
from machine.engine.moved_runs import IMPORTED
from machine.engine.new_run import opening_of
from machine.engine.provenance import provenance
from machine.engine.run_keeper import Keeper
from machine.engine.sleep_timers import TIMER
from machine.envelope import chain_next, seal
from machine.events import ArtifactKind, Entry, RunCompleted, RunStarted
from machine.io.attempt_scope import Payloads
from machine.io.child_runs import child_id
from machine.kernel.segments import FIRST_RUN, NEXT_RUN, PREVIOUS_RUN, SEGMENT, segment_of
from machine.kernel.snapshot import Snapshot
from machine.kernel.wait_answers import ANSWER, CHILD_ENDED
from machine.labels import labels_kept
from machine.plan import Graph
from machine.stores.base import ZERO_CHAIN, Beginning, Message, Store, StoredEvent

_STAY: Final = frozenset({ANSWER, CHILD_ENDED, CHILD_ANSWERED, IMPORTED, TIMER})
"""The kinds of messages that concern what one run waits for, and so are none of the next run's."""

_KEY: Final = "@next_run"
"""The place of a wait's key in the id of a next run: no caller may give such a key."""

_OF_CHILD: Final = (PARENT, PARENT_KEY)


@attrs.define
class NextRun:
    """The run that may continue the one with this id, under its configuration and with the plan of its driver.

    `provided` is the info about transports and catalogue, `keeper` the lease on that run once it has begun.
    """

    store: Store
    run_id: str
    graph: Graph
    manifest: RunManifest
    provided: Mapping[str, str]
    lease_ms: int
    keeper: Keeper | None = None

    def end(self, log: LiveLog, event: RunCompleted, payloads: Payloads | None) -> bool:
        """End the run and begin the next one, durably; return False, with nothing done, where none is begun.

        A run whose calls a recording answers, which is that of one segment, begins none.
        """
        first, _ = run_reader.first_entry(self.store, self.run_id)
        if FACTS_FROM_ID in first.info:
            return False
        now = log.event_ms()
        params = canonical.decode(log.load(event.next_input_id or ""))
        next_id = child_id(self.run_id, _KEY, now)
        keeper = Keeper(self.store, next_id, self.lease_ms)
        try:
            added = payloads or Payloads()
            begun = self._first_event(first, next_id, now, params, added)
            while True:
                messages, seen = self._messages(log)
                begins = Beginning(keeper.lease, begun, messages)
                terms = {"inbox_seen": seen, "begins": begins}
                if log.append_now(event, {NEXT_RUN: next_id}, added, now=now, **terms):
                    break
        except BaseException:
            keeper.close()
            raise
        self.keeper = keeper
        return True

    def close(self) -> None:
        """Release the lease on the next run, which nobody here drives on."""
        if self.keeper is not None:
            self.keeper.close()

    def _messages(self, log: LiveLog) -> tuple[list[Message], int]:
        """Return the messages that the next run inherits, and the number of the last one that was read."""
        inbox, waits = self.store.inbox(self.run_id), log.history.open_waits
        left = [
            message
            for message in inbox
            if message.kind not in _STAY and not waits.has_heard(message.number, message.ts_millis)
        ]
        passed_on = [attrs.evolve(message, number=number) for number, message in enumerate(left, 1)]
        return passed_on, inbox[-1].number if inbox else 0

    def _first_event(
        self,
        first: Entry,
        next_id: str,
        now: int,
        params: Mapping[str, Any],
        payloads: Payloads,
    ) -> Sequence[StoredEvent]:
        """Return the first event of the next run; what it names is added to `payloads`."""
        graph, store = self.graph, self.store
        manifest = attrs.evolve(self.manifest, op_version=graph.version, input_params=params)
        opening = opening_of(graph, manifest)
        then = run_reader.provenance_of(store, first)
        built = codec.to_json(provenance(graph, then.target if then else None))
        provenance_id = opening.payloads.add(ArtifactKind.PROVENANCE, canonical.encode(built))
        snapshot, made = Snapshot.empty(store.get).update(opening.input_writes, manifest.context_format)
        payloads.items.update(opening.payloads.items)
        payloads.items.update(made)
        most = manifest.run_config.execution_mode.max_concurrency
        body = codec.encode_event(
            RunStarted(graph.op_id, opening.manifest_id, graph.plan_id, snapshot.id, most)
        )
        chain, number = segment_of(first.info) or (self.run_id, 1)
        place = {PREVIOUS_RUN: self.run_id, FIRST_RUN: chain, SEGMENT: str(number + 1)}
        parent = {name: first.info[name] for name in _OF_CHILD if name in first.info}
        said = {"provenance_id": provenance_id, **self.provided, **labels_kept(first.info)}
        data = seal(1, body, next_id, now, {**said, **place, **parent})
        return [StoredEvent(1, data, chain_next(ZERO_CHAIN, data))]
