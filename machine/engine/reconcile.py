"""Reconciliation of effects that a crash may have hidden, before their state is retried."""

from __future__ import annotations

from collections.abc import Callable

from machine.engine.handler_runner import HandlerRunner
from machine.io.attempt_scope import AttemptScope
from machine.io.effect_resolution import UncertainEffect, namespace_of, resolution, sent_key
from machine.io.provider import IoProvider
from machine.kernel.context import Context
from machine.kernel.snapshot import Snapshot


async def reconcile(
    scope: AttemptScope, io: IoProvider, runner: HandlerRunner, base: Callable[[], Snapshot]
) -> None:
    """Ask the state's reconcile function for the outcome of each effect that has none.

    `base` opens the context that the function is given.
    """
    log = scope.log
    for intent in log.history.uncertain_of(scope.state.id):
        request = scope.secrets.asked_before(intent.request_digest, log.load(intent.request_digest))
        effect = UncertainEffect(
            intent.key, namespace_of(intent), request, sent_key(intent, request), intent.attempt
        )
        scope.reads_only = True
        try:
            answer = await runner.reconcile(scope, Context(base()), io, effect)
        finally:
            scope.reads_only = False
        fact, payloads, info = resolution(intent, request, answer, scope.attempt, scope.secrets)
        await log.emit([fact], payloads, info)
