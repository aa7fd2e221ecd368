"""The permission of a call that is about to leave: what the policies of its run, and the prices of models, say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from machine.errors import OtherIoError, StateError
from machine.events import FactError
from machine.exception_to_error_info import describe
from machine.io.attempt_scope import Controls
from machine.io.call_identity import Call
from machine.io.policy_verdicts import POLICY, Verdict, ask_key, denied, question
from machine.io.provider import IoProvider
from machine.policy import ASK, DENY

ASKED_FOR: Final = "asked_for"
"""Name in the info of `wait_begun` for the key of the call that a policy asks about."""

APPROVAL: Final = "wait.approval"


class Permissions(IoProvider):
    """The part of a live `io` that asks for the permission of calls."""

    async def _permitted(self, call: Call, controls: Controls) -> Call | FactError:
        """Return a call that may be made, with what allowed it, or the outcome of one that may not."""
        verdict = controls.verdict(call, self._scope)
        try:
            if verdict.verdict == ASK:
                verdict = await self._decided(call, verdict)
            elif verdict.verdict == DENY:
                raise denied(verdict, f"a call of {call.namespace}")
            controls.check(call, self._scope)
        except OtherIoError as exc:
            return FactError(exc.kind, describe(exc, hint=False))
        if verdict.rule is None:
            return call
        return attrs.evolve(call, said={**call.said, POLICY: f"{verdict.verdict} {verdict.rule}"})

    async def _decided(self, call: Call, verdict: Verdict) -> Verdict:
        """Return the verdict of a rule that asks, once a person has approved. Raises `OtherIoError` otherwise."""
        what = f"a call of {call.namespace}"
        try:
            self._check_place()
        except StateError as exc:
            raise denied(verdict, f"{what}, where nobody can be waited for: {exc.message}") from None
        if call.key not in self._handing.in_flight:
            text = f"{what} on the thread of the event loop, which cannot wait for the answer"
            raise denied(verdict, text)
        answer = await self._asked_person(call, verdict.rule or "")
        if not answer["approved"]:
            by = f" by {answer['by']}" if answer.get("by") else ""
            raise denied(verdict, f"{what}, which was rejected{by}", by=answer.get("by"))
        return verdict

    async def _asked_person(self, call: Call, rule: str) -> Mapping[str, Any]:
        """Return the answer to the approval that a rule asks for, which the run waits for."""
        wait = self._identify(
            APPROVAL,
            question(rule, call.namespace, call.request),
            ask_key(rule, self._scope.state.id, call.digest),
        )
        wait = attrs.evolve(wait, said={ASKED_FOR: call.key})
        with self._handing.waiting(call):
            answer: Mapping[str, Any] = self._result(await self._fact_of_wait(wait)).response
        return answer
