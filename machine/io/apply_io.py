"""The IO of a run that applies a dry run: what that has read is not read again, and effects are those it has shown.

An effect that it has not shown, or not as the next one of its state, is not made before a person approves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from machine import canonical
from machine.errors import Code, OtherIoError, StateError
from machine.events import FactRecorded
from machine.io.approval_before_call import approval_of
from machine.io.attempt_scope import AttemptScope
from machine.io.call_identity import Call
from machine.io.recorded_answers_io import Answers, RecordedAnswersIo

_Asked = tuple[str, str]
"""A namespace and the digest of a request."""


class Shown(Answers, Protocol):
    """The facts of a dry run, as far as `io` needs them."""

    @property
    def shown(self) -> Mapping[str, Sequence[FactRecorded]]:
        """The effects that a dry run has shown, by state, in their order."""
        ...

    def request_of(self, fact: FactRecorded) -> Any:
        """Return the recorded request of a fact."""
        ...

    def statements_before(self, fact: FactRecorded) -> Sequence[str]:
        """Return the digests of the requests of the transaction that a fact ended, but for that end."""
        ...


class ApplyIo(RecordedAnswersIo):
    """The `io` of a run that applies a dry run."""

    def __init__(self, scope: AttemptScope, past: Shown) -> None:
        super().__init__(scope, past)
        self._dry_run = past
        self._let_out: dict[_Asked, int] = {}
        """The shown effects that this attempt or an earlier one has begun, by their requests."""

    async def _cleared(self, call: Call) -> OtherIoError | None:
        if not call.effect:
            return None
        due = self._next(call)
        if (
            due is None
            or _asked(due) != (call.namespace, call.digest)
            or not self._same_statements(call, due)
        ):
            return await self._asked_before(call, due)
        self._let_out[_asked(due)] += 1
        return None

    def _same_statements(self, call: Call, shown: FactRecorded) -> bool:
        """Say whether the transaction that a call commits has the statements that were shown; True of another."""
        if call.place is None:
            return True
        scope = self._scope
        own = scope.log.history.transactions.units.get((scope.state.id, scope.attempt, call.place.unit))
        made = [] if own is None else [fact.request_digest for fact in own.facts]
        return made == self._dry_run.statements_before(shown)

    def _next(self, call: Call) -> FactRecorded | None:
        """Return the shown effect that is due: the one that a call is, if it may be, else the first one left."""
        asked = call.namespace, call.digest
        shown = self._dry_run.shown.get(self._scope.state.id, ())
        covered = Counter({each: self._count_let_out(each) for each in {_asked(fact) for fact in shown}})
        again = covered[asked] - self._in_flight(asked) > self._made(asked)  # the last one had no outcome
        left: list[FactRecorded] = []
        for fact in shown:
            if again and _asked(fact) == asked:
                self._let_out[asked] -= 1
                return fact
            if covered[_asked(fact)] > 0:
                covered[_asked(fact)] -= 1
            else:
                left.append(fact)
        if not self._scope.barrier.alone:  # of concurrent tasks, any may be first
            return next((fact for fact in left if _asked(fact) == asked), left[0] if left else None)
        return left[0] if left else None

    def _count_let_out(self, asked: _Asked) -> int:
        return self._let_out.setdefault(asked, self._made(asked))

    def _made(self, asked: _Asked) -> int:
        """Return how many effects with a request the state has made."""
        return len(self._scope.log.history.successes.get((self._scope.state.id, *asked), ()))

    def _in_flight(self, asked: _Asked) -> int:
        flights = self._handing.in_flight.values()
        return sum((flight.call.namespace, flight.call.digest) == asked for flight in flights)

    async def _asked_before(self, call: Call, shown: FactRecorded | None) -> OtherIoError | None:
        """Ask a person about an effect that differs from what was shown; return the refusal, None if approved."""
        scope, dry_run = self._scope, self._dry_run
        try:
            self._check_place()
        except StateError as exc:
            return _rejected(call, f"{exc.message}, and nobody can be asked here", dry_run.run_id)
        data = {
            "dry_run": dry_run.run_id,
            "effect": _side(call.namespace, canonical.decode(call.data)),
            "shown": None if shown is None else _side(shown.namespace, dry_run.request_of(shown)),
        }
        what = "differs from the one shown" if shown is not None else "was not shown"
        prompt = f"{scope.state.id}: make an effect ({call.namespace}) that {what} by the dry run {dry_run.run_id}?"
        wait = approval_of(call, scope.state.id, {"prompt": prompt, "data": data})
        answer = self._result(await self.waiter._fact_of_wait(wait)).response  # noqa: SLF001 - a part of this object
        if answer["approved"]:
            return None
        by = f" by {answer['by']}" if answer.get("by") else ""
        comment = f": {answer['comment']}" if answer.get("comment") else ""
        return _rejected(call, f"it was rejected{by}{comment}", dry_run.run_id)


def _asked(fact: FactRecorded) -> _Asked:
    return fact.namespace, fact.request_digest


def _side(namespace: str, request: Any) -> dict[str, Any]:
    return {"namespace": namespace, "request": request}


def _rejected(call: Call, why: str, run_id: str) -> OtherIoError:
    return OtherIoError(
        f"an effect ({call.namespace}) that the dry run {run_id} has not shown was not made: {why}",
        code=Code.EFFECT_REJECTED,
        details={"dry_run": run_id, "namespace": call.namespace, "request": call.digest},
    )
