"""The child runs of a run: whether they can go on, driving them as a part of it, and ending them with it.

A child is an ordinary run of the same store. Whether it can go on is asked of the store alone, so it makes no
difference who drives it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final, NoReturn, Protocol

import anyio
import attrs

from machine import canonical, codec
from machine.engine import run_reader
from machine.engine.cancel_reason import CANCEL
from machine.engine.stop_signal import Control
from machine.errors import Code, ConcurrencyError, ErrorInfo, NotFoundError, RunError
from machine.events import INBOX_SEEN, Entry, RunSuspended
from machine.kernel.history import History
from machine.kernel.run_status import FINAL_STATUSES, RunStatus
from machine.kernel.state_history import StateStatus
from machine.kernel.wait_answers import CHILD_ENDED
from machine.plan import Plan
from machine.stores.base import Store

PARENT: Final = "parent"
"""Name in the info of a run's first event for the run that began it as a child."""

CHILD_ANSWERED: Final = "child_answered"
"""The kind of message that says that a child run, or one below it, was answered."""

PARENT_KEY: Final = "parent_key"
"""Name next to it for the key of the wait for the child."""


@attrs.frozen
class ChildRun:
    """A child run to be driven: from its beginning if the store does not have it yet.

    One that `stays` may outlive its parent, so it records where its own plan is.
    """

    run_id: str
    key: str
    plan: Plan
    params: Mapping[str, Any]
    stays: bool


class Outcome(Protocol):
    """The result of driving a run; `RunResult` is one."""

    @property
    def run_id(self) -> str:
        """The id of the run."""
        ...

    @property
    def status(self) -> str:
        """Its status, which may be suspended."""
        ...

    @property
    def digest(self) -> str:
        """Its digest."""
        ...

    @property
    def context(self) -> Mapping[str, Any]:
        """Its final context."""
        ...

    @property
    def error(self) -> ErrorInfo | None:
        """Why it failed, None when it did not."""
        ...


DriveChild = Callable[[ChildRun], Awaitable[Outcome]]
"""Function that drives a child until it ends or waits."""

EndChild = Callable[[Store, str], Awaitable[object]]
"""Function that ends a run which nobody drives as cancelled."""


