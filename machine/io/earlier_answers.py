"""Answers of earlier attempts of a state to the calls of this one; secrets in the requests are compared too."""

from __future__ import annotations

from machine.errors import Code, OtherIoError, StateError
from machine.events import FactRecorded
from machine.io.attempt_scope import AttemptScope
from machine.io.call_identity import Call
from machine.io.call_refusals import ambiguous, differs_in_ignored, lost_answer
from machine.kernel.facts_with_ignored_parts import token_of
from machine.kernel.reuse import answers, sent_alike


def earlier_answer(
    scope: AttemptScope, call: Call, *, recorded: bool = False
) -> FactRecorded | OtherIoError | None:
    """Return an earlier attempt's answer to a call, or the error of an effect that must not be repeated.

    Return None when the call is to be made. In a replay the call is `recorded`: its ignored parts are not those of
    the recording, so nothing depends on them.
    """
    history = scope.log.history
    if call.place is not None:
        return scope.databases.answer(scope, call.place, call.digest, call.mac)
    if call.namespace == "http" and not recorded and _differs_in_ignored(scope, call):
        return differs_in_ignored(call) if call.effect else None
    earlier = answers(history, scope.state.id, call.namespace, call.digest, keeps_all=call.keeps_all)
    occurrence = int(call.key.rpartition("/")[2])
    if call.mac is not None:
        occurrence, others = scope.counts.count_sent(call.namespace, call.digest, call.mac)
        alike = sent_alike(history, earlier, call.mac, effect=call.effect)
        if call.effect and (others or (earlier and not alike)):
            return ambiguous(call)
        if (
            occurrence < len(alike) < len(earlier)
        ):  # a replay without the key cannot determine the chosen fact
            scope.secrets.reused[call.key] = alike[occurrence].key
        earlier = alike
    lost = history.sealed.lost
    if occurrence < len(earlier) and earlier[occurrence].key not in lost:
        return earlier[occurrence]
    # only effects whose answer is lost: a failed one may be retried
    return lost_answer(call) if call.effect and any(fact.key in lost for fact in earlier) else None


def _differs_in_ignored(scope: AttemptScope, call: Call) -> bool:
    """Say whether nobody can tell which call of an earlier attempt a call is, or of this one, if it is an effect.

    One that failed does not count as an effect: a client may try again, and changes what is ignored.
    """
    history, asked = scope.log.history, (scope.state.id, call.namespace, call.digest)
    others = scope.counts.ignored_before(call.namespace, call.digest, call.key, token_of(call.ignored))
    if not call.effect:
        return any(True for _ in others) or history.ignored.tells_apart(
            asked, history.successes.get(asked, ()), effect=False
        )
    made = (
        history.facts.get(key) for key in others
    )  # of one that was reused, or is in flight, there is none here
    return any(fact is None or fact.outcome.final for fact in made) or history.ignored.tells_apart(
        asked, history.successes.get(asked, ()), effect=True
    )


def named_answer(scope: AttemptScope, call: Call) -> FactRecorded | OtherIoError | None:
    """Return the fact under the explicit key of a call, or the error of an effect that must not be repeated.

    Return None when the call is to be made.
    """
    history = scope.log.history
    fact, own = history.facts.get(call.key), (scope.state.id, scope.attempt)
    if fact is None:
        return None
    final, here = fact.outcome.final, (fact.state_id, fact.attempt) == own
    lost = call.key in history.sealed.lost
    if (final and lost) or (not final and (fact.may_repeat or not here)):
        return lost_answer(call) if lost and call.effect else None
    if (fact.namespace, fact.request_digest) != (call.namespace, call.digest):
        raise StateError(
            f"the fact {call.key!r} was recorded for another request",
            code=Code.FACT_KEY_CONFLICT,
            details={"key": call.key, "recorded": fact.request_digest, "now": call.digest},
            hint="a fact key names one request in a run",
        )
    return fact
