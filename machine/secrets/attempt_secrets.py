"""The secrets of one attempt: its requests and answers as they are stored, sent and handed out."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from machine import canonical
from machine.errors import Code, ContextError, ErrorInfo, OtherIoError, StateError
from machine.events import FactRecorded
from machine.secrets import placeholder
from machine.secrets.fact_seals import ASKED, Seals, hashed, payload_id, seal_beside
from machine.secrets.known_value_order import KnownInTurn
from machine.secrets.known_values import Known
from machine.secrets.multipart import stored_boundary
from machine.secrets.names import Strength
from machine.secrets.placeholder_names import AnswerNames
from machine.secrets.policy import path_text
from machine.secrets.redact import redact, say, say_json, say_text
from machine.secrets.refused_bytes import secret_in_bytes
from machine.secrets.reserved_store_key import RUN, RUNS, key_inside
from machine.secrets.restore import opened, shown
from machine.secrets.run_secrets import SharedSecrets
from machine.secrets.secret_value import SECRET
from machine.secrets.stand_ins import StandIns, put_in, refuse_revealing
from machine.secrets.stored_call import (
    Answer,
    Asked,
    not_read,
    placeholder_sent,
    said_error,
    unopened,
    variable_asked,
)
from machine.secrets.stored_piece_sizes import stored_pieces
from machine.secrets.unredacted_search import refused

_BLIND: Final = frozenset({"clock.now", "clock.sleep", "random.bytes"})
"""Namespaces whose requests and answers never hold a secret."""

_MARK: Final = placeholder.MARK.encode()
_BEGIN: Final = placeholder.BEGIN.encode()
_KEYS: Final = "make it of something else: keys are stored and compared as they are"


class AttemptSecrets:
    """The secrets of one attempt; `past` are those that earlier attempts and the states it follows have learned."""

    def __init__(self, run: SharedSecrets, past: Known, state_id: str | None) -> None:
        self.run = run
        self._past = past
        self._state_id = state_id
        self._at_hand: dict[str, Mapping[str, Any]] = {}
        self.reused: dict[str, str] = {}
        """The facts that were reused, by the key of the call, where only secrets told the requests apart."""

    @functools.cached_property
    def _known(self) -> Known:
        return Known()

    @functools.cached_property
    def _stand_ins(self) -> StandIns:
        return StandIns()

    @property
    def _knows_some(self) -> bool:
        return "_known" in vars(self) and bool(self._known)  # most attempts never ask for any

    # -- what is asked -----------------------------------------------------------------------------------

    def asked(self, namespace: str, raw: bytes) -> Asked:
        """Return the stored and the sent form of a request, given its canonical bytes as the handler made them.

        `refusal` is set on one that may not be sent: `secret_reserved` when it holds the key of the store,
        `secret_unavailable` when it holds a placeholder, `secret_not_read` when it holds a secret that only a state
        before it has read (the key and that secret are replaced too), and `ambiguous_secret` when it holds a
        stand-in for several.
        """
        run, stands_in, refusal = self.run, False, None
        if not run.stand_ins and self._is_clean(raw, self._known, self._past):
            return Asked(raw, raw)
        if run.reserved.holds(raw):
            raw, refusal = run.reserved.removed(raw), key_inside("the request")
        if namespace in _BLIND:
            return Asked(raw, raw, None, refusal)
        sent = raw
        if run.stand_ins:
            sent, stands_in, refused_stand_in = self._stand_ins.sent(
                run.stand_ins.values(), self._past.stand_ins, namespace, raw
            )
            refusal = refusal or refused_stand_in
        if not self._may_hold(raw, self._known, self._past):
            return Asked(raw, sent, self.mac(sent) if sent != raw else None, refusal, stands_in)
        refusal = refusal or self._placeholder_in(raw)
        found = redact(
            run.rules, self._known, namespace, canonical.decode(raw), request=True, name=lambda place: place
        )
        stored = stored_boundary(found.document) if namespace == "http" and found.edits else found.document
        data = canonical.encode(stored) if found.edits or _MARK in raw else raw
        taught = [each for each in found.learned if each[1] not in run.rules.stand_ins]
        for source, value, sure in taught:
            self._learn(source, value, sure=sure)
        if others := self._past.sure_beyond(self._known):
            said = say_json(others, data)
            if said is not None:
                data, refusal = said, refusal or not_read()
        mac = self.mac(sent) if found.edits or sent != raw else None
        return Asked(data, sent, mac, refusal, stands_in, found.hides, taught)

    def mac(self, sent: bytes) -> str | None:
        """Return the keyed hash of what is sent, if the run has a key."""
        data_key = self.run.key(create=self.run.live)
        return None if data_key is None else hashed(data_key, sent)

    def _is_clean(self, raw: bytes, *known: Known) -> bool:
        """Say whether canonical bytes are stored as they are, for sure; stand-ins apart."""
        return self.run.rules.is_clean(raw) and not any(each and each.may_be_in(raw) for each in known)

    def _may_hold(self, raw: bytes, *known: Known) -> bool:
        """Say whether canonical bytes without the key of the store may have to be stored differently."""
        return self.run.rules.may_hold(raw) or any(each and each.may_be_in(raw) for each in known)

    def stored(self, namespace: str, raw: bytes) -> Any:
        """Return the stored form of a request, without learning its secrets."""
        return redact(
            self.run.rules, self._known, namespace, canonical.decode(raw), request=True, name=str
        ).document

    def asked_before(self, digest: str, data: bytes) -> Any:
        """Return a stored request for a reconcile function, with its placeholders as text.

        A request that holds such a text is refused, even where this process could open the placeholder.
        """
        stored = canonical.decode_stored(digest, data)
        for source in placeholder.sources_in(stored):
            self._known.name(source)
        return shown(stored, typed=True) if _MARK in data else stored

    def _placeholder_in(self, raw: bytes) -> OtherIoError | None:
        for text in placeholder.TEXT.finditer(raw.decode()) if _BEGIN in raw else ():
            source = placeholder.source_of(text[0])
            if source in self._known.sources or source in self._past.sources:
                return placeholder_sent()
        return None

    # -- what is answered --------------------------------------------------------------------------------

    def answer(
        self,
        fact: FactRecorded,
        request: Any,
        response: Any,
        *,
        sure: str | None = None,
        again: bool = False,
    ) -> Answer:
        """Return an answer as it is stored; `fact` is the one it will be recorded as, without its outcome.

        `sure` is the name that `io.secret` read it under. One that a replay makes `again` is not searched for what
        only other states know: in a replay these may come later.
        Raises `OtherIoError`, `secret_reserved` for one that holds the key of the store and `secret_stand_in` when
        a stand-in is the true value, and `SecretKeyError`.
        """
        run = self.run
        raw = canonical.encode(response)
        variable = variable_asked(fact.namespace, request)
        told = sure is not None or fact.namespace == SECRET
        by_name = variable is not None and run.rules.field(variable) is not Strength.NONE
        loud = told or by_name or bool(run.stand_ins)
        if not loud and self._is_clean(raw, run.known):
            return Answer(raw)
        if run.reserved.holds(raw) and run.refuses(Code.SECRET_RESERVED):
            raise key_inside(f"the answer of {fact.namespace}")
        if fact.namespace in _BLIND or not (loud or self._may_hold(raw, run.known)):
            return Answer(raw)
        known, beyond = self._could_know(), Known() if again else run.known
        document, stood_in = put_in(run.stand_ins, canonical.decode(raw), name=sure)
        refuse_revealing(stood_in, run.rules.stand_ins, None if sure is None else response["value"])
        if run.stand_ins:
            document = self._stand_ins.echoed(document, stood_in)
        chunks = None
        if sure is not None and not stood_in:
            value = document["value"]
            # without the key the handler must have one text for a value that it has under two names
            source = self._known.source_of(value) or sure
            stored: Any = {"value": placeholder.object_of(source)}
            edits: list[Any] = [[2, {"value": value}]]
            learned = [[source, value, True]]
        else:
            names = AnswerNames(fact)
            found = redact(
                run.rules,
                known,
                fact.namespace,
                document,
                request=False,
                name=names,
                under=variable,
                beyond=beyond,
            )
            stored, edits, learned = found.document, found.edits, [list(item) for item in found.learned]
            pieces = stored_pieces(document, stored, edits) if edits and fact.namespace == "http" else None
            if pieces is not None:
                stored, chunks = {**stored, "chunks": pieces}, document["chunks"]
        data = canonical.encode(stored)
        named = {source for source, _, _ in learned}
        for source in placeholder.sources_in(stored):  # a resumed run learns them when it opens this seal
            if source not in named:
                values = known.values_of(source) or beyond.values_of(source)
                learned += [[source, value, is_sure] for value, is_sure in values]
        run.learn(fact, learned)
        run.learn_stood_in(fact, stood_in)
        if not edits and not stood_in:
            return Answer(data)
        sealed: dict[str, Any] = {"edits": edits, "learned": learned, "stand_ins": stood_in}
        if chunks is not None:
            sealed["chunks"] = chunks
        return self._with_seal(fact, data, sealed)

    def _with_seal(self, fact: FactRecorded, data: bytes, sealed: Mapping[str, Any]) -> Answer:
        self._at_hand[fact.key] = sealed
        if not self.run.live:
            return Answer(data)
        data_key = self.run.key(create=True)
        assert data_key is not None
        seal = seal_beside(data_key, fact, canonical.artifact_id(data), sealed)
        return Answer(data, {"secret_payload_id": canonical.artifact_id(seal)}, seal)

    def is_clean_piece(self, raw: bytes) -> bool:
        """Say whether the encoded text of a stream has nothing in which a secret may stand or begin."""
        return self._is_clean(raw, self.run.known, self._past)

    def sealed_beside(self, fact: FactRecorded, data: bytes) -> Answer:
        """Return an answer without secrets that has a seal, so that it is lost where those of others are."""
        return self._with_seal(fact, data, {"edits": [], "learned": [], "stand_ins": {}})

    def sealed_piece(self, fact: FactRecorded, text: str) -> Answer:
        """Return a piece of a stream that is sealed whole, because it goes on with a secret begun before it."""
        source = AnswerNames(fact)("data")
        self.run.learn(fact, learned := [[source, text, False]])
        stored = {"data": {"text": placeholder.object_of(source)}}
        sealed = {"edits": [[4, {"value": text}]], "learned": learned, "stand_ins": {}}
        return self._with_seal(fact, canonical.encode(stored), sealed)

    def _could_know(self) -> KnownInTurn:
        """Return the secrets that this state can know, in whatever order concurrent states are run.

        Its own names come first: without the key the handler must have one text for a value that it is given twice.
        """
        own = () if self._state_id is None else self.run.learned.by(self._state_id)
        return KnownInTurn([self._known, *own, self._past])

    def taught(self, fact: FactRecorded, learned: Sequence[tuple[str, str, bool]]) -> bytes | None:
        """Learn the secrets of a fact's request, and return them sealed in a live run, for later drivers."""
        self.run.learn(fact, learned)
        data_key = self.run.key(create=True) if self.run.live else None
        return None if data_key is None else seal_beside(data_key, fact, ASKED, {"learned": learned})

    def resolved(self, fact: FactRecorded, request: Any, response: Any) -> Answer:
        """Return the stored form of an answer that a user or a reconcile function gives for an uncertain effect.

        A replay calls the reconcile function of a state again.
        """
        return self.answer(fact, request, response, again=self._state_id is not None)

    def given(self, fact: FactRecorded, data: bytes) -> Answer:
        """Return the stored form of an answer that the handler gives, redacted like one from outside."""
        return self.answer(fact, None, canonical.decode(data))

    def value(self, fact: FactRecorded, data: bytes, log: Seals) -> Any:
        """Return the payload of a fact for the handler: with true values, or in a replay maybe placeholders.

        Raises `OtherIoError` (`secret_unavailable`) in a live run when the true values cannot be opened, and
        `SecretNeeded` in a replay for a number, since a placeholder is text.
        """
        stored = canonical.decode_stored(payload_id(fact), data)
        sealed = self._at_hand.get(fact.key)
        if sealed is None:
            seal = log.seal(fact.key)
            if seal is None:
                if not self.run.shows and _MARK in data and placeholder.sources_in(stored):
                    raise unopened(fact)  # it was read from a bundle that has no seals
                return shown(stored) if _MARK in data else stored
            sealed = self.run.opens(seal, fact)
        if sealed is None:
            return self._shown(fact, stored)
        self.run.opened += 1
        self._stand_ins.learn(sealed["stand_ins"])
        for source, value, sure in sealed["learned"]:
            self._learn(source, value, sure=sure)
        if "chunks" in sealed:
            stored = {**stored, "chunks": sealed["chunks"]}
        return opened(stored, sealed["edits"]) if sealed["edits"] or _MARK in data else stored

    def _shown(self, fact: FactRecorded, stored: Any) -> Any:
        if not self.run.shows:
            raise unopened(fact)
        self.run.shown += 1
        learned = [(source, placeholder.text_of(source), True) for source in placeholder.sources_in(stored)]
        self.run.learn(
            fact, learned
        )  # as if these were the values: what is made of them is found all the same
        for source, value, sure in learned:
            self._learn(source, value, sure=sure)
        return shown(stored)

    def _learn(self, source: str, value: str, *, sure: bool) -> None:
        if value not in self.run.rules.stand_ins:
            self._known.learn(source, value, sure=sure)
            self.run.known.learn(source, value, sure=sure)

    # -- what a handler says -----------------------------------------------------------------------------

    def said(self, value: Any) -> Any:
        """Return the payload of a domain event without the secrets in it."""
        run = self.run
        return run.reserved.without(say(run.rules, self._past, say(run.rules, self._known, value)))

    def text(self, text: str) -> str:
        """Return a text of an error or an event without secrets in it."""
        run = self.run
        return str(
            run.reserved.without(say_text(run.rules, self._past, say_text(run.rules, self._known, text)))
        )

    def error(self, info: ErrorInfo) -> ErrorInfo:
        """Return an error without secrets in it."""
        return said_error(info, self.text, self.said)

    # -- what is refused ---------------------------------------------------------------------------------

    def refuse_in_context(self, staged: Mapping[str, bytes | None]) -> None:
        """Raise `ContextError` when a write to the context holds a secret or the key of the store.

        They are `secret_in_context` and `secret_reserved`.
        """
        refuses = self.run.refuses
        if not (refuses(Code.SECRET_IN_CONTEXT) or refuses(Code.SECRET_RESERVED)):
            return  # a replay of an attempt that was not refused for it
        look, anything = self.run.rules.look, self._knows_some
        for key, data in staged.items():
            written = key.encode() + (data or b"")
            # nearly every write is done with here
            found, runs = anything or look(written), written.translate(RUNS)
            if found or RUN in runs:
                self._refuse_written(key, data, written, runs, secret=bool(found))

    def _refuse_written(
        self, key: str, data: bytes | None, written: bytes, runs: bytes, *, secret: bool
    ) -> None:
        """Raise `ContextError` when a write that may hold the key of the store, or a `secret`, holds it."""
        if self.run.reserved.holds_in(runs, written) and self.run.refuses(Code.SECRET_RESERVED):
            raise ContextError(
                f"the context may not hold the key of the store, and {path_text([key])} holds it",
                code=Code.SECRET_RESERVED,
                details={"path": path_text([key])},
            )
        if not secret:
            return
        path = refused(self.run.rules, self._known, key, None if data is None else canonical.decode(data))
        if path is not None and self.run.refuses(Code.SECRET_IN_CONTEXT):
            raise ContextError(
                f"the context may hold no secret, and {path} is one",
                code=Code.SECRET_IN_CONTEXT,
                details={"path": path},
                hint="leave it out, read it where it is used, or list its path in SecretPolicy(allow=[...])",
            )

    def in_key(self, key: str) -> bool:
        """Say whether a key that would be stored holds a secret."""
        rules, known, data = self.run.rules, self._known, key.encode("utf-8", "surrogatepass")
        if self.run.reserved.holds(data):
            return True
        if not known and not rules.may_hold(data):
            return False
        return refused(rules, known, key, None) is not None

    def refuse_in_key(self, what: str, key: str) -> None:
        """Raise `StateError` (`secret_in_event`) when a key that would be stored holds a secret."""
        if self.in_key(key) and self.run.refuses(Code.SECRET_IN_EVENT):
            raise StateError(
                f"{what} holds a secret, and was not written", code=Code.SECRET_IN_EVENT, hint=_KEYS
            )

    def refuse_in_bytes(self, what: str, data: bytes) -> None:
        """Raise `StateError` (`secret_in_event`) when bytes that would be stored hold a known secret."""
        if not self.run.refuses(Code.SECRET_IN_EVENT):
            return
        known = (each.in_bytes(data) for each in (self._known, self._past))
        if any(known) or self.run.reserved.holds(data):
            raise secret_in_bytes(what)