class ChildRuns:
    """The children of one run that is being driven by this process."""

    def __init__(self, store: Store, run_id: str, control: Control, drive: DriveChild, end: EndChild) -> None:
        self._store = store
        self._run_id = run_id
        self._control = control
        self._drive = drive
        self._end = end
        self._asked: dict[str, tuple[Plan, Mapping[str, Any], bool]] = {}
        self._heard: dict[str, int] = {}
        """The number of the last message that a run was driven with, by the id of that run."""

    def know(self, key: str, plan: Plan, params: Mapping[str, Any], *, stays: bool) -> None:
        """Note the plan and the input of the child under the key of a wait; `stays`: it may outlive its parent."""
        self._asked[key] = plan, params, stays

    async def outcome(self, key: str, run_id: str) -> Mapping[str, Any] | None:
        """Drive a child, and return its outcome; None when it waits, or another process drives it."""
        plan, params, stays = self._asked[key]
        tree = _tree(self._store, self._store.last_segment(run_id))
        heard = {each: _last_message(self._store, each) for each in tree}
        try:
            result = await _apart(self._drive(ChildRun(run_id, key, plan, params, stays)))
        except ConcurrencyError as exc:
            if exc.code != Code.RUN_LEASED:
                await self._stop(exc)
            return None
        except Exception as exc:  # noqa: BLE001 - the child is not at fault: it can be driven on later
            await self._stop(exc)
        if result.status not in FINAL_STATUSES:
            self._heard.update(heard)
            return None
        return outcome_of(result)

    async def _stop(self, reason: BaseException) -> NoReturn:
        """Stop driving the run, because its child cannot be driven: the caller gets the reason."""
        self._control.stop(reason)
        await anyio.sleep_forever()
        raise reason

    def spent(self, run_id: str) -> str | None:
        """Return what a child that has ended has spent, as the info of a fact says it; None for nothing."""
        history, _ = run_reader.folded(self._store, run_id)
        return history.usage.spent

    async def give_up(self, run_id: str) -> None:
        """Cancel a child, durably, unless it has ended or belongs to another run."""
        await end_child(self._store, run_id, self._run_id, self._end)

    async def end_given_up(self, history: History, load: Callable[[str], bytes], *, ending: bool) -> None:
        """Cancel the children that nobody waits for any more; of a run that is `ending`, all of them."""
        await end_children(self._store, history, load, self._end, ending=ending)

    def woken(self, history: History) -> frozenset[str]:
        """Return the suspended states whose child can go on, or has ended."""
        return frozenset(
            wait.begun.state_id
            for wait in history.open_waits.by_key.values()
            if wait.child is not None
            and history.states[wait.begun.state_id].status is StateStatus.SUSPENDED
            and self.can_move(wait.child)
        )

    def next_ms(self, history: History) -> int | None:
        """Return the earliest time at which a child that is waited for can go on by itself, None without one."""
        open_waits = history.open_waits.by_key.values()
        children = [self._store.last_segment(wait.child) for wait in open_waits if wait.child is not None]
        rows = [self._store.run_row(child) for child in children if self._store.run_exists(child)]
        return min((row.wake_ms for row in rows if row.wake_ms is not None), default=None)

    def can_move(self, run_id: str) -> bool:
        """Say whether it would change anything to drive a run; one that went on, its last segment."""
        store = self._store
        run_id = store.last_segment(run_id)
        if not store.run_exists(run_id):
            return True
        if store.lease_of(run_id) is not None:
            return False
        if store.run_row(run_id).status != RunStatus.SUSPENDED:
            return True
        last = _last_entry(store, run_id)
        if not isinstance(last.event, RunSuspended):  # it was answered since
            return True
        seen = str(last.info.get(INBOX_SEEN, "0"))
        after = max(int(seen) if seen.isdigit() else 0, self._heard.get(run_id, 0))
        if store.inbox(run_id, after):
            return True
        due = [
            wait_due for wait in last.event.waits if (wait_due := getattr(wait, "due_ms", None)) is not None
        ]
        if due and min(due) <= store.clock():
            return True
        return any(self.can_move(child) for child in children_of(store, run_id))


async def _apart(driven: Awaitable[Outcome]) -> Outcome:
    """Await a run in a task of its own, outside the context of the handler that asks for it.

    A cancellation reaches the run, and this returns only when the run has stopped.
    """

    async def work() -> Outcome:
        return await driven

    task = asyncio.get_running_loop().create_task(work(), context=contextvars.Context())
    try:
        await asyncio.wait({task})
    finally:
        if not task.done():
            task.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait({task})
    if task.cancelled():
        raise RunError(
            "a handler of a child run cancelled the task that drives it",
            code=Code.ATTEMPT_INTERRUPTED,
            hint="nothing durable is lost; have handlers cancel only tasks they have begun, and resume",
        )
    return task.result()


def outcome_of(result: Outcome) -> dict[str, Any]:
    """Return the outcome of a child run that has ended, as the answer to the wait for it."""
    outcome: dict[str, Any] = {
        "run_id": result.run_id,
        "status": result.status,
        "digest": result.digest,
        "context": dict(result.context),
    }
    if result.error is not None:
        outcome["error"] = codec.to_json(result.error)
    return outcome


def parent_run_of(entry: Entry) -> tuple[str, str] | None:
    """Return the run that a run is a child of, with the key of the wait, given its first entry; else None."""
    parent, key = entry.info.get(PARENT), entry.info.get(PARENT_KEY)
    return (parent, key) if isinstance(parent, str) and isinstance(key, str) else None


