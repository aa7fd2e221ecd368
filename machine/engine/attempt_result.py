"""The end of an attempt: the event for what its handler returned or raised."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import attrs

from machine import canonical
from machine.config import RetryPolicy, RunConfig
from machine.did_you_mean import did_you_mean
from machine.engine.driver_protocols import TimedOut
from machine.engine.next_input import next_input_id
from machine.engine.retry_verdict import judged, retried
from machine.errors import Code, Failure, StateError
from machine.events import Event, StateCompleted, StateFailed
from machine.exception_causes import causes_of
from machine.exception_to_error_info import describe, trace
from machine.failed_attempt_info import CAUSES, RETRY_AFTER, write_causes
from machine.io.attempt_scope import Payloads
from machine.kernel.context import Context
from machine.kernel.known_after_apply import needed_by
from machine.kernel.sealed_facts import REUSED
from machine.kernel.snapshot import Snapshot
from machine.plan import Graph
from machine.retry_after import wait_asked
from machine.secrets.both_formats import OfAttempt
from machine.state import PlanState, StateOutcome

_NOTHING: Final = StateOutcome()

_Ended: TypeAlias = tuple[Event, Mapping[str, str] | None]
"""The event that ends an attempt, with its informational data."""


@attrs.define
class Ending:
    """An attempt that is about to end, with the context it worked on."""

    state: PlanState
    ctx: Context
    secrets: OfAttempt
    context_format: int
    config: RunConfig
    concurrent: bool = attrs.field(kw_only=True)

    @property
    def policy(self) -> RetryPolicy:
        """The retry policy of the state."""
        return self.state.meta.retry or self.config.retry_policy

    def returned(
        self, outcome: Any, graph: Graph, base: Snapshot, payloads: Payloads
    ) -> tuple[_Ended, Snapshot]:
        """Return the end of an attempt whose handler returned, and the new context.

        Raises `StateError` and `ContextError` for a forbidden result, write, change in place or next input.
        """
        state, ctx = self.state, self.ctx
        if (needed := needed_by(ctx)) is not None:
            raise needed
        if outcome is None:
            outcome = _NOTHING
        if not isinstance(outcome, StateOutcome):
            raise StateError(
                f"the handler of {state.id} returned {type(outcome).__name__}",
                code=Code.INVALID_OUTCOME,
                hint="return None or a StateOutcome, and write results to ctx",
            )
        ctx.check_copies()
        self.secrets.refuse_in_context(ctx.staged)
        if outcome.error is not None:
            failure = None
            if outcome.snapshot == "always":
                failure = self._staged(base, payloads).id
            error = outcome.error
            if isinstance(error, str):
                error = Failure(f"the handler of {state.id} failed the attempt: {error}", code=error)
            return self.failed(error, failure), base
        if outcome.snapshot == "never" and ctx.staged:
            raise StateError(
                f"state {state.id} promised no snapshot and wrote {', '.join(map(repr, ctx.staged))}",
                code=Code.INVALID_OUTCOME,
            )
        chooses = outcome.goto is not None or outcome.skip
        not_taken = _not_taken(graph, state.id, outcome) if chooses else None
        given, next_id = outcome.next_run, None
        if given is not None and state.meta.cleanup:
            raise StateError(
                f"{state.id} is a cleanup state, and only the work says that a run goes on as another",
                code=Code.INVALID_OUTCOME,
            )
        if given is not None:
            next_id = next_input_id(state.id, given, graph.input, self.secrets, payloads)
        snapshot = self._staged(base, payloads)
        wrote = tuple(sorted(ctx.staged)) if self.concurrent else None
        return (StateCompleted(state.id, snapshot.id, wrote, not_taken, next_id), self.info()), snapshot

    def failed(self, exc: BaseException, failure: str | None = None) -> _Ended:
        """Return the end of an attempt that failed; `failure` is the snapshot to look at."""
        if (needed := needed_by(self.ctx)) is not None:
            return StateFailed(self.state.id, self.secrets.error(needed.info(self.state.id))), self.info()
        error = self.secrets.error(describe(exc, redact=self.secrets.text))
        if self.policy.selects:
            error = attrs.evolve(error, retryable=retried(exc, self.policy))
        info: dict[str, str] = {}
        if where := trace(exc):
            info["trace"] = self.secrets.run.text(where)
        info |= behind(exc, self.secrets)
        if error.retryable and (asked := wait_asked(exc, time.time())):
            info[RETRY_AFTER] = str(asked)
        return StateFailed(self.state.id, error, failure), self.info(**info)

    def timed_out(self, exc: TimedOut) -> _Ended:
        """Return the end of an attempt that took longer than its state allows."""
        return StateFailed(self.state.id, judged(exc.info, self.policy)), self.info(
            **behind(exc, self.secrets)
        )

    def info(self, **info: str) -> Mapping[str, str]:
        """Return the informational data of an attempt's end; for concurrent states also the keys that were read."""
        if self.concurrent and self.ctx.read:
            info["read"] = self.secrets.run.text(canonical.encode(sorted(self.ctx.read)).decode())
        if self.secrets.reused:
            info[REUSED] = canonical.encode(self.secrets.reused).decode()
        return info

    def _staged(self, base: Snapshot, payloads: Payloads) -> Snapshot:
        staged = self.ctx.staged
        if not staged:
            return base
        snapshot, made = base.update(staged, self.context_format)
        payloads.items.update(made)
        return snapshot


def behind(exc: BaseException, secrets: OfAttempt) -> dict[str, str]:
    """Return the causes behind an exception as informational data, empty when there are none."""
    causes = causes_of(exc, secrets.run.text)
    return {CAUSES: write_causes(causes)} if causes else {}


def _not_taken(graph: Graph, state_id: str, outcome: StateOutcome) -> tuple[str, ...]:
    """Return the successors that an outcome, which made a choice, did not choose, in plan order.

    Raises `StateError` (`unknown_branch`) when the outcome names a state that does not follow this one.
    """
    children = graph.children[state_id]
    named = [_child(graph, state_id, name) for name in outcome.goto or outcome.skip]
    return tuple(child for child in children if (child in named) is (outcome.goto is None))


def _child(graph: Graph, state_id: str, name: str) -> str:
    full = name if name.count(".") == 2 else f"{graph.op_id}.{name}"  # noqa: PLR2004 - three segments
    children = graph.children[state_id]
    if full not in children:
        follows = f"what follows it is {', '.join(children)}" if children else "nothing follows it"
        raise StateError(
            f"{state_id} chose to go on to or to skip {name!r}, which does not follow it",
            code=Code.UNKNOWN_BRANCH,
            hint=did_you_mean(full, children, follows, show=repr),
        )
    return full
