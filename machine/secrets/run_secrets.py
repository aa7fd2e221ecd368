"""The secrets that a run, and each of its attempts, knows in format 2.

Handlers get true values; the store holds placeholders. The digest of a request must not depend on what other
attempts have learned, since a resumed run may not have made them. So an attempt knows only the secrets of its own
facts, in the order it received them, and those that it has put into credential places itself. True values are
sealed beside their fact: a driver with the key of the store gives them to the handler again, one without it gives
placeholders.

What a replay makes again (events, errors) is stored without these and without what the states before it have
learned (`learned`), so that it is the same whichever state was first. An answer is recorded once: without any
secret that the run knows by then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from machine import canonical
from machine.errors import Code, ContextError, ErrorInfo, IoOther, SecretKeyError, StateError
from machine.events import FactRecorded
from machine.secrets import placeholder, sealing, stand_ins
from machine.secrets.answer_names import AnswerNames
from machine.secrets.fact_seals import ASKED, open_beside, payload_id, seal_beside
from machine.secrets.learned import Followed, Learned
from machine.secrets.multipart import stored_boundary
from machine.secrets.pieces import stored_pieces
from machine.secrets.policy import SecretPolicy
from machine.secrets.redact import Known, redact, refused, say, say_json, say_text
from machine.secrets.rules import rules_of
from machine.secrets.stored import Answer, Asked, not_read, said_error, unopened
from machine.secrets.substitute import opened, shown

__all__ = ["AttemptSecrets", "Keys", "RunSecrets"]

_BLIND: Final = frozenset({"clock.now", "clock.sleep", "random.bytes"})
"""Namespaces whose requests and answers never hold a secret."""

_MARK: Final = placeholder.MARK.encode()
_BEGIN: Final = placeholder.BEGIN.encode()
_KEYS: Final = "make it of something else: keys are stored and compared as they are"


class Keys(Protocol):
    """The data keys of a store's runs; `failure` is the error of one that could not be made, or not be checked."""

    failure: SecretKeyError | None

    def data_key(self, run_id: str, *, create: bool) -> sealing.DataKey | None:
        """Return the data key of a run, None when there is none or it cannot be opened.

        With `create` one is made. Raises `SecretKeyError` when that cannot be.
        """
        ...

    def check(self) -> None:
        """Raise `SecretKeyError` when nothing could be sealed."""
        ...


class Seals(Protocol):
    """The seals of a run's facts, by the keys of the facts: a log has them."""

    def seal(self, key: str) -> bytes | None:
        """Return the seal of a fact, None when it has none; empty bytes when its artifact is missing."""
        ...