def root_of(store: Store, run_id: str, *, unfinished: bool = True) -> str:
    """Return the topmost run that a run is below as a child, or the run itself.

    With `unfinished` it is the one to drive so that the run goes on: no run that has ended is passed.
    """
    seen = {run_id}
    while True:
        found = parent_run_of(run_reader.first_entry(store, run_id)[0])
        if found is None or found[0] in seen or not store.run_exists(found[0]):
            return run_id
        if unfinished and store.run_row(found[0]).status in FINAL_STATUSES:
            return run_id
        run_id = found[0]
        seen.add(run_id)


def children_of(store: Store, run_id: str) -> list[str]:
    """Return the child runs that a run waits for, of those that went on the last segments."""
    history, _ = run_reader.folded(store, run_id)
    waits = history.open_waits.by_key.values()
    return [store.last_segment(wait.child) for wait in waits if wait.child is not None]


def _tree(store: Store, run_id: str) -> Iterator[str]:
    """Yield a run that exists, and the runs below it that it waits for."""
    if store.run_exists(run_id):
        yield run_id
        for child in children_of(store, run_id):
            yield from _tree(store, child)


def _last_message(store: Store, run_id: str) -> int:
    return max((message.number for message in store.inbox(run_id)), default=0)


def _last_entry(store: Store, run_id: str) -> Entry:
    seq = store.head_seq(run_id)
    (stored,) = store.read_range(run_id, seq, seq)
    return codec.decode_entry(stored.seq, stored.data)


def wake_parents(store: Store, run_id: str) -> None:
    """Make the runs due that a run is below as a child, because it was answered and they drive it."""
    top = root_of(store, run_id)
    while run_id != top:
        found = parent_run_of(run_reader.first_entry(store, run_id)[0])
        assert found is not None
        store.post(found[0], CHILD_ANSWERED, {"key": found[1], "run_id": run_id})
        run_id = found[0]


def tell_parent(store: Store, run_id: str) -> None:
    """Post to the parent of a run that has ended that it has, unless the parent has ended too."""
    found = parent_run_of(run_reader.first_entry(store, run_id)[0])
    if found is None:
        return
    parent, key = found
    try:
        if store.run_row(parent).status not in FINAL_STATUSES:
            store.post(parent, CHILD_ENDED, {"key": key, "run_id": run_id})
    except NotFoundError:  # it was imported without its parent
        return


async def end_children(
    store: Store, history: History, load: Callable[[str], bytes], end: EndChild, *, ending: bool = True
) -> None:
    """Cancel the children that a run does not wait for any more, or if it is `ending`, all but those it leaves.

    A child whose wait was given up in an attempt that is open is not yet one of them: what interrupts the attempt
    may be what interrupted the call, and the next attempt then waits for the same child.
    """
    for key, wait in [*history.open_waits.children.items()]:
        begun, fact = wait.begun, history.facts.get(key)
        if key in history.open_waits.by_key:
            over = ending
        elif fact is not None and fact.outcome.final:
            over = False  # it has ended itself, or was cancelled when its time was over
        else:
            over = ending or begun.state_id not in history.open
        if not over or wait.child is None:
            continue
        if (
            canonical.decode_stored(begun.request_digest, load(begun.request_digest))["on_parent_end"]
            != "leave"
        ):
            await end_child(store, wait.child, history.run_id or "", end)


async def end_child(store: Store, run_id: str, parent: str, end: EndChild) -> None:
    """Ask a child to end cancelled, and end it here if nobody drives it; a child of another run is left alone."""
    run_id = store.last_segment(run_id)
    if not store.run_exists(run_id) or store.run_row(run_id).status in FINAL_STATUSES:
        return
    found = parent_run_of(run_reader.first_entry(store, run_id)[0])
    if found is None or found[0] != parent:
        return
    store.post(run_id, CANCEL, {})
    try:
        if store.lease_of(run_id) is None:
            await end(store, run_id)
    except ConcurrencyError as exc:
        if exc.code != Code.RUN_LEASED:  # its driver obeys the message
            raise
