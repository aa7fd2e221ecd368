"""The connections that one attempt has opened to databases, and what became of their transactions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, Protocol

import attrs

from machine import canonical
from machine.errors import Code, StateError
from machine.events import EffectIntended, FactRecorded
from machine.io.transaction_answers import Place, TransactionAnswers, told_apart
from machine.kernel.history import History
from machine.kernel.reuse import attempts_before
from machine.kernel.transactions import EFFECT_KEY, SQL, Unit
from machine.state import PlanState


class Scope(Protocol):
    """The attempt, as far as its databases need it."""

    state: PlanState
    attempt: int

    @property
    def log(self) -> Any:
        """The destination of the events of the run."""
        ...

    @property
    def keeps_all(self) -> bool:
        """True when the state reuses every success of its earlier attempts."""
        ...


class Session(Protocol):
    """A connection of a handler."""

    database: str

    @property
    def in_transaction(self) -> bool:
        """True while a transaction is open, whether or not it has written anything."""
        ...

    @property
    def left_open(self) -> bool:
        """True while a transaction is open that has written something."""
        ...

    def abandon(self) -> None:
        """Close the real connection, which undoes what is open. It must not raise."""
        ...


@attrs.define
class Databases:
    """The connections of one attempt, and the earlier transactions that answer its own."""

    sessions: list[Session] = attrs.field(factory=list)
    answers: TransactionAnswers = attrs.field(factory=TransactionAnswers)
    """The transactions of earlier attempts that have answered."""
    shared: TransactionAnswers = attrs.field(factory=TransactionAnswers)
    """The same in the shared past of a fork."""
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def add(self, session: Session) -> int:
        """Add a connection and return its number, from 0."""
        with self._lock:
            self.sessions.append(session)
            return len(self.sessions) - 1

    def answer(self, scope: Scope, place: Place, digest: str, mac: str | None) -> FactRecorded | None:
        """Return the fact of an earlier attempt that answers a call of a transaction, or None.

        `digest` is of its request, `mac` the keyed hash of the one that is sent if that holds a secret.
        """
        fact = self.answers.answer(self._earlier(scope), place, digest)
        return None if fact is None or told_apart(scope.log.history, fact, mac) else fact

    def _earlier(self, scope: Scope) -> Iterator[Unit]:
        history: History = scope.log.history
        within = attempts_before(history, scope.state.id, keeps_all=scope.keeps_all)
        return history.transactions.of(scope.state.id, within)

    def may_go_live(self, unit: str) -> bool:
        """Say whether a transaction that was answered from the recording so far may go on in the database.

        One of which a committed one has answered the beginning may not: its writes would be made twice.
        """
        found = self.answers.of(unit) or self.shared.of(unit)
        return found is not None and not found.wrote

    def made_already(self, scope: Scope, unit: str) -> bool:
        """Say whether an earlier attempt has committed what a transaction has done, without having answered it."""
        own = scope.log.history.transactions.units.get((scope.state.id, scope.attempt, unit))
        digests = [fact.request_digest for fact in own.facts] if own is not None else []
        return self.answers.has_committed(self._earlier(scope), digests)

    def key_of(self, scope: Scope, unit: str) -> str:
        """Return the key that an effect leaves in its database: no other effect of any run ever has it."""
        history = scope.log.history
        return f"{history.run_id}@{history.started_ms}/{scope.state.id}/{scope.attempt}/{unit}"

    def info(self, scope: Scope, place: Place) -> dict[str, str]:
        """Return the info of the fact or the intent of a call at a place of a transaction."""
        return {**place.info(), **({EFFECT_KEY: self.key_of(scope, place.unit)} if place.keyed else {})}

    def uncertain(self, scope: Scope, database: str) -> list[tuple[EffectIntended, str]]:
        """Return the effects of the state on a database whose outcome is unknown, each with the key it left."""
        keys = scope.log.history.transactions.effect_keys
        return [
            (intent, keys.get(intent.key, ""))
            for intent in scope.log.history.uncertain_of(scope.state.id)
            if intent.namespace == SQL
            and intent.attempt != scope.attempt
            and canonical.decode(scope.log.load(intent.request_digest)).get("database") == database
        ]

    def in_transaction(self) -> list[str]:
        """Return the databases with an open transaction."""
        return [session.database for session in self.sessions if session.in_transaction]

    def refuse_left_open(self, scope: Scope) -> None:
        """Raise `StateError` (`transaction_left_open`) if the handler returned before it ended a transaction."""
        names = [session.database for session in self.sessions if session.left_open]
        if names:
            raise StateError(
                f"the handler of {scope.state.id} returned and left a transaction open that has written to "
                f"{', '.join(names)}; it was rolled back",
                code=Code.TRANSACTION_LEFT_OPEN,
                hint="commit it, or leave the connection by its context manager",
            )

    def abandon(self) -> None:
        """Close what the handler left open."""
        for session in self.sessions:
            session.abandon()
