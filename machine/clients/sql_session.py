"""One connection of a handler to a database, whichever library opened it: its calls, and its transaction.

The real connection is opened when a call first has to be sent. Until then, and in a replay always, the answers come
from the recording. What is done is written as generators, because some libraries block and others await: each
yields `Sent` for a call of `io`, and in the sending of one, `Live` for what the library does with the connection.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator
from typing import Any, Final, TypeAlias

import attrs

from machine.clients.sql_errors import said_by, uncertain_commit
from machine.clients.sql_text import Kind, Statement
from machine.config import IoMode
from machine.errors import Code, IoError, OtherIoError, StateError
from machine.events import EffectIntended
from machine.io.call_refusals import undeclared
from machine.io.transaction_answers import Place
from machine.kernel.transactions import COMMITTED, READ_ONLY, SQL
from machine.watch.code_owner import CALLER

STILL_OPEN: Final = "still_open"
"""Detail of the error of a COMMIT that failed and left its transaction open."""


@attrs.frozen
class Live:
    """Something the library does with its own connection: `open`, `perform` a request, or `undo` what is open."""

    what: str
    request: Any = None


Sending: TypeAlias = Generator[Live, Any, Any]


@attrs.frozen
class Sent:
    """One call of `io`: its request, the generator that sends it, and its place in a transaction."""

    request: dict[str, Any]
    send: Callable[[Any], Sending]
    place: Place | None = None


@attrs.frozen
class Asked:
    """A question to the table of effects, about an effect that a crash may have hidden."""

    intent: EffectIntended
    send: Callable[[], Sending]


Calls: TypeAlias = Generator[Sent | Asked, Any, Any]


@attrs.define(eq=False)
class Transaction:
    """The transaction that is open on a connection, or the effect of one statement, which is a unit of its own."""

    name: str
    savepoint: str = ""
    """The savepoint that began it, whose release ends it."""
    calls: int = 0
    wrote: bool = False
    live: bool = False
    """True once the real connection has it open."""
    answered: list[tuple[dict[str, Any], Any]] = attrs.field(factory=list)
    """The calls that an earlier attempt has answered, with their responses."""


class SqlSession:
    """The session of one connection. `database` is its name in requests, `number` that among the attempt's.

    `private` is true of a database that no other process can see: nothing that is done there is an effect, and
    nothing is reused.
    """

    def __init__(self, io: Any, database: str, *, private: bool = False) -> None:
        self.io = io
        self.scope = io.scope
        self.database = database
        self.private = private
        self.number = self.scope.databases.add(self)
        self.transaction: Transaction | None = None
        self.opened = False
        """True while the real connection is open."""
        self.closed = False
        self.kept: Any = None
        """The response of the connection's opening."""
        self.let_go: Callable[[], object] = lambda: None
        """The function that closes the real connection, at once and in any thread."""
        self._units = 0
        self._again: list[dict[str, Any]] = []
        """Statements that changed the session and were answered by an earlier attempt."""

    @property
    def applies(self) -> bool:
        """True when the state of the handler may change the outside world."""
        meta = self.scope.state.meta
        return str(meta.side_effects) == "apply_side_effect" and not self.scope.reads_only

    @property
    def read_only(self) -> bool:
        """True when the server itself must refuse to change anything."""
        return not self.applies and not self.private

    @property
    def dry(self) -> bool:
        """True in a dry run, which rolls back what it would commit."""
        return bool(self.scope.run.config.io_mode is IoMode.DRY_RUN)

    # -- calls ---------------------------------------------------------------------------------------------------

    def connect(self) -> Calls:
        """Open the connection, and find out what became of the uncertain effects on its database."""
        response = yield Sent(self._request("connect"), self._send_connect)
        self.kept = response
        if self.applies and not self.private:
            for intent, key in self.scope.databases.uncertain(self.scope, self.database):
                yield Asked(intent, functools.partial(self._send_look_up, key))
        return response

    def statement(
        self,
        request: dict[str, Any],
        kind: Statement,
        *,
        begins: bool,
        functions: bool = False,
        savepoint: str = "",
    ) -> Calls:
        """Execute a statement and return its response. `begins` says that a transaction begins with it.

        With `functions`, one of which nothing is known may change the database.
        """
        if kind.kind is Kind.WRITE:
            self.refuse_write()
        may = kind.kind is Kind.WRITE or (functions and kind.kind is Kind.MAYBE)
        wrote = may and self.applies and not self.private
        if self.transaction is None and not begins:
            return (yield from self._alone(request, kind, wrote=wrote))
        if self.transaction is None:
            self.transaction = self._unit()
            self.transaction.savepoint = savepoint
        transaction = self.transaction
        transaction.wrote = transaction.wrote or wrote
        full = self._request(request.pop("op", "execute"), **request)
        answered = len(transaction.answered)
        response = yield from self._within(
            transaction, full, lambda sent: self._send_within(transaction, sent)
        )
        if kind.kind is Kind.SESSION and len(transaction.answered) > answered:
            self._again.append({name: value for name, value in full.items() if name != "begin"})
        return response

    def end(self, op: str, *, sql: str = "") -> Calls:
        """End the open transaction by `commit` or `rollback`, in the words of `sql` if it is given."""
        transaction = self.transaction
        if transaction is None:
            return None
        if not transaction.calls:
            self.transaction = None
            return None
        request = self._request(op, **({"sql": sql} if sql else {}))
        ends = ""
        if not self.private:
            if transaction.wrote and op == "commit":
                request["effect"], ends = True, COMMITTED
            elif not transaction.wrote:
                ends = READ_ONLY

        def send(sent: Any) -> Sending:
            return self._send_end(transaction, sent)

        try:
            response = yield from self._within(transaction, request, send, ends)
        except IoError as exc:
            if not (exc.info.details or {}).get(STILL_OPEN):
                self.transaction = None
            raise
        self.transaction = None
        return response

    def begin(self) -> None:
        """Note that a transaction has begun; the real connection hears of it with the first statement."""
        self.transaction = self._unit()

    def refuse_write(self) -> None:
        """Raise the refusal of a statement that changes the database, if the state has declared no effects."""
        if self.read_only:
            raise undeclared(self.scope, SQL)

    @property
    def in_transaction(self) -> bool:
        """True while there is something open that no other connection sees."""
        return not self.closed and (self.private or self.transaction is not None)

    @property
    def left_open(self) -> bool:
        """True while a transaction is open that has written something."""
        return not self.private and self.transaction is not None and self.transaction.wrote

    def abandon(self) -> None:
        """Close the real connection, which undoes what is open."""
        self.closed, self.opened = True, False
        with contextlib.suppress(Exception):  # the server may have closed it before
            self.let_go()

    def belongs_here(self) -> bool:
        """Say whether the code that runs is of the attempt that opened the connection."""
        return CALLER.get() is self.io

    def answered(self, response: Any) -> Any:
        """Return a response as it is recorded: that of a private database holds for its attempt alone."""
        return {**response, "again": True} if self.private and isinstance(response, dict) else response

    def check_open(self) -> None:
        """Raise `StateError` (`attempt_closed`) if the attempt that opened the connection has ended."""
        if self.scope.closed or self.scope.ending:
            raise StateError(
                f"a connection to {self.database} was opened by attempt {self.scope.attempt} of "
                f"{self.scope.state.id}, which has ended",
                code=Code.ATTEMPT_CLOSED,
                hint="open a connection in the handler that uses it; a pool is asked for a new one in each attempt",
            )

    def _request(self, op: str, **parts: Any) -> dict[str, Any]:
        request = {"database": self.database, "op": op, **parts}
        return {**request, "private": True} if self.private else request

    def _unit(self) -> Transaction:
        self._units += 1
        return Transaction(f"{self.number}.{self._units}")

    def _alone(self, request: dict[str, Any], kind: Statement, *, wrote: bool) -> Calls:
        full = self._request(request.pop("op", "execute"), **request)
        sent: list[bool] = []
        if not wrote:

            def send_plain(asked: Any) -> Sending:
                sent.append(True)
                yield from self._ready()
                return (yield Live("perform", asked))

            response = yield Sent(full, send_plain)
            if kind.kind is Kind.SESSION and not sent:
                self._again.append(full)
            return response
        unit = self._unit()
        unit.wrote = True
        full["effect"] = True
        place = Place(unit.name, 0, COMMITTED, keyed=kind.atomic)

        def send(asked: Any) -> Sending:
            return self._send_effect(unit, asked, keyed=kind.atomic)

        return (yield Sent(full, send, place))

    def _within(
        self,
        transaction: Transaction,
        request: dict[str, Any],
        send: Callable[[Any], Sending],
        ends: str = "",
    ) -> Calls:
        """Make a call in a transaction, and note whether an earlier attempt has answered it."""
        place = None
        if not self.private:
            place = Place(transaction.name, transaction.calls, ends, keyed=ends == COMMITTED)
        transaction.calls += 1
        sent: list[bool] = []

        def sending(asked: Any) -> Sending:
            sent.append(True)
            return send(asked)

        response = yield Sent(request, sending, place)
        if not sent:
            transaction.answered.append((request, response))
        return response

    # -- sending -------------------------------------------------------------------------------------------------

    def _send_connect(self, request: Any) -> Sending:
        del request
        return (yield from self._open())

    def _open(self) -> Sending:
        kept = yield Live("open", {"read_only": self.read_only, "kept": self.kept is None})
        self.opened = True
        if self.applies and not (self.private or self.dry):
            yield Live("perform", {"op": "effects_table"})
        return kept

    def _ready(self) -> Sending:
        """Open the real connection if it is not, in the session that the recorded one had."""
        if not self.opened:
            yield from self._open()
        again, self._again = self._again, []
        for request in again:
            yield Live("perform", request)

    def _send_within(self, transaction: Transaction, request: Any) -> Sending:
        yield from self._ready()
        yield from self._catch_up(transaction)
        return (yield Live("perform", request))

    def _catch_up(self, transaction: Transaction) -> Sending:
        """Make the calls of a transaction that an earlier attempt answered, before one that it does not."""
        if transaction.live:
            return
        if transaction.answered and not self.scope.databases.may_go_live(transaction.name):
            raise self._changed(transaction)
        transaction.live = True
        for request, response in transaction.answered:
            if (yield Live("perform", request)) != response:
                raise self._changed(transaction)

    def _send_end(self, transaction: Transaction, request: Any) -> Sending:
        if not transaction.live:
            if request["op"] == "rollback":
                return (yield Live("ended", request))
            yield from self._ready()
            yield from self._catch_up(transaction)
        effect = bool(request.get("effect"))
        if effect and self.dry:
            yield Live("undo")
            return (yield Live("ended", request))
        if effect:
            if self.scope.databases.made_already(self.scope, transaction.name):
                yield Live("undo")
                raise self._changed(transaction)
            yield Live("perform", {"op": "note_effect", "key": self.effect_key(transaction.name)})
        return (yield from self._finally(request, transaction.name if effect else ""))

    def _finally(self, request: Any, unit: str) -> Sending:
        """Perform a request; if the connection broke meanwhile, find out whether it was an effect that happened."""
        try:
            return (yield Live("perform", request))
        except OtherIoError as exc:
            if not unit or not (said_by(exc) or {}).get("broken"):
                raise
            said = None
            with contextlib.suppress(OtherIoError):
                said = yield from self._send_look_up(self.effect_key(unit))
            if said is None or not said["known"]:
                raise uncertain_commit(self.database) from exc
            if not said["done"]:
                raise
            return said["response"]

    def _send_effect(self, unit: Transaction, request: Any, *, keyed: bool) -> Sending:
        yield from self._ready()
        key = {"key": self.effect_key(unit.name)} if keyed else {}
        return (yield from self._finally({**request, **key}, unit.name))

    def _send_look_up(self, key: str) -> Sending:
        yield from self._ready()
        return (yield Live("perform", {"op": "look_up", "key": key}))

    def effect_key(self, unit: str) -> str:
        """Return the key that an effect leaves in the table of effects."""
        key: str = self.scope.databases.key_of(self.scope, unit)
        return key

    def _changed(self, transaction: Transaction) -> OtherIoError:
        return OtherIoError(
            f"a transaction of {self.scope.state.id} on {self.database} differs from the one that an earlier "
            "attempt made in its place, so neither can be used",
            code=Code.TRANSACTION_CHANGED,
            details={"transaction": transaction.name},
            hint="let the statements of a handler depend on nothing but what io and the database answer, and make "
            "transactions that run concurrently begin with different statements",
        )
