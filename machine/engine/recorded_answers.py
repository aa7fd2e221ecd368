"""The facts of another recording that answer the calls of a new run.

They are matched by state, namespace, request and occurrence. No state is copied: every handler runs. The facts are
stored with the new run, so that resuming it needs no other. This module decides and performs nothing.
"""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import attrs

from machine import canonical, codec
from machine.config import IoMode
from machine.engine import run_reader
from machine.engine.driver_protocols import Opening
from machine.engine.fork_prefix import FACTS_FROM_ID, SharedPast
from machine.engine.live_run_secrets import inheriting
from machine.engine.log_check import LogCheck
from machine.errors import Code, UsageError
from machine.events import (
    Artifact,
    ArtifactKind,
    EffectIntended,
    Entry,
    FactError,
    FactRecorded,
    FactValue,
    RunStarted,
    StateEntered,
    StateFailed,
    WaitBegun,
)
from machine.ids import RESERVED_FACT_PREFIX, RunId
from machine.io.attempt_scope import stored_seal
from machine.io.call_identity import Call, path_key
from machine.io.dry_io import PREVIEWED
from machine.kernel.history import History
from machine.kernel.linearize import one_after_another, without_suspensions
from machine.kernel.open_waits import CHILD
from machine.kernel.sealed_facts import REQUEST_SECRETS, SECRET_PAYLOAD
from machine.kernel.transactions import Unit
from machine.secrets.placeholder import MARK, sources_in
from machine.stores.base import Store

FACTS_FROM: Final = "facts_from"
"""Name in the first event's info under which the run is recorded that the facts come from."""

FACTS_EFFECTS: Final = "facts_effects"
"""Name next to it; it stands there, as `recorded`, if effects are answered too."""

Effects = Literal["live", "recorded"]
"""The treatment of effects by a live run with recorded answers: they are made, or answered like any other call."""

SHOWN: Final = "shown"
"""The same, of a run that applies a dry run: those are made that it has shown."""

_Found = tuple[int, FactRecorded]


@attrs.frozen
class FactsFrom:
    """A recorded run whose facts answer the calls of a new one.

    `store` is None for the store of the new run. `shut` is true for a run that may not go outside whatever its
    configuration says; `kept` is false for one that is never resumed, which stores no copy of the facts; `shows` is
    true for a dry run that is applied, `nested` for a run whose children answer those of the new one.
    """

    run_id: str
    store: Store | None = None
    shut: bool = False
    kept: bool = True
    shows: bool = False
    nested: bool = False