class RunSecrets:
    """The secrets of one run. Without `keys` nothing is sealed and nothing opened: a replay elsewhere, a preview.

    `live` is false when nothing is written, as in a replay, where `refuses` says whether the recording has a
    refusal of this code. `opened` counts the facts that gave true values, `shown` those that gave placeholders.
    """

    def __init__(
        self,
        policy: SecretPolicy,
        run_id: str,
        keys: Keys | None,
        *,
        live: bool,
        refuses: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.rules = rules_of(policy)
        self.stand_ins = dict(policy.stand_ins)
        self.live = live
        self.refuses = refuses
        self.known = Known()
        self.learned = Learned()
        self.opened = self.shown = 0
        self._last: tuple[bytes, FactRecorded, Mapping[str, Any] | None] | None = None
        self._run_id = run_id
        self.keys = keys

    @property
    def told(self) -> str | None:
        """One word for whether true values were opened so far; None when no fact had any."""
        if self.shown:
            return "some_opened" if self.opened else "placeholders"
        return "opened" if self.opened else None

    def attempt(
        self, state_id: str | None = None, followed: Followed | None = None, *, but: Collection[int] = ()
    ) -> AttemptSecrets:
        """Return what a new attempt of a state knows, as `Learned.before` says; without one, what the run knows."""
        past = self.known if state_id is None else self.learned.before(state_id, followed, but=but)
        return AttemptSecrets(self, past, state_id)

    def learn(self, fact: FactRecorded, learned: Iterable[Sequence[Any]]) -> None:
        """Replace the values that a fact has taught in what is stored from now on."""
        for source, value, sure in learned:
            self.known.learn(source, value, sure=sure)
            self.learned.learn(fact.state_id, fact.attempt, source, value, sure=sure)

    def key(self, *, create: bool = False) -> sealing.DataKey | None:
        """Return the data key of the run, None when there is none. Raises `SecretKeyError`, only with `create`."""
        return None if self.keys is None else self.keys.data_key(self._run_id, create=create)

    @property
    def failure(self) -> SecretKeyError | None:
        """Why the run cannot go on, whatever a handler made of it: what is secret in it could not be sealed."""
        return None if self.keys is None else self.keys.failure

    def opens(self, seal: bytes, fact: FactRecorded) -> Mapping[str, Any] | None:
        """Return what is sealed beside a fact, None when it cannot be opened."""
        if self._last is not None and self._last[:2] == (seal, fact):  # learned, then given to the handler
            return self._last[2]
        data_key = self.key()
        if data_key is None:
            return None
        self._last = seal, fact, open_beside(data_key, fact, payload_id(fact), seal)
        return self._last[2]

    def recall(self, seal: bytes, fact: FactRecorded, *, asked: bool = False) -> bool:
        """Learn what was sealed beside a fact, or of its request, and say whether it can be opened."""
        if not asked:
            sealed = self.opens(seal, fact)
        else:
            data_key = self.key()
            sealed = None if data_key is None else open_beside(data_key, fact, ASKED, seal)
        if sealed is not None:
            self.learn(fact, sealed["learned"])
        return sealed is not None

    def text(self, text: str) -> str:
        """Return a text without any secret of the run: no replay makes it again."""
        return say_text(self.rules, self.known, text)

    def error(self, info: ErrorInfo) -> ErrorInfo:
        """Return an error without any secret of the run: no replay makes it again."""
        return said_error(info, self.text, lambda value: say(self.rules, self.known, value))


def _variable(namespace: str, request: Any) -> str | None:
    """Return the name of the environment variable that was asked for, None in any other call."""
    name = request.get("name") if namespace == "env" and isinstance(request, dict) else None
    return name if isinstance(name, str) else None


class AttemptSecrets:
    """The secrets of one attempt; `past` is what the states that it follows have learned, and those before it."""

    def __init__(self, run: RunSecrets, past: Known, state_id: str | None) -> None:
        self.run = run
        self._past = past
        self._state_id = state_id
        self._known = Known()
        self._at_hand: dict[str, Mapping[str, Any]] = {}
        self._stand_ins: dict[str, str] = {}
        self.reused: dict[str, str] = {}
        """The facts that answered calls, by the calls' keys, where only their secrets told which."""

    # -- what is asked -----------------------------------------------------------------------------------

    def asked(self, namespace: str, raw: bytes) -> Asked:
        """Return a request as it is stored, given its canonical bytes as the handler made it.

        `refusal` is set on one that may not be sent: `secret_unavailable` when it holds a placeholder, and
        `secret_not_read` when it holds a secret that only a state before it has read; that secret is replaced too.
        """
        run = self.run
        if namespace in _BLIND or not (self._may_hold(raw, self._known) or self._past.may_be_in(raw)):
            return Asked(raw)
        refusal = self._placeholder_in(raw)
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
        data_key = run.key(create=run.live) if found.edits else None
        mac = None if data_key is None else f"{data_key.id}:{sealing.mac(data_key, raw)}"
        return Asked(data, mac, refusal, taught)

    def _may_hold(self, raw: bytes, known: Known) -> bool:
        """Say whether anything in canonical bytes may have to be stored differently."""
        return self.run.rules.may_hold(raw) or _MARK in raw or _BEGIN in raw or known.may_be_in(raw)

    def stored(self, namespace: str, raw: bytes) -> Any:
        """Return a request as it would be stored, and learn nothing of it."""
        return redact(
            self.run.rules, self._known, namespace, canonical.decode(raw), request=True, name=str
        ).document

    def outgoing(self, raw: bytes) -> Any:
        """Return a request as it leaves the process: true values in the place of stand-ins."""
        value = canonical.decode(raw)
        return stand_ins.taken_out(self._stand_ins, value) if self._stand_ins else value

    def _placeholder_in(self, raw: bytes) -> IoOther | None:
        for text in placeholder.TEXT.finditer(raw.decode()) if _BEGIN in raw else ():
            source = placeholder.source_of(text[0])
            if source in self._known.sources or source in self.run.known.sources:
                return IoOther(
                    "the request holds the placeholder of a secret and not its value",
                    code=Code.SECRET_UNAVAILABLE,
                    hint="read it with io.secret, or ask for it again, in the state that uses it",
                )
        return None

    # -- what is answered --------------------------------------------------------------------------------

    def answer(
        self,
        fact: FactRecorded,
        request: Any,
        response: Any,
        *,
        sure: str | None = None,
        known: Known | None = None,
    ) -> Answer:
        """Return an answer as it is stored; `fact` is the one it will be recorded as, without its outcome.

        `sure` is the name that `io.secret` read it under, `known` is what is searched for, all of the run if None.
        Raises `IoOther` (`secret_stand_in`) when a stand-in is the true value, and `SecretKeyError`.
        """
        run = self.run
        known = run.known if known is None else known
        raw = canonical.encode(response)
        variable = _variable(fact.namespace, request)
        loud = sure is not None or variable is not None or run.stand_ins
        if fact.namespace in _BLIND or not (loud or self._may_hold(raw, known)):
            return Answer(raw)
        document, stood_in = stand_ins.put_in(run.stand_ins, canonical.decode(raw), name=sure)
        if self._stand_ins:  # an echo of what was sent in the place of a stand-in
            document = stand_ins.taken_out(
                {true: stand_in for stand_in, true in self._stand_ins.items()}, document
            )
        for stand_in, true in stood_in.items():
            if stand_in == true:
                raise IoOther(
                    "the policy gives a secret itself as its stand-in",
                    code=Code.SECRET_STAND_IN,
                    hint="give an invented value of the same form in SecretPolicy(stand_ins=...)",
                )
        chunks = None
        if sure is not None and not stood_in:
            value = document["value"]
            stored: Any = {"value": placeholder.object_of(sure)}
            edits: list[Any] = [[2, {"value": value}]]
            learned = [[sure, value, True]]
        else:
            names = AnswerNames(fact)
            found = redact(
                run.rules, known, fact.namespace, document, request=False, name=names, under=variable
            )
            stored, edits, learned = found.document, found.edits, [list(item) for item in found.learned]
            pieces = stored_pieces(document, stored, edits) if edits and fact.namespace == "http" else None
            if pieces is not None:
                stored, chunks = {**stored, "chunks": pieces}, document["chunks"]
        data = canonical.encode(stored)
        named = {source for source, _, _ in learned}
        for source in placeholder.sources_in(stored):  # a resumed run learns them when it opens this seal
            if source not in named:
                learned += [[source, value, is_sure] for value, is_sure in known.values_of(source)]
        run.learn(fact, learned)
        for true in stood_in.values():
            run.known.learn("stand_in", true, sure=True)
        if not edits and not stood_in:
            return Answer(data)
        sealed: dict[str, Any] = {"edits": edits, "learned": learned, "stand_ins": stood_in}
        if chunks is not None:
            sealed["chunks"] = chunks
        self._at_hand[fact.key] = sealed
        if not run.live:
            return Answer(data)
        data_key = run.key(create=True)
        assert data_key is not None
        seal = seal_beside(data_key, fact, canonical.artifact_id(data), sealed)
        return Answer(data, {"secret_payload_id": canonical.artifact_id(seal)}, seal)

    def taught(self, fact: FactRecorded, learned: Sequence[tuple[str, str, bool]]) -> bytes | None:
        """Learn what the request of a fact has taught, and return it sealed in a live run, for later drivers."""
        self.run.learn(fact, learned)
        data_key = self.run.key(create=True) if self.run.live else None
        return None if data_key is None else seal_beside(data_key, fact, ASKED, {"learned": learned})

    def resolved(self, fact: FactRecorded, request: Any, response: Any) -> Answer:
        """Return what is said to have been an answer, as it is stored; a replay makes that of a state again."""
        if self._state_id is None:
            return self.answer(fact, request, response)
        known = self.run.learned.also(self._past, self._state_id)
        return self.answer(fact, request, response, known=known)

    def given(self, fact: FactRecorded, data: bytes) -> Answer:
        """Return an answer that the handler itself gives, as it is stored: like one that comes from outside."""
        return self.answer(fact, None, canonical.decode(data))

    def value(self, fact: FactRecorded, data: bytes, log: Seals) -> Any:
        """Return the payload of a fact as the handler gets it: with true values, in a replay maybe placeholders.

        Raises `IoOther` (`secret_unavailable`) in a live run when the true values cannot be opened, and
        `SecretNeeded` in a replay for a number, since a placeholder is text.
        """
        stored = canonical.decode_stored(payload_id(fact), data)
        sealed = self._at_hand.get(fact.key)
        if sealed is None:
            seal = log.seal(fact.key)
            if seal is None:
                return shown(stored) if _MARK in data else stored
            sealed = self.run.opens(seal, fact)
        if sealed is None:
            return self._shown(fact, stored)
        self.run.opened += 1
        self._stand_ins |= sealed["stand_ins"]
        for source, value, sure in sealed["learned"]:
            self._learn(source, value, sure=sure)
        if "chunks" in sealed:
            stored = {**stored, "chunks": sealed["chunks"]}
        return opened(stored, sealed["edits"]) if sealed["edits"] or _MARK in data else stored

    def _shown(self, fact: FactRecorded, stored: Any) -> Any:
        if self.run.live:
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
        return say(self.run.rules, self._past, say(self.run.rules, self._known, value))

    def text(self, text: str) -> str:
        """Return a text of an error or an event without secrets in it."""
        return say_text(self.run.rules, self._past, say_text(self.run.rules, self._known, text))

    def error(self, info: ErrorInfo) -> ErrorInfo:
        """Return an error without secrets in it."""
        return said_error(info, self.text, self.said)

    # -- what is refused ---------------------------------------------------------------------------------

    def refuse_in_context(self, staged: Mapping[str, bytes | None]) -> None:
        """Raise `ContextError` (`secret_in_context`) when a write to the context holds a secret."""
        rules, known = self.run.rules, self._known
        for key, data in staged.items():
            if not known and not rules.may_hold(key.encode() if data is None else key.encode() + data):
                continue
            path = refused(rules, known, key, None if data is None else canonical.decode(data))
            if path is not None and self.run.refuses(Code.SECRET_IN_CONTEXT):
                raise ContextError(
                    f"the context may hold no secret, and {path} is one",
                    code=Code.SECRET_IN_CONTEXT,
                    details={"path": path},
                    hint="leave it out, read it where it is used, or list its path in SecretPolicy(allow=[...])",
                )

    def in_key(self, key: str) -> bool:
        """Say whether a key that would be stored holds a secret."""
        rules, known = self.run.rules, self._known
        if not known and not rules.may_hold(key.encode("utf-8", "surrogatepass")):
            return False
        return refused(rules, known, key, None) is not None

    def refuse_in_key(self, what: str, key: str) -> None:
        """Raise `StateError` (`secret_in_event`) when a key that would be stored holds a secret."""
        if self.in_key(key) and self.run.refuses(Code.SECRET_IN_EVENT):
            raise StateError(
                f"{what} holds a secret, and was not written", code=Code.SECRET_IN_EVENT, hint=_KEYS
            )
