"""The child runs of a handler's `io`: a part of a run that is a run of its own.

The call records that it waits, then has the child driven as a part of itself. If the child has to wait, so does the
handler, like at any other wait; if it ends, its outcome is the answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio

from machine import canonical
from machine.errors import UsageError, WaitTimeoutError
from machine.events import ArtifactKind, FactRecorded, FactValue
from machine.io.attempt_scope import Payloads
from machine.io.call_identity import Call
from machine.io.child_runs import CHILD_RUN, ChildResult, OnParentEnd, child_id
from machine.io.request_fields import refusal
from machine.io.waits import WaitCalls, limit_fields
from machine.kernel.open_waits import CHILD
from machine.kernel.usage import SPENT
from machine.plan import Plan
from machine.plan_input import checked_input
from machine.watch.watch import engine_at_work

Emit = Callable[[Call, FactValue, Payloads, Mapping[str, str] | None], Awaitable[FactRecorded]]
"""Function that records the outcome of a call, and returns its fact."""


def child_request(
    plan: Plan, params: Mapping[str, Any] | None, timeout: float | None, on_parent_end: str
) -> dict[str, Any]:
    """Return what a wait for a child run asks for. Raises `OtherIoError` (`io_invalid_request`), `PlanError`."""
    if not isinstance(plan, Plan):
        raise refusal(f"a child run needs a Plan, not {type(plan).__name__}")
    try:
        params = checked_input(plan.input, params)
    except UsageError as exc:
        raise refusal(f"of the child run {plan.op_id!r} {exc.message}") from exc
    if not isinstance(params, Mapping):
        raise refusal(f"the input of a child run must be a JSON object, not {type(params).__name__}")
    if on_parent_end not in ("cancel", "leave"):
        raise refusal(f'on_parent_end must be "cancel" or "leave", not {on_parent_end!r}')
    given = canonical.decode(canonical.encode(dict(params)))
    asked = {"op_id": plan.graph.op_id, "input": given, "on_parent_end": on_parent_end}
    return {**asked, **limit_fields(timeout)}


class ChildCalls(WaitCalls):
    """The part of an `io` that has child runs."""

    async def run_child(
        self,
        plan: Plan,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - as in `run`
        *,
        key: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - recorded: the time that the child has
        on_parent_end: OnParentEnd = "cancel",
    ) -> ChildResult:
        """Run another plan as a run of its own, and return its outcome, also when it fails or is cancelled.

        It has its own log in the same store, and the configuration of this run. Whatever happens to this process
        meanwhile, there is one child. While that waits, this run does. `key` names it for who looks for it.
        `timeout` is in seconds; after it this raises `WaitTimeoutError`. A child that nobody waits for any more,
        because this run has ended, the attempt that gave the call up has, or the time is over, is cancelled, unless
        `on_parent_end` is `leave`.
        """
        request = child_request(plan, input, timeout, on_parent_end)
        with engine_at_work():
            self._check_place()
            scope, given = self._scope, request["input"]
            scope.secrets.refuse_in_context({name: canonical.encode(value) for name, value in given.items()})
            call = self._identify(CHILD_RUN, request, key)
            if scope.run.children is not None:
                scope.run.children.know(call.key, plan, given, stays=on_parent_end == "leave")
            fact = await self._fact_of_wait(call)
            answer: Mapping[str, Any] = self._result(fact).response
            if answer.get("timed_out"):
                if on_parent_end == "cancel":
                    await self._cancel_child(call)
                raise WaitTimeoutError(
                    f"the child run {call.key!r} has not ended in time", details={"key": call.key}
                )
        return ChildResult.of(answer)

    def _child_info(self, call: Call, now_ms: int) -> dict[str, str]:
        """Return the info of the beginning of a wait for a child run, empty for any other wait."""
        if call.namespace != CHILD_RUN:
            return {}
        history = self._scope.log.history
        known, given_up = history.open_waits.children.get(call.key), history.facts.get(call.key)
        if given_up is not None and not self._was_interrupted(given_up):
            known = None
        child = None if known is None else known.child
        return {CHILD: child or child_id(history.run_id or "", call.key, now_ms)}

    def _was_interrupted(self, given_up: FactRecorded) -> bool:
        """Say whether an attempt that gave a child up was interrupted, and its child with it, and did not go on."""
        state = self._scope.state.id
        fresh_from = self._scope.log.history.states[state].failed.fresh_from
        return given_up.state_id == state and given_up.attempt >= fresh_from

    async def _driven(self, call: Call, emit: Emit) -> FactRecorded | None:
        """Return the answer to a wait for a child run that ends now, None for a child or other wait to wait for."""
        scope, handing = self._scope, self._handing
        wait = scope.log.history.open_waits.by_key.get(call.key)
        if wait is None or wait.child is None or scope.run.children is None:
            return None
        await scope.log.durable()  # nobody may find a child of which its parent knows nothing
        handing.in_flight[call.key] = handing.waits_in_hand[call.key]
        try:
            outcome = await self._outcome(call.key, wait.child, wait.due_ms)
            if outcome is None:
                return None
            payloads = Payloads()
            payload_id = payloads.add(ArtifactKind.FACT_PAYLOAD, canonical.encode(outcome))
            spent = scope.run.children.spent(wait.child) if scope.run.controls is not None else None
            info = None if spent is None else {SPENT: spent}
            fact = await emit(call, FactValue(payload_id), payloads, info)
            await handing.turn(call, scope.log.history.head_seq)
        except anyio.get_cancelled_exc_class():
            if call.key in scope.log.history.open_waits.by_key and not (scope.cut or scope.put_away):
                await self._give_up(call)
            raise
        finally:
            del handing.in_flight[call.key]
        return fact

    async def _outcome(self, key: str, child: str, due_ms: int | None) -> Mapping[str, Any] | None:
        """Drive a child within the time that it has."""
        scope = self._scope
        assert scope.run.children is not None
        left = None if due_ms is None else max(due_ms - scope.log.now_ms(), 0) / 1000
        with anyio.move_on_after(left):
            return await scope.run.children.outcome(key, child)
        return {"timed_out": True, "at_ms": max(scope.log.now_ms(), due_ms or 0)}

    async def _cancel_child(self, call: Call) -> None:
        """Cancel the child of a wait that is over, durably."""
        scope = self._scope
        wait = scope.log.history.open_waits.children.get(call.key)
        if wait is not None and wait.child is not None and scope.run.children is not None:
            with anyio.CancelScope(shield=True):
                await scope.run.children.give_up(wait.child)
