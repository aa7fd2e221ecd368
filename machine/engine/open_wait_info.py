"""A list of what runs wait for: approvals, signals, times, child runs, and outcomes of effects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import attrs

from machine.default_store import DEFAULT_STORE, with_default_store
from machine.engine.run_reader import PastRun
from machine.errors import ErrorInfo, MachineError
from machine.events import EffectIntended, RunSuspended
from machine.kernel.run_status import INTERRUPTED, RunStatus
from machine.kernel.wait_answers import ANSWER, SIGNAL
from machine.stores.base import Message, Store
from machine.waits import EffectWait, PauseWait

UNREADABLE: Final = "unreadable"
"""Kind of the entry for a run whose log cannot be read."""

ANSWERING_KINDS: Final = frozenset({ANSWER, SIGNAL})
"""The kinds of messages that a wait can take; that a child run has ended is no answer, but a reason to look."""


@attrs.frozen
class OpenWaitInfo:
    """A wait that is open: of a run, in a state, for what, since when, and until when.

    `kind` is `approval`, `signal`, `timer`, `child`, `effect_outcome` or `pause`; `unreadable` is a run that may
    wait and whose log cannot be read, for which `error` says why. Times are in milliseconds since the epoch.
    `prompt` and `data` are those of an approval, `name` and `correlation` those of a signal, and `child` is the id
    of a child run. `commands` are the commands that answer it, as words after `machine`.
    """

    run_id: str
    op: str
    kind: str
    state_id: str = ""
    key: str = ""
    since_ms: int = 0
    due_ms: int | None = None
    prompt: str | None = None
    data: Any = None
    name: str | None = None
    correlation: str | None = None
    child: str | None = None
    commands: tuple[tuple[str, ...], ...] = ()
    error: ErrorInfo | None = None


@with_default_store()
def waiting(*, store: Store = DEFAULT_STORE) -> list[OpenWaitInfo]:
    """Return what the runs of a store wait for, those of suspended runs first, and of these of the newest."""
    return waits_in(store, RunStatus.SUSPENDED, RunStatus.RUNNING, INTERRUPTED)


def waits_in(store: Store, *statuses: str) -> list[OpenWaitInfo]:
    """Return what those runs of a store wait for that have one of these statuses."""
    found: list[OpenWaitInfo] = []
    for run_id, op in _runs_of(store, statuses):
        try:
            found += waits_of(PastRun.read(run_id, store))
        except MachineError as exc:  # the other runs wait all the same
            found.append(OpenWaitInfo(run_id, op, UNREADABLE, error=exc.info))
    return found


def _runs_of(store: Store, statuses: Iterable[str]) -> list[tuple[str, str]]:
    """Return the ids and ops of the runs that have one of these statuses, the newest of each first."""
    found: list[tuple[str, str]] = []
    for status in statuses:
        cursor: str | None = None
        while True:
            page = store.list_runs(status=status, limit=500, cursor=cursor)
            found += ((row.run_id, row.op_id) for row in page.rows)
            cursor = page.cursor
            if cursor is None:
                break
    return found


def waits_of(run: PastRun) -> list[OpenWaitInfo]:
    """Return what a run waits for, in the order it was begun."""
    return [*_of_handlers(run), *_of_effects(run), *_of_pauses(run)]


def _of_handlers(run: PastRun) -> Iterator[OpenWaitInfo]:
    for wait in run.history.open_waits.by_key.values():
        begun, request = wait.begun, run.json(wait.begun.request_digest)
        asked: Mapping[str, Any] = request if isinstance(request, Mapping) else {}
        info = OpenWaitInfo(
            run.run_id,
            run.started.op_id,
            begun.namespace.removeprefix("wait."),
            begun.state_id,
            begun.key,
            wait.since_ms,
            wait.due_ms,
            prompt=asked.get("prompt"),
            data=asked.get("data"),
            name=asked.get("name"),
            correlation=asked.get("correlation"),
            child=wait.child,
        )
        yield attrs.evolve(info, commands=_commands(run, info))


def _commands(run: PastRun, wait: OpenWaitInfo) -> tuple[tuple[str, ...], ...]:
    run_id = run.run_id
    if wait.kind == "approval":
        alike = [each for each in run.history.open_waits.by_key.values() if is_approval(each.begun.namespace)]
        named = (run_id, wait.key) if len(alike) > 1 else (run_id,)
        return ("approve", *named), ("reject", *named)
    if wait.kind == "signal" and wait.name is not None:
        if wait.correlation is not None:
            return (("signal", "--correlation", wait.correlation, wait.name),)
        return (("signal", run_id, wait.name),)
    if wait.kind == "child" and wait.child is not None:
        return (("show", wait.child),)
    return ()


def is_approval(namespace: str) -> bool:
    """Say whether a wait of this namespace is for a person's decision."""
    return namespace == "wait.approval"


def _of_effects(run: PastRun) -> Iterator[OpenWaitInfo]:
    waits = [wait for wait in run.history.unanswered if isinstance(wait, EffectWait)]
    since = {
        entry.event.key: entry.ts_millis for entry in run.entries if isinstance(entry.event, EffectIntended)
    }
    for wait in waits:
        words = ("resolve", run.run_id, wait.key)
        yield OpenWaitInfo(
            run.run_id,
            run.started.op_id,
            wait.type,
            wait.state_id,
            wait.key,
            since.get(wait.key, 0),
            commands=((*words, "--outcome", "JSON"), (*words, "--not-done")),
        )


def _of_pauses(run: PastRun) -> Iterator[OpenWaitInfo]:
    for wait in run.history.waits:
        if isinstance(wait, PauseWait):
            commands = (("continue", run.run_id),)
            since = next(e.ts_millis for e in reversed(run.entries) if isinstance(e.event, RunSuspended))
            state_id = wait.state_id or ""
            yield OpenWaitInfo(
                run.run_id, run.started.op_id, wait.type, state_id, "", since, commands=commands
            )


def unconsumed(run: PastRun) -> list[Message]:
    """Return the messages to a run that no wait has taken, in their order: there may be a wait for them later."""
    waits = run.history.open_waits
    return [
        message
        for message in run.store.inbox(run.run_id)
        if message.kind in ANSWERING_KINDS and not waits.has_heard(message.number, message.ts_millis)
    ]


def shown(wait: OpenWaitInfo) -> dict[str, Any]:
    """Return a wait as a JSON object without what it does not have."""
    members = attrs.asdict(wait, recurse=False)
    members["error"] = (
        None if wait.error is None else {"code": wait.error.code, "message": wait.error.message}
    )
    members["commands"] = [list(words) for words in wait.commands]
    return {name: value for name, value in members.items() if value is not None}
