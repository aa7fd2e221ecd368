"""Asking the world what became of effects that a crash may have hidden, before their state is tried again."""

from __future__ import annotations

from collections.abc import Callable

from machine.engine.handler_runner import HandlerRunner
from machine.io.attempt_scope import AttemptScope
from machine.io.effect_resolution import UncertainEffect, namespace_of, sent_key, told
from machine.io.provider import IoProvider
from machine.kernel.context import Context
from machine.kernel.snapshot import Snapshot

__all__ = ["reconcile"]


async def reconcile(
    scope: AttemptScope, io: IoProvider, door: HandlerRunner, base: Callable[[], Snapshot]
) -> None:
    """Have the state's reconcile function say what became of each effect that has no outcome.

    `base` opens the context that the function is given.
    """
    log = scope.log
    for intent in log.history.uncertain_of(scope.state.id):
        request = scope.vault.asked_before(intent.request_digest, log.load(intent.request_digest))
        effect = UncertainEffect(
            intent.key, namespace_of(intent), request, sent_key(intent, request), intent.attempt
        )
        scope.reads_only = True
        try:
            answer = await door.reconcile(scope, Context(base()), io, effect)
        finally:
            scope.reads_only = False
        fact, payloads, info = told(intent, request, answer, scope.attempt, scope.vault)
        await log.emit([fact], payloads, info)
