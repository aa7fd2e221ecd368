"""Dry runs: a run that skips every effect, and a report of the skipped effects.

The run itself is an ordinary one, with one more tag to skip. The report is made afterwards by calling the handlers
of the skipped states with a preview of the outside world; nothing of that is written to the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import anyio
import attrs
from anyio.lowlevel import current_token

from machine import canonical
from machine.catalogue import Catalogue
from machine.clients.recording import recording
from machine.config import RunConfig, Target, UndeclaredIo
from machine.default_store import DEFAULT_STORE, with_default_store
from machine.engine import run_reader
from machine.engine.driver_protocols import SecondOf
from machine.engine.handler_runner import HandlerRunner
from machine.engine.in_process_waits import Clock
from machine.engine.live_run_secrets import recalled
from machine.engine.recorder import Recorder
from machine.engine.reporter import Reporter
from machine.engine.run_keeper import LEASE_SECONDS
from machine.engine.run_result import RunResult
from machine.engine.start_and_resume import run
from machine.engine.transports import opened
from machine.engine.transports_and_catalogue import Provided
from machine.errors import Code
from machine.events import StateSkipped
from machine.exception_to_error_info import describe
from machine.io.attempt_scope import AttemptScope, RunScope
from machine.io.preview_io import PreviewIo, PreviewLog
from machine.io.request_identity import RequestRules
from machine.io.settle_barrier import SettleBarrier, running_tasks
from machine.io.transport import Transport, Transports
from machine.kernel.cleanup import failure_of
from machine.kernel.context import Context
from machine.kernel.frontier import Conflict, Frontier
from machine.kernel.history import History
from machine.kernel.retry_and_skip import SKIP_REASON
from machine.kernel.snapshot import Snapshot
from machine.kernel.state_history import StateStatus
from machine.plan import Graph, Plan
from machine.recorded_clients import Clients
from machine.secrets.both_formats import OfAttempt, RunSecrets
from machine.secrets.reserved_store_key import Reserved
from machine.secrets.store_key import open_keys
from machine.state import EFFECT_TAG, PlanState, SideEffects
from machine.stores.base import Store
from machine.waits import WAITED_FOR
from machine.watch.code_owner import called_by
from machine.watch.watch import behind_io


@attrs.frozen
class DryState:
    """The result of one state: `action` is "run", "skip" or "not reached", `reason` says why.

    The reason of a skip is that of its event: `skip_tag:` and the tag.
    """

    id: str
    action: str
    reason: str


@attrs.frozen
class DryEffect:
    """The first effect that a skipped state would have applied.

    `request` is the JSON value that would have been recorded, with secrets replaced. When it cannot be known,
    `unknown` says why, and `namespace` is None; otherwise `unknown` is None.
    """

    state_id: str
    idempotency_key: str | None
    namespace: str | None
    request: Any
    unknown: str | None


@attrs.frozen
class MissedKey:
    """A missing context key that made `state_id` fail. One of the skipped states `writers` may write it."""

    key: str
    state_id: str
    writers: tuple[str, ...]


@attrs.frozen
class DryRun:
    """The report of a dry run. `result` is the result of the run, which is stored like any other."""

    result: RunResult
    states: tuple[DryState, ...]
    effects: tuple[DryEffect, ...]
    missed: tuple[MissedKey, ...]


@with_default_store(create=True)
async def dry_run(
    plan: Plan,
    *,
    store: Store = DEFAULT_STORE,
    input: Mapping[str, Any] | None = None,  # noqa: A002 - as in `run`
    config: RunConfig | None = None,
    run_id: str | None = None,
    invocation_key: str | None = None,
    labels: Mapping[str, str] | None = None,
    transports: Transports | None = None,
    catalogue: Catalogue | None = None,
    reporter: Reporter | None = None,
    target: Target | None = None,
    lease: float = LEASE_SECONDS,
    clock: Clock = "wall",
    answers: Mapping[str, Any] | None = None,
    second: SecondOf | None = None,
) -> DryRun:
    """Run `plan` without its effects and report what it would have done.

    The arguments and the errors are those of `run`. Every state that applies a side effect is skipped by its tag,
    `apply_side_effect`; then its handler is called once outside the run, up to its first effect, which is reported
    and not performed. Reads before that effect are performed and not recorded.
    """
    config = config or RunConfig()
    if EFFECT_TAG not in config.skip_tags:
        config = attrs.evolve(config, skip_tags=(*config.skip_tags, EFFECT_TAG))
    config = attrs.evolve(config, undeclared_io=UndeclaredIo.ERROR)
    result = await run(
        plan,
        store=store,
        input=input,
        config=config,
        run_id=run_id,
        invocation_key=invocation_key,
        labels=labels,
        transports=transports,
        catalogue=catalogue,
        reporter=reporter,
        target=target,
        lease=lease,
        clock=clock,
        answers=answers,
        second=second,
    )
    graph = plan.graph
    history, bases = _skipped(graph, store, result.run_id)
    skipped = [
        graph.states[state_id]
        for state_id in graph.order
        if state_id in bases
        and graph.states[state_id].meta.side_effects is SideEffects.APPLY_SIDE_EFFECT
        and not _is_idle(graph, history, state_id)
    ]
    effects: list[DryEffect] = []
    if skipped:
        runner = HandlerRunner(config.undeclared_io, reporter or Reporter())
        provided = Provided.of(plan, transports, catalogue)
        requests = RequestRules(by_default=True, ignore=plan.ignore)
        async with opened(config, provided.transports) as by_namespace:
            previews = _Previews(
                config, store, history, by_namespace, provided.catalogue, runner, requests, plan.clients
            )
            with runner.open(), recording(plan.clients):
                effects = [await previews.effect_of(state, bases[state.id]) for state in skipped]
    return DryRun(
        result,
        tuple(_state(state_id, history) for state_id in graph.order),
        tuple(effects),
        tuple(_missed(graph, history)),
    )


def _is_idle(graph: Graph, history: History, state_id: str) -> bool:
    """Say whether a cleanup state would have done nothing in a run that ended as this one."""
    reason = history.states[state_id].reason or ""
    return state_id in graph.cleanup and not reason.startswith(SKIP_REASON)


def _state(state_id: str, history: History) -> DryState:
    state = history.states.get(state_id)
    if state is None:
        return DryState(state_id, "not reached", f"the run ended before it: {history.status}")
    if state.status is StateStatus.SKIPPED:
        return DryState(state_id, "run" if state.attempts else "skip", state.reason or "")
    if state.status is StateStatus.SUSPENDED:
        waits = [each.begun for each in history.open_waits.by_key.values() if each.begun.state_id == state_id]
        return DryState(
            state_id, "run", f"waits for {', '.join(WAITED_FOR[wait.namespace] for wait in waits)}"
        )
    why = f": {state.failed.error.code}" if state.status is StateStatus.FAILED and state.failed.error else ""
    return DryState(state_id, "run", f"{state.status}{why}")


def _skipped(graph: Graph, store: Store, run_id: str) -> tuple[History, Mapping[str, Snapshot | Conflict]]:
    """Return the recorded history, and the context at the turn of each skipped state, if it had one."""
    history, bases, load = History(), dict[str, Snapshot | Conflict](), behind_io(store.get)
    frontier: Frontier | None = None
    for entry, _ in run_reader.entries(store, run_id):
        if isinstance(entry.event, StateSkipped):
            state_id = entry.event.state_id
            if history.max_concurrency is None:
                bases[state_id] = Snapshot.open(history.checkpoint or "", load)
            else:
                frontier = frontier or Frontier(graph, load)
                frontier.follow(history)
                try:
                    bases[state_id] = frontier.base(state_id)
                except Conflict as exc:
                    bases[state_id] = exc
        history.advance(entry)
    return history, bases


def _missed(graph: Graph, history: History) -> Iterable[MissedKey]:
    skipped: list[str] = []
    for state_id in graph.order:
        state = history.states.get(state_id)
        if state is None:
            continue
        if state.status is StateStatus.SKIPPED:
            skipped.append(state_id)
        error = state.failed.error if state.status is StateStatus.FAILED else None
        if error is not None and error.code == Code.CONTEXT_KEY_MISSING and skipped:
            yield MissedKey(str((error.details or {}).get("key")), state_id, tuple(skipped))


@attrs.frozen
class _Previews:
    """The previews of one dry run, with their common data."""

    config: RunConfig
    store: Store
    history: History
    transports: Mapping[str, Transport]
    catalogue: Catalogue | None
    runner: HandlerRunner
    requests: RequestRules
    clients: Clients

    async def effect_of(self, state: PlanState, base: Snapshot | Conflict) -> DryEffect:
        """Return the first effect that a skipped state would have applied over the context at its turn."""
        if isinstance(base, Conflict):
            return DryEffect(state.id, None, None, None, f"it cannot be known: {base}")
        run_id, keys = self.history.run_id or "", open_keys(self.store)
        reserved = Reserved(self.store.secret_key_file)
        secrets = RunSecrets(self.config.secrets, run_id, keys, live=False, reserved=reserved)
        attempt_secrets = secrets.attempt()
        log = PreviewLog(self.history, self.store.get)
        ctx = Context(base)
        scope = self._scope(state, log, attempt_secrets)
        try:
            recalled(self.history, secrets, self.store.get)
            scope.idempotency_key = self.runner.idempotency_key(scope, ctx)
            unknown = await self._play(scope, ctx)
        except (KeyboardInterrupt, anyio.get_cancelled_exc_class()):
            raise
        except BaseException as exc:  # noqa: BLE001 - user code may raise anything, in groups too
            unknown = _why(exc, attempt_secrets)
        shown = attempt_secrets.text(scope.idempotency_key) if scope.idempotency_key is not None else None
        if secrets.shown:
            unknown = "it cannot be known: a secret that the run has read cannot be opened any more"
        if log.ended is None or secrets.shown:
            return DryEffect(state.id, shown, None, None, unknown)
        effect = log.ended.effect
        if effect is None:
            return DryEffect(state.id, shown, None, None, f"it cannot be known: {log.ended.reason}")
        return DryEffect(state.id, shown, effect.namespace, canonical.decode(effect.data), None)

    def _scope(self, state: PlanState, log: PreviewLog, secrets: OfAttempt) -> AttemptScope:
        run = RunScope(
            self.config, self.transports, self.catalogue, self.requests, self.clients, current_token()
        )
        barrier = SettleBarrier(frozenset(running_tasks()), blocking=state.blocking)
        return AttemptScope(run, state, 0, log, barrier, secrets)

    async def _play(self, scope: AttemptScope, ctx: Context) -> str:
        """Call the handler, and return why its effect is unknown if it ends without one."""
        io, state, timeout = PreviewIo(scope), scope.state, scope.state.meta.timeout
        try:
            with anyio.move_on_after(timeout) as scope.limit:
                with called_by(io):
                    await self.runner.call(
                        scope,
                        state.callee,
                        ctx,
                        io,
                        Recorder(scope),
                        plain=state.blocking,
                        failure=failure_of(self.history),
                    )
                return "the handler came to its end without an effect"
            return f"it cannot be known: the handler took longer than its timeout, {timeout:g} s"
        finally:
            await io.end()
            scope.closed = True


def _why(exc: BaseException, secrets: OfAttempt) -> str:
    info = secrets.error(describe(exc, hint=False, redact=secrets.text))
    if info.code == Code.CONTEXT_KEY_MISSING and info.details is not None and "key" in info.details:
        return f"it cannot be known: needs key {str(info.details['key'])!r}"
    return f"it cannot be known: {info.message}"
