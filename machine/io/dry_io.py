"""The IO of a dry run: reads are made and recorded, effects are answered by previewed outcomes and not made.

The outcome of an effect is that of its state's `preview`, else that of the same effect in an earlier run, else one
that stands for what is known after apply. It is recorded like any outcome, so that a replay needs none of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from machine import canonical
from machine.errors import Code, OtherIoError
from machine.events import ArtifactKind, FactOutcome, FactRecorded, FactValue
from machine.io.attempt_scope import AttemptScope, Payloads
from machine.io.call_identity import Call
from machine.io.call_refusals import no_transport
from machine.io.clock import SLEEP
from machine.io.effect_resolution import add_answer, response_of
from machine.io.files import OPEN
from machine.io.fork_io import Past
from machine.io.live_io import LiveIo
from machine.io.policy_verdicts import denied
from machine.kernel.known_after_apply import DryContext, mark_of
from machine.kernel.sealed_facts import SECRET_PAYLOAD
from machine.kernel.transactions import SQL
from machine.policy import DENY
from machine.secrets.secret_value import SECRET

PREVIEWED: Final = "previewed"
"""Name in the info of a fact for the source of its outcome, if the call was not made: one of those below."""

BY_STATE: Final = "state"
BY_RUN: Final = "run"
KNOWN_LATER: Final = "known after apply"
ROLLED_BACK: Final = "rolled back"
"""The source of the outcome of a COMMIT: its statements were made, and undone."""

_READS: Final = frozenset({"http", "file.read", OPEN, "clock.now", "random.bytes", "env", SECRET, SLEEP})

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110 section 9.2.1


def is_safe(call: Call) -> bool:
    """Say whether a call is known by its standard to have no effect."""
    request: Any = call.request
    return (
        not call.effect
        and call.namespace in _READS
        and (call.namespace != "http" or str(request.get("method")).upper() in _SAFE_METHODS)
    )


class DryIo(LiveIo):
    """The `io` of a dry run. `past` has the answers of an earlier run."""

    def __init__(self, scope: AttemptScope, past: Past) -> None:
        super().__init__(scope)
        self._past = past

    async def _obtain(self, call: Call) -> FactRecorded:
        if not self._applies or call.continues:
            return await super()._obtain(call)
        if self._scope.transport(call.namespace) is None:
            raise no_transport(call)
        if call.namespace == SLEEP:  # the rest does not depend on having waited
            return await self._previewed(call, _value(Payloads(), None), BY_STATE)
        if (call.namespace == SQL and not call.effect) or is_safe(call):
            return await super()._obtain(call)
        if call.namespace == SQL and call.request.get("op") == "commit":
            return await self._rolled_back(call)
        controls = self._scope.run.controls
        verdict = None if controls is None else controls.verdict(call, self._scope)
        if verdict is not None and verdict.verdict == DENY:  # one that asks is asked when it is applied
            return await self._refused_to_repeat(call, denied(verdict, f"a call of {call.namespace}"))
        return await self._by_state(call) or await self._by_run(call) or await self._known_later(call)

    async def _rolled_back(self, call: Call) -> FactRecorded:
        """Record the outcome of a COMMIT in whose place the transaction is rolled back."""
        transport, payloads = self._scope.transport(call.namespace), call.payloads()
        assert transport is not None
        outcome, info = await self._perform(transport, call, payloads)
        return await self._previewed(call, (payloads, outcome), ROLLED_BACK, info)

    async def _by_state(self, call: Call) -> FactRecorded | None:
        """Record the outcome that the state's `preview` gives, None if it gives none."""
        scope, response = self._scope, self._scope.state.meta.preview
        if response is None:
            return None
        try:
            if callable(response):
                assert isinstance(scope.context, DryContext)
                response = scope.context.preview(canonical.decode(call.data))
            if response is NotImplemented:
                return None
            data = response_of(call.namespace, call.request, response)
            answer = scope.secrets.answer(self._draft(call), call.request, canonical.decode(data))
        except Exception as exc:  # noqa: BLE001 - a function of the user's may raise anything
            problem = scope.secrets.text(f"{type(exc).__qualname__}: {exc}")
            refusal = OtherIoError(
                f"the preview of {scope.state.id} gives no outcome of its call of {call.namespace}: {problem}",
                code=Code.INVALID_PREVIEW,
            )
            return await self._refused_to_repeat(call, refusal)
        payloads = Payloads()
        found = payloads, FactValue(add_answer(payloads, answer))
        return await self._previewed(call, found, BY_STATE, answer.info)

    async def _by_run(self, call: Call) -> FactRecorded | None:
        """Record the outcome of the same effect in the earlier run, None if it has none."""
        if call.place is not None:
            return None
        found = self._past.answer(call, self._scope.state.id, keeps_all=call.keeps_all, alike=0)
        if found is None or self._past.parts(*found):
            return None
        seq, fact = found
        sealed = self._past.sealed(seq)
        if sealed is not None and self._scope.secrets.run.opens(sealed[1], fact) is None:
            return None
        info = {} if sealed is None else {SECRET_PAYLOAD: sealed[0]}
        return await self._previewed(call, (Payloads(), fact.outcome), BY_RUN, info)

    async def _known_later(self, call: Call) -> FactRecorded:
        return await self._previewed(call, _value(Payloads(), mark_of(self._scope.state.id)), KNOWN_LATER)

    async def _previewed(
        self,
        call: Call,
        found: tuple[Payloads, FactOutcome],
        source: str,
        info: Mapping[str, str] = MappingProxyType({}),
    ) -> FactRecorded:
        """Record an outcome for a call that is not made; an effect with its intent, which shows it."""
        payloads, outcome = found
        payloads.items.update(call.payloads().items)
        fact = self._fact_of(call, outcome)
        intents = [self._intent_of(call)] if call.effect else []
        more = self._info(call, fact, payloads, {**info, PREVIEWED: source})
        await self._scope.log.emit([*intents, fact], payloads, more)
        return fact


def _value(payloads: Payloads, value: Any) -> tuple[Payloads, FactOutcome]:
    return payloads, FactValue(payloads.add(ArtifactKind.FACT_PAYLOAD, canonical.encode(value)))
