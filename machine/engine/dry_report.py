"""The report of a dry run, made from its log alone: its states, the effects it has shown, what is not known yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from machine.config import IoMode
from machine.engine.recorded_answers import facts_from
from machine.engine.run_reader import PastRun
from machine.errors import Code, UsageError
from machine.events import EffectIntended, FactError, FactRecorded, WaitBegun
from machine.io.clock import SLEEP
from machine.io.dry_io import BY_RUN, BY_STATE, KNOWN_LATER, PREVIEWED
from machine.kernel.open_waits import CHILD
from machine.kernel.state_history import KNOWN_LATER as NEEDED
from machine.kernel.state_history import StateStatus
from machine.kernel.transactions import UNIT
from machine.plan import recorded_graph
from machine.stores.base import Store
from machine.waits import WAITED_FOR


@attrs.frozen
class DryState:
    """The result of one state.

    `action` is `run`, `preview` for one whose effects were previewed, `known after apply` for one that needed what
    is not known yet, `skip` or `not reached`; `reason` says why. `after` are the states that it follows, `took_ms`
    is the time that it took in the earlier run, None where there is none.
    """

    id: str
    action: str
    reason: str
    after: tuple[str, ...] = ()
    took_ms: int | None = None


@attrs.frozen
class DryEffect:
    """A call that was shown and not made.

    `request` is the JSON value that would have been recorded, with secrets replaced. `source` says where its
    `outcome` is from: `preview` of the state, `run` and the id of the earlier run, `rolled back` for a COMMIT, or
    `known after apply`, where it is None. `run_id` is the dry run or the child of it that has the state.
    `statements` are the requests of the transaction that a COMMIT would have ended.
    """

    state_id: str
    idempotency_key: str | None
    namespace: str
    request: Any
    source: str
    outcome: Any
    run_id: str
    statements: tuple[Any, ...] = ()


@attrs.frozen
class DryNeed:
    """A state that needed what is known after apply: the context key, None for an answer to a call of its own.

    `writer` is the state that the value is from.
    """

    state_id: str
    key: str | None
    writer: str


@attrs.frozen
class DryReport:
    """The states, effects and needs of a dry run, in their order; `run_id` is the dry run."""

    run_id: str
    states: tuple[DryState, ...]
    effects: tuple[DryEffect, ...]
    needs: tuple[DryNeed, ...]

    @property
    def counts(self) -> Mapping[str, int]:
        """The number of states by their action, and of effects."""
        actions = [state.action for state in self.states]
        found = {action: actions.count(action) for action in dict.fromkeys(actions)}
        return {**found, "effects": len(self.effects)}


def is_dry_run(log: PastRun) -> bool:
    """Say whether a run is a dry run."""
    return log.manifest.run_config.io_mode is IoMode.DRY_RUN


def report_of(store: Store, run_id: str, log: PastRun | None = None) -> DryReport:
    """Return the report of a dry run. Raises `UsageError` (`not_a_dry_run`) for any other run."""
    log = PastRun.read(run_id, store) if log is None else log
    if not is_dry_run(log):
        raise UsageError(
            f"run {run_id} is no dry run",
            code=Code.NOT_A_DRY_RUN,
            hint="machine run TARGET --dry-run makes one",
        )
    effects = tuple(_effects(log))
    times, waits = _earlier_times(log), _waits(log)
    parents = recorded_graph(store.get(log.history.plan_id or "")).parents
    states = [
        attrs.evolve(state, after=parents.get(state.id, ()), took_ms=times.get(state.id))
        for state in (_state(log, each, effects, waits.get(each, "")) for each in log.order)
    ]
    return DryReport(run_id, tuple(states), effects, tuple(_needs(log)))


def _effects(log: PastRun) -> Iterator[DryEffect]:
    """Yield the calls that a dry run has shown, with those of its children where it first waits for them."""
    keys: dict[str, str] = {}
    statements: dict[str, list[Any]] = {}
    children: set[str] = set()
    for entry in log.entries:
        event, unit = entry.event, str(entry.info.get(UNIT))
        if isinstance(event, EffectIntended):
            keys[event.key] = event.idempotency_key
        elif isinstance(event, WaitBegun):
            child = str(entry.info.get(CHILD, ""))
            if child and child not in children and log.store.run_exists(child):
                children.add(child)
                yield from _effects(PastRun.read(child, log.store))
        elif isinstance(event, FactRecorded) and event.namespace != SLEEP:
            place = f"{event.state_id}/{event.attempt}/{unit}"
            if PREVIEWED in entry.info:
                source, before = str(entry.info[PREVIEWED]), tuple(statements.pop(place, ()))
                yield _effect(log, event, source, keys.get(event.key) or None, before)
            elif UNIT in entry.info:
                statements.setdefault(place, []).append(log.json(event.request_digest))


def _effect(
    log: PastRun, fact: FactRecorded, source: str, key: str | None, statements: tuple[Any, ...]
) -> DryEffect:
    names = {BY_STATE: "preview", BY_RUN: f"run {facts_from(log.entries[0])}"}
    known = source != KNOWN_LATER and not isinstance(fact.outcome, FactError)
    return DryEffect(
        fact.state_id,
        key,
        fact.namespace,
        log.json(fact.request_digest),
        names.get(source, source),
        log.call(fact)["response"] if known else None,
        log.run_id,
        statements,
    )


def _earlier_times(log: PastRun) -> Mapping[str, int]:
    """Return how long each state took in the run whose answers a dry run had, or in the last completed one."""
    store, run_id = log.store, facts_from(log.entries[0])
    if run_id is None:
        rows = store.list_runs(status="completed", op=log.started.op_id, limit=20).rows
        found = (PastRun.read(row.run_id, store) for row in rows if row.run_id != log.run_id)
        earlier = next((one for one in found if not is_dry_run(one)), None)
    else:
        earlier = PastRun.read(run_id, store) if store.run_exists(run_id) else None
    return {} if earlier is None else {state_id: times.ms for state_id, times in earlier.times.items()}


def _waits(log: PastRun) -> Mapping[str, str]:
    """Return in words what each state waits for, of those that wait."""
    found: dict[str, list[str]] = {}
    for entry in log.entries:
        if isinstance(entry.event, WaitBegun):
            found.setdefault(entry.event.state_id, []).append(WAITED_FOR[entry.event.namespace])
    return {state_id: f"waits for {', '.join(dict.fromkeys(each))}" for state_id, each in found.items()}


def _state(log: PastRun, state_id: str, effects: tuple[DryEffect, ...], waits: str) -> DryState:
    history = log.history
    state = history.states.get(state_id)
    if state is None:
        return DryState(state_id, "not reached", f"the run ended before it: {history.status}")
    if state.reason == NEEDED:
        return DryState(state_id, KNOWN_LATER, state.failed.error.message if state.failed.error else "")
    if state.status is StateStatus.SKIPPED:
        return DryState(state_id, "run" if state.attempts else "skip", state.reason or "")
    count = sum((effect.run_id, effect.state_id) == (log.run_id, state_id) for effect in effects)
    action = "preview" if count else "run"
    if state.status is StateStatus.SUSPENDED:
        return DryState(state_id, action, waits)
    why = f": {state.failed.error.code}" if state.status is StateStatus.FAILED and state.failed.error else ""
    shown = f", {count} effect{'s' if count != 1 else ''} not applied" if count else ""
    waited = f", {waits}" if waits else ""
    return DryState(state_id, action, f"{state.status}{why}{shown}{waited}")


def _needs(log: PastRun) -> Iterator[DryNeed]:
    for state_id in log.order:
        state = log.history.states.get(state_id)
        error = state.failed.error if state is not None and state.reason == NEEDED else None
        if error is not None:
            details = error.details or {}
            yield DryNeed(state_id, details.get("key"), str(details.get("writer")))
