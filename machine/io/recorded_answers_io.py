"""The IO of a run whose calls are answered from another recording; what that does not answer is made or refused.

Each answer becomes a fact of the run itself. In a run that may not go outside, a call without an answer is refused
with `missing_fact`, and secrets that cannot be opened are placeholders, as in a replay.
"""

from __future__ import annotations

from typing import Final, Protocol

import anyio
import attrs

from machine.errors import Code, MissingFactError
from machine.events import FactError, FactRecorded
from machine.exception_to_error_info import describe
from machine.io.attempt_scope import AttemptScope, Payloads
from machine.io.call_identity import Call
from machine.io.fork_io import Past, SharedIo
from machine.io.request_identity import RequestRules
from machine.io.transport import AbsentTransport
from machine.io.waits import cancelled
from machine.secrets.stored_call import Asked

ANSWERED_BY: Final = "answered_by"
"""Name in a fact's info under which the seq of the recorded fact that answered its call is noted."""

_GIVEN_UP_SECONDS: Final = 10.0
"""Seconds for a handler to give up a call that the recorded one gave up."""


class Answers(Past, Protocol):
    """The facts of a recording, as far as `io` needs them."""

    shut: bool
    kept: bool
    run_id: str

    def given_up(self, call: Call, state_id: str) -> bool:
        """Say whether the recorded handler gave up a call, so that it has no answer."""
        ...

    def has_placeholder(self, fact: FactRecorded) -> bool:
        """Say whether an answer has the placeholder of a secret."""
        ...

    def asked_in(self, state_id: str, namespace: str) -> int:
        """Return how many calls of a namespace a state made in the recording."""
        ...


class RecordedAnswersIo(SharedIo):
    """The `io` of a run with recorded answers."""

    def __init__(self, scope: AttemptScope, past: Answers) -> None:
        super().__init__(scope, past)
        self._answers = past
        self.performs = not past.shut

    def _asked(self, namespace: str, request: object, raw: bytes, rules: RequestRules) -> Asked:
        asked = super()._asked(namespace, request, raw, rules)
        if self._answers.shut and asked.refusal and asked.refusal.code == Code.SECRET_UNAVAILABLE:
            return attrs.evolve(asked, refusal=None)  # it has the placeholder of a secret and is not sent
        return asked

    def _is_effect(self, namespace: str, request: object, key: str) -> bool:
        if isinstance(self._scope.transport(namespace), AbsentTransport):
            return self._answers.was_effect(key)
        return super()._is_effect(namespace, request, key)

    def _opens(self, seq: int, shared: FactRecorded) -> bool:
        if self._answers.shut:
            return True
        if self._past.sealed(seq) is None:  # a bundle that people review has no seals
            return not self._answers.has_placeholder(shared)
        return super()._opens(seq, shared)

    def _sealed_info(self, seq: int) -> dict[str, str]:
        info = super()._sealed_info(seq)
        return {**info, ANSWERED_BY: str(seq)} if self._answers.kept else info

    async def _obtain(self, call: Call) -> FactRecorded:
        if call.continues:
            return await super()._obtain(call)
        if (fact := await self._shared(call)) is not None:
            return fact
        if not call.effect and self._answers.given_up(call, self._scope.state.id):
            await self._be_given_up(call)
        if self._answers.shut:
            return await self._settled(call, self._missing(call))
        return await super(SharedIo, self)._obtain(call)

    async def _answer(self, call: Call) -> FactRecorded:
        if self._answers.shut and not self._is_begun(call) and self._past.wait_answer(call) is None:
            if self._answers.given_up(call, self._scope.state.id):
                await self._scope.log.emit([self._begun(call)], call.payloads(), call.said)
                await self._be_given_up(call)
                return await self._emit(call, self._missing(call), Payloads())
            return await self._answered_at_once(call, self._missing(call))
        return await super()._answer(call)

    async def _be_given_up(self, call: Call) -> None:
        """Wait for the handler to give up a call, as the recorded one did. Return if it does not."""
        try:
            with anyio.move_on_after(_GIVEN_UP_SECONDS):
                await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            if not self._scope.cut:
                await self._emit(call, cancelled(call), call.payloads())
            raise

    def _missing(self, call: Call) -> FactError:
        state_id, answers = self._scope.state.id, self._answers
        others = answers.asked_in(state_id, call.namespace)
        known = (
            f"{others} other call{'s' if others != 1 else ''} of {call.namespace} there"
            if others
            else "none there"
        )
        exc = MissingFactError(
            f"{state_id} makes a call of {call.namespace} that run {answers.run_id} has no answer to, and nothing "
            f"may go outside; it has {known}",
            retryable=self._scope.run.config.replay_missing_fact_retryable,
            details={"state_id": state_id, "namespace": call.namespace, "request": call.digest},
        )
        return FactError(exc.kind, describe(exc, hint=False))