class RecordedAnswers(SharedPast):
    """The facts of a recording as the answers to a new run.

    With `effects` an effect is answered too. A run that is `shut` never goes outside. `kept` is as in `FactsFrom`.
    """

    effects = False
    shows = False
    """True for the facts of a dry run that is applied."""
    kept = True
    run_id = ""

    @functools.cached_property
    def shown(self) -> Mapping[str, Sequence[FactRecorded]]:
        """The effects that a dry run has shown, by state, in their order: the facts of their previewed outcomes."""
        found: dict[str, list[FactRecorded]] = defaultdict(list)
        keys = {(intent.key, intent.attempt) for intent in self._intents}
        for seq, fact in self._facts:
            if seq in self._info(PREVIEWED) and (fact.key, fact.attempt) in keys:
                found[fact.state_id].append(fact)
        return found

    def statements_before(self, fact: FactRecorded) -> Sequence[str]:
        """Return the digests of the requests of the transaction that a fact ended, but for that end."""
        for unit in self._transactions.units.values():
            if fact in unit.facts:
                return [one.request_digest for one in unit.facts[: unit.facts.index(fact)]]
        return []

    def request_of(self, fact: FactRecorded) -> Any:
        """Return the recorded request of a fact."""
        return canonical.decode_stored(fact.request_digest, self._load(fact.request_digest))

    @functools.cached_property
    def children(self) -> Mapping[str, str]:
        """The child runs of the recorded one, by the keys of the waits for them, where they are of use."""
        return {
            entry.event.key: str(entry.info[CHILD])
            for entry in self.entries
            if isinstance(entry.event, WaitBegun) and CHILD in entry.info
        }

    def _like(self, call: Call, state_id: str) -> list[_Found]:
        previewed = self._info(PREVIEWED)  # an outcome that nothing outside has given
        return [item for item in super()._like(call, state_id) if item[0] not in previewed]

    def wait_answer(self, call: Call) -> _Found | None:
        """Return the answer to a wait, None where a dry run is applied: it had answers of its own."""
        return None if self.shows else super().wait_answer(call)

    def answer(
        self, call: Call, state_id: str, *, keeps_all: bool, alike: int
    ) -> tuple[int, FactRecorded] | None:
        """Return the recorded fact that answers a call, and its seq; None when there is none.

        Which secrets a request holds, and what is ignored of it, makes no difference, as in a replay.
        """
        del alike
        if call.effect and not self.effects:
            return None
        like = [item for item in self._like(call, state_id) if not item[1].may_repeat]
        if not call.key.startswith(RESERVED_FACT_PREFIX):
            return self._under(like, state_id)
        return self._nth(call, like, state_id, None, keeps_all=keeps_all)

    def transactions(self, state_id: str) -> Iterator[Unit]:
        """Yield the transactions that may answer: one that wrote is an effect."""
        attempts = self._attempts(state_id)
        for unit in super().transactions(state_id):
            if any(self.seq_of(fact) in self._info(PREVIEWED) for fact in unit.facts):
                continue
            if unit.attempt in attempts and (self.effects or not unit.wrote):
                yield unit

    def given_up(self, call: Call, state_id: str) -> bool:
        """Say whether the recorded handler gave up a call, so that it has no answer."""
        attempts, key = self._attempts(state_id), call.key
        if key.startswith(RESERVED_FACT_PREFIX) and attempts:
            number = key.rpartition("/")[2]
            key = path_key(state_id, attempts[-1], call.namespace, call.digest, number)
        return any(fact.given_up and fact.key == key for _, fact in self._like(call, state_id))

    def has_placeholder(self, fact: FactRecorded) -> bool:
        """Say whether an answer has the placeholder of a secret."""
        outcome = fact.outcome
        if not isinstance(outcome, FactValue):
            return False
        data = self._load(outcome.payload_id)
        if MARK.encode() not in data:
            return False
        return bool(sources_in(canonical.decode_stored(outcome.payload_id, data)))

    def asked_in(self, state_id: str, namespace: str) -> int:
        """Return how many calls of a namespace a state made in the recording."""
        return sum((fact.state_id, fact.namespace) == (state_id, namespace) for _, fact in self._facts)

    def ambiguous(self, call: Call, state_id: str) -> bool:
        """Return False: calls are distinguished by their occurrence."""
        del call, state_id
        return False

    def differs_in_ignored(self, call: Call, state_id: str) -> bool:
        """Return False, for the same reason."""
        del call, state_id
        return False

    def was_effect(self, key: str) -> bool:
        """Say whether an effect was intended under a key, or for the same request in another attempt."""
        return _without_attempt(key) in {_without_attempt(intent.key) for intent in self._intents}

    def sent(self, state_id: str, namespace: str, idempotency_key: str) -> str | None:
        """Return None: the new run sends effects of its own."""
        del state_id, namespace, idempotency_key
        return None

    def _attempts(self, state_id: str) -> list[int]:
        rounds = [attempts for segment in self._of.get(state_id, ()) for attempts in segment.rounds]
        number = self._rounds[state_id]
        if self.shut and rounds:  # an attempt more than was recorded has the same world as the last one
            number = min(number, len(rounds) - 1)
        return rounds[number] if number < len(rounds) else []

    def artifacts(self, store: Store) -> Iterator[Artifact]:
        """Yield the artifacts that these facts name and `store` does not have, and their seals."""
        for artifact_id, kind in dict(_named(self.entries)).items():
            if not store.exists(artifact_id):
                yield Artifact(artifact_id, kind, self._load(artifact_id))
        for name in (SECRET_PAYLOAD, REQUEST_SECRETS):
            for seal_id in self._info(name).values():
                if data := stored_seal(self._load, seal_id):
                    yield Artifact(seal_id, ArtifactKind.SECRET_PAYLOAD, data)


def prepared(
    given: str | os.PathLike[str] | FactsFrom, store: Store, opening: Opening, *, effects: Effects
) -> tuple[RecordedAnswers, Callable[[str], None], Opening]:
    """Return what `answers_of` returns, and the opening of the new run with what it has to store.

    Raises what that raises, and `IdError` for what is no run id.
    """
    if not isinstance(given, FactsFrom):
        given = FactsFrom(RunId(given))  # type: ignore[arg-type]  # it refuses what is no text
    shut = given.shut or opening.manifest.run_config.io_mode is IoMode.REPLAY
    past, share = answers_of(given, store, effects=effects, shut=shut)
    opening.payloads.items.update({artifact.id: artifact for artifact in past.artifacts(store)})
    if not past.kept:
        return past, share, opening
    return past, share, _stored(past, opening)


