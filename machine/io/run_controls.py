"""The controls of a run: what every call of a handler passes before it is made, whichever client makes it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import attrs
from anyio.lowlevel import checkpoint

from machine.config import RunConfig
from machine.errors import Code, StateError
from machine.events import FactError, FactValue
from machine.io.attempt_scope import AttemptScope, Log
from machine.io.call_identity import Call
from machine.io.policy_verdicts import Breakers, Verdict, denied, host_of, judge
from machine.io.settle_barrier import QUIET_ROUNDS
from machine.io.spending import unpriced
from machine.kernel.usage import BREAKER, limit_of_call
from machine.model_prices import Spending
from machine.policy import ALLOW, BREAK, NO_POLICY, Policy, Rule


@attrs.define
class RunControls:
    """The controls of one live run. `stop` interrupts its attempts, `wall_ms` is how long these have been open.

    `own` is the policy of its driver, on top of that of the run.
    """

    config: RunConfig
    log: Log
    stop: Callable[[], None]
    wall_ms: Callable[[], int]
    spending: Spending
    own: Policy = NO_POLICY

    async def admit(self, *, here: bool) -> None:
        """Return if a further call may be made; else end the run, and do not return.

        `here` is true for a call on the thread of the event loop, which cannot wait to be interrupted.
        """
        usage = self.log.history.usage
        if self.log.history.cleanup is not None:
            return  # the limits are those of the work
        if usage.reached is None:
            reached = limit_of_call(self.config, usage, self.wall_ms())
            if reached is None:
                return
            await self.log.emit([reached])
            self.stop()
        if not here:
            for _ in range(
                QUIET_ROUNDS
            ):  # until the cancellation comes, unless the handler shields itself from it
                await checkpoint()
        raise StateError("the run has used up a limit and makes no more calls", code=Code.LIMIT_EXCEEDED)

    def verdict(self, call: Call, scope: AttemptScope) -> Verdict:
        """Return the verdict of the policies on a call."""
        host = host_of(call.namespace, call.request)
        return judge(self._policies, call.namespace, host, _tags(scope), effect=call.effect)

    def check(self, call: Call, scope: AttemptScope) -> None:
        """Raise `OtherIoError` for a call that has no price or whose circuit breaker is open."""
        unknown = unpriced(call, self.spending, costs=self.config.limits.cost is not None)
        if unknown is not None:
            raise unknown
        if (found := self._breaker(call, scope)) is not None and (refusal := self._breakers.refusal(*found)):
            raise refusal

    def check_hop(self, call: Call, scope: AttemptScope, url: str) -> None:
        """Raise `OtherIoError` for a redirect of a call to a URL that the policies do not allow."""
        host = host_of(call.namespace, {"url": url})
        verdict = judge(self._policies, call.namespace, host, _tags(scope), effect=call.effect)
        if verdict.verdict != ALLOW:
            raise denied(verdict, f"a redirect to {host}", host=host)

    def outcome(
        self, call: Call, scope: AttemptScope, outcome: FactValue | FactError | None
    ) -> Mapping[str, str]:
        """Return the info of the fact of a call that has ended, with its circuit breaker if that has changed."""
        if (found := self._breaker(call, scope)) is None:
            return {}
        if (changed := self._breakers.outcome(*found, outcome)) is None:
            return {}
        return {BREAKER: changed.text()}

    def _breaker(self, call: Call, scope: AttemptScope) -> tuple[Rule, str] | None:
        host = host_of(call.namespace, call.request)
        rule = self._breakers.rule(call.namespace, host, _tags(scope), effect=call.effect)
        return None if rule is None or host is None else (rule, host)

    @functools.cached_property
    def _policies(self) -> tuple[Policy, ...]:
        return self.config.policy, self.own

    @functools.cached_property
    def _breakers(self) -> Breakers:
        rules = [rule for policy in self._policies for rule in policy.rules if rule.verdict == BREAK]
        return Breakers(tuple(rules), self.log.history.usage.breakers, self.log.now_ms)


def _tags(scope: AttemptScope) -> tuple[str, ...]:
    return tuple(map(str, scope.state.meta.tags))
