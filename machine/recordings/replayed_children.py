"""The child runs of a replayed run: which there are, and of which plans."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from machine.errors import Code, NotFoundError
from machine.events import FactRecorded, FactValue
from machine.kernel.history import History
from machine.kernel.run_index import RunRow
from machine.plan import Plan
from machine.stores.base import Store


class RecordedChild(NamedTuple):
    """A child run of a recorded run; `outcome` is what the parent recorded of it, None while it waits.

    Of a child that went on as another run, each run is one, and the outcome is that of the last.
    """

    run_id: str
    plan: Plan
    outcome: FactRecorded | None


class ReplayedChildren:
    """The child runs that the handlers of a replay ask for, which are not driven: their outcomes are recorded."""

    def __init__(self) -> None:
        self._plans: dict[str, Plan] = {}

    def know(self, key: str, plan: Plan, params: Mapping[str, Any], *, stays: bool) -> None:
        """Note the plan of the child under the key of a wait."""
        del params, stays
        self._plans[key] = plan

    async def outcome(self, key: str, run_id: str) -> Mapping[str, Any] | None:
        """Return None: a replay drives nothing."""
        del key, run_id
        return None

    def spent(self, run_id: str) -> None:
        """Return nothing: a replay reads what a child has spent."""

    async def give_up(self, run_id: str) -> None:
        """Do nothing: a replay cancels nothing."""

    def woken(self, history: History) -> frozenset[str]:
        """Return no state: a replay does what the recording did."""
        del history
        return frozenset()

    def next_ms(self, history: History) -> None:
        """Return None: a replay waits for no time."""
        del history

    async def end_given_up(self, history: History, load: Callable[[str], bytes], *, ending: bool) -> None:
        """Do nothing: a replay cancels nothing."""

    def recorded(self, history: History, store: Store) -> Iterator[RecordedChild]:
        """Yield the children of a run that was replayed, in the order they were begun.

        Where a crash has left the attempt open that waits for it, a child may not have begun, nor one that was
        given up and replaced by another. Raises `NotFoundError` for one that is missing otherwise.
        """
        waits = history.open_waits
        for child, wait in waits.every_child.items():
            key = wait.begun.key
            fact, replaced = history.facts.get(key), waits.children[key].child != child
            answered = fact is not None and isinstance(fact.outcome, FactValue) and not replaced
            optional = replaced or (not answered and wait.begun.state_id in history.open)
            if optional and not store.run_exists(child):
                continue
            last = child
            while (following := _row_of(store, history, last).next_run_id) is not None:
                yield RecordedChild(last, self._plans[key], None)
                last = following
            yield RecordedChild(last, self._plans[key], fact if answered else None)


def _row_of(store: Store, history: History, child: str) -> RunRow:
    if store.run_exists(child):
        return store.run_row(child)
    raise NotFoundError(
        f"run {history.run_id} has the child run {child}, which is not in {store.url}",
        code=Code.RUN_NOT_FOUND,
        details={"run_id": history.run_id, "child": child},
        hint="a bundle holds one run: import those of its children and its own into one store, and "
        "replay it there",
    )