def answers_of(
    given: FactsFrom, store: Store, *, effects: Effects, shut: bool
) -> tuple[RecordedAnswers, Callable[[str], None]]:
    """Return the answers of a recording, and a function that lets a new run in `store` open their secrets.

    Raises `NotFoundError`, `LogError` or `CorruptionError` for a recording that is missing or damaged, and
    `UsageError` for another word than those of `Effects`.
    """
    if effects not in ("live", "recorded"):
        raise UsageError(f'effects must be "live" or "recorded", not {effects!r}')
    source = given.store or store
    run_reader.require_run(source, given.run_id)
    history = History()
    checked = run_reader.checked(source, given.run_id, LogCheck(source.get, history=history))
    entries = without_suspensions(entry for entry, _ in checked)
    started = entries[0].event
    assert isinstance(started, RunStarted)
    if started.max_concurrency is not None:
        entries = one_after_another(entries)
    found = RecordedAnswers(
        list(_needed(entries, waits=given.nested)), started.plan_id, (), source.get, goes_on_with=""
    )
    found.effects, found.shut, found.shows = shut or effects == "recorded", shut, given.shows
    found.kept, found.run_id = given.kept, given.run_id

    def share(run_id: str) -> None:
        with inheriting(source, given.run_id, store, run_id, history):
            pass

    return found, share


def for_child(
    past: object, key: str, store: Store, opening: Opening
) -> tuple[RecordedAnswers, Callable[[str], None], Opening] | None:
    """Return what `prepared` returns for the child run under the key of a wait, None where its parent has no facts.

    A child that an applied dry run has not shown has none either: none of its effects was shown.
    """
    if not isinstance(past, RecordedAnswers) or not (past.shows or past.children):
        return None
    child = past.children.get(key)
    if child is not None and store.run_exists(child):
        given = FactsFrom(child, shows=past.shows, nested=True)
        return prepared(given, store, opening, effects="live" if past.shows else "recorded")
    if not past.shows:
        return None
    found = no_answers(store)
    found.shows, found.run_id = True, past.run_id
    return found, lambda _: None, _stored(found, opening)


def _stored(past: RecordedAnswers, opening: Opening) -> Opening:
    """Return an opening that stores the facts with the new run, so that they can be read again when it resumes."""
    past_id = opening.payloads.add(ArtifactKind.SHARED_PAST, past.to_bytes())
    info = {**opening.info, FACTS_FROM: past.run_id, FACTS_FROM_ID: past_id}
    if past.shows:
        info[FACTS_EFFECTS] = SHOWN
    elif past.effects and not past.shut:
        info[FACTS_EFFECTS] = "recorded"
    return attrs.evolve(opening, info=info)


def _needed(entries: Sequence[Entry], *, waits: bool) -> Iterator[Entry]:
    """Yield what answers depend on: facts, intents, where attempts begin and fail, and with `waits` child runs."""
    for entry in entries:
        event = entry.event
        if isinstance(event, StateFailed) and event.failure_snapshot_id is not None:
            event = attrs.evolve(event, failure_snapshot_id=None)
            yield entry._replace(event=event, body=codec.encode_event(event))
        elif isinstance(event, StateEntered | StateFailed | FactRecorded | EffectIntended) or (
            waits and isinstance(event, WaitBegun)
        ):
            yield entry


def _named(entries: Sequence[Entry]) -> Iterator[tuple[str, ArtifactKind]]:
    for entry in entries:
        event = entry.event
        if isinstance(event, EffectIntended | FactRecorded):
            yield event.request_digest, ArtifactKind.FACT_REQUEST
        if isinstance(event, FactRecorded) and isinstance(event.outcome, FactValue):
            yield event.outcome.payload_id, ArtifactKind.FACT_PAYLOAD


def _without_attempt(key: str) -> str:
    state_id, _, rest = key.partition("/")
    return f"{state_id}{rest.partition('/')[2]}" if key.startswith(RESERVED_FACT_PREFIX) else key


def is_missing(fact: FactRecorded) -> bool:
    """Say whether a fact is the refusal of a call that had no answer in a recording."""
    outcome = fact.outcome
    return isinstance(outcome, FactError) and outcome.error.code in {
        Code.MISSING_FACT,
        Code.MISSING_FACT_KEY,
    }


def facts_from(first: Entry) -> str | None:
    """Return the run that a run's facts came from, given its first entry; None when it has only its own."""
    found = first.info.get(FACTS_FROM) if FACTS_FROM_ID in first.info else None
    return found if isinstance(found, str) else None


def applied_from(first: Entry) -> str | None:
    """Return the dry run that a run applies, given its first entry; None for any other run."""
    return facts_from(first) if first.info.get(FACTS_EFFECTS) == SHOWN else None


def recorded_past(first: Entry, data: bytes, load: Callable[[str], bytes], *, shut: bool) -> RecordedAnswers:
    """Return the answers that were stored with a run as `data`, to resume it."""
    found = RecordedAnswers.from_bytes(data, load)
    assert isinstance(found, RecordedAnswers)
    found.shut, found.run_id = shut, facts_from(first) or ""
    found.effects = shut or first.info.get(FACTS_EFFECTS) == "recorded"
    found.shows = first.info.get(FACTS_EFFECTS) == SHOWN
    return found


def no_answers(store: Store) -> RecordedAnswers:
    """Return the answers of a dry run that no earlier run gives any."""
    return RecordedAnswers([], "", (), store.get, goes_on_with="")
