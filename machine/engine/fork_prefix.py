"""The part of a shared past that a fork has still to pass: its copied states, and answers for the repeated ones.

It holds a part of another run's log, with some facts replaced. A state is copied when its inputs are unchanged: the
context it begins on, its own facts, and the facts under explicit keys before it, which any state may read.
Otherwise it is run again and its calls are answered from here. This module decides and performs nothing.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from machine import canonical, codec
from machine.engine.fork_streams import parts_of
from machine.engine.log_by_state import Segment, cut_in, segments_of
from machine.errors import Code, CorruptionError, MachineError
from machine.events import (
    EffectIntended,
    Entry,
    Event,
    FactOutcome,
    FactRecorded,
    FactValue,
    RunStarted,
    StateFailed,
)
from machine.ids import RESERVED_FACT_PREFIX
from machine.io.attempt_scope import stored_seal
from machine.io.call_identity import Call, path_key
from machine.kernel.decisions import EnterState
from machine.kernel.facts_with_ignored_parts import IGNORED, IGNORED_MAC, IgnoredParts
from machine.kernel.history import History
from machine.kernel.reuse import comparable
from machine.kernel.sealed_facts import REQUEST_MAC, SECRET_PAYLOAD
from machine.kernel.transactions import Transactions, Unit
from machine.secrets.format_1.placeholder import has_placeholder, stripped

SHARED_PAST_ID: Final = "shared_past_id"
"""Name in the first event's info under which the artifact of the shared past is recorded."""

FACTS_FROM_ID: Final = "facts_from_id"
"""The same for the facts of another recording that answer a run's calls (`recorded_answers.py`)."""

_NUMBER: Final = re.compile("[0-9]{1,9}")

_Explicit = dict[str, FactOutcome | None]
_Found = tuple[int, FactRecorded]


class SharedPast:
    """A part of another run's log: `entries`, beginning with the first state that may have to be run again.

    `plan_id` is the plan in force before them, `goes_on_with` the one after them, `overridden` the seqs of facts
    whose outcome was replaced, `again` the states that run again in any case, and `load` returns the bytes of
    artifacts. `copied` and `taken` map seqs of the fork's events to the seqs of the copied and the reused entries.
    """

    shut = False
    """True for answers to a run that never goes outside, which may be given one by one."""

    def __init__(
        self,
        entries: Sequence[Entry],
        plan_id: str,
        overridden: Collection[int],
        load: Callable[[str], bytes],
        *,
        goes_on_with: str,
        again: Collection[str] = (),
    ) -> None:
        self.again = frozenset(again)
        self.entries = entries
        self.plan_id = plan_id
        self.goes_on_with = goes_on_with
        self.overridden = frozenset(overridden)
        self.copied: dict[int, int] = {}
        self.taken: dict[int, int] = {}
        self._load = load
        self.parts = functools.partial(parts_of, entries, load)
        self._rounds: dict[str, int] = defaultdict(int)
        self.segments = list(segments_of(entries, plan_id))
        self._of: dict[str, list[Segment]] = defaultdict(list)
        for segment in self.segments:
            self._of[segment.state_id].append(segment)
        self._infos: dict[str, Mapping[int, str]] = {}
        self._passed = 0

    def to_bytes(self) -> bytes:
        """Return the canonical JSON of this past, which `from_bytes` parses."""
        entries = [
            {"event": codec.event_to_json(entry.event), "info": dict(entry.info), "seq": entry.seq}
            for entry in self.entries
        ]
        # absent where it says nothing, so that what earlier versions wrote is written the same
        again = {"again": sorted(self.again)} if self.again else {}
        return canonical.encode(
            {
                **again,
                "entries": entries,
                "goes_on_with": self.goes_on_with,
                "overridden": sorted(self.overridden),
                "plan_id": self.plan_id,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes, load: Callable[[str], bytes]) -> SharedPast:
        """Return the past that bytes encode. Raises `CorruptionError` when they encode none."""
        try:
            value = canonical.decode(data)
            told = ((entry["seq"], canonical.encode(entry)) for entry in value["entries"])
            entries = [codec.decode_entry(seq, data) for seq, data in told]
            then, again = value["goes_on_with"], value.get("again", ())
            return cls(entries, value["plan_id"], value["overridden"], load, goes_on_with=then, again=again)
        except (MachineError, LookupError, TypeError, ValueError, AttributeError) as exc:
            raise CorruptionError(
                f"the shared past of a fork is invalid: {exc}", code=Code.ARTIFACT_CORRUPT
            ) from exc

    # -- progress of the fork --------------------------------------------------------------------------------------

    def note(self, event: Event) -> None:
        """Record an event of the fork itself."""
        if isinstance(event, StateFailed) and not event.cut:
            self._rounds[event.state_id] += 1

    def plan_now(self, history: History) -> str | None:
        """Return the plan under which the next of these states ran, or None when the fork has passed them all."""
        while self._passed < len(self.segments):
            segment = self.segments[self._passed]
            state = history.states.get(segment.state_id)
            if segment.settled and not (state is not None and state.status.settled):
                return segment.plan_id
            self._passed += 1
        return None

    # -- copied states ---------------------------------------------------------------------------------------------

    def carried(self, decision: EnterState, history: History) -> Sequence[Entry] | None:
        """Return the entries to copy for a state that is about to begin, or None when it is to run again.

        A state with an uncertain effect is never simply run again: its recorded attempts are copied as interrupted
        ones, so that it continues as after any crash.
        """
        state_id, base = decision.state_id, decision.base_snapshot_id
        found = self._of.get(state_id, [])
        if len(found) != 1 or state_id in history.states:
            return None
        (segment,) = found
        same = segment.base_snapshot_id == base and not any(
            entry.seq in self.overridden for entry in segment.entries
        )
        if (
            same
            and state_id not in self.again
            and self._explicit_before(segment) == self._explicit_now(history)
        ):
            return segment.entries
        return list(cut_in(segment, base)) if segment.uncertain else None

    def _explicit_before(self, segment: Segment) -> _Explicit:
        """Return the outcomes of the facts under explicit keys before a segment, None for an overridden one."""
        first = segment.entries[0].seq
        return {
            fact.key: None if seq in self.overridden else fact.outcome
            for seq, fact in self._facts
            if seq < first and _is_explicit(fact.key)
        }

    def _explicit_now(self, history: History) -> _Explicit:
        return {
            key: fact.outcome
            for key, fact in history.facts.items()
            if _is_explicit(key) and fact.state_id in self._of
        }

    # -- answers ---------------------------------------------------------------------------------------------------

    def answer(
        self, call: Call, state_id: str, *, keeps_all: bool, alike: int
    ) -> tuple[int, FactRecorded] | None:
        """Return the recorded fact that answers a call of a repeated state, and its seq; None to perform the call.

        `alike` counts the earlier calls of its attempt with the same secrets.
        """
        like = [item for item in self._like(call, state_id) if not item[1].may_repeat]
        if self.differs_in_ignored(call, state_id):
            return None
        if _is_explicit(call.key):
            found = self._under(like, state_id)
        elif call.mac is None:
            found = self._nth(call, like, state_id, None, keeps_all=keeps_all)
        else:
            found = self._nth(call, self._alike(call, like), state_id, alike, keeps_all=keeps_all)
        return None if found is None or self._is_gone(found[1]) else found

    def wait_answer(self, call: Call) -> _Found | None:
        """Return the answer to a wait for external input and its seq, None without one: its key has no attempt."""
        asked = call.key, call.namespace, call.digest
        return next(
            (
                (seq, fact)
                for seq, fact in self._facts
                if (fact.key, fact.namespace, fact.request_digest) == asked and fact.outcome.final
            ),
            None,
        )

    def _like(self, call: Call, state_id: str) -> list[_Found]:
        """Return the facts with the request of a call: under its explicit key, or of its state."""
        name = call.key if _is_explicit(call.key) else state_id
        found = self._by_request[name, call.namespace].get(call.digest, [])
        if not found and has_placeholder(call.data):
            # the hash of a secret differs between stores, and after its value has been changed
            bare = stripped(call.data)
            for digest, facts in self._by_request[name, call.namespace].items():
                if stripped(self._load(digest)) == bare:
                    found = [*found, *facts]
        return found

    def _alike(self, call: Call, like: Sequence[_Found]) -> Sequence[_Found]:
        """Return the facts among `like` whose requests had the same secrets as the call; see `sent_alike`."""
        known, mac = self._info(REQUEST_MAC), call.mac or ""
        macs = {known.get(seq, "") for seq, _ in like}
        if call.effect and len(macs) == 1 and not comparable(mac, *macs):
            return like
        return [item for item in like if known.get(item[0]) == mac]

    def transactions(self, state_id: str) -> Iterable[Unit]:
        """Return the transactions of a state on databases that lie in this past as a whole, in order.

        One with an overridden fact answers nothing.
        """
        return (
            unit
            for (state, _, _), unit in self._transactions.units.items()
            if state == state_id and not any(self.seq_of(fact) in self.overridden for fact in unit.facts)
        )

    @functools.cached_property
    def _transactions(self) -> Transactions:
        found = Transactions()
        for entry in self.entries:
            if isinstance(entry.event, FactRecorded):
                found.note(entry.event, entry.info)
            elif isinstance(entry.event, EffectIntended):
                found.intend(entry.event, entry.info)
        return found

    @functools.cached_property
    def _seqs(self) -> Mapping[tuple[str, int], int]:
        return {(fact.key, fact.attempt): seq for seq, fact in self._facts}

    def seq_of(self, fact: FactRecorded) -> int:
        """Return the seq of a fact of a transaction."""
        return self._seqs[fact.key, fact.attempt]

    def ambiguous(self, call: Call, state_id: str) -> bool:
        """Say whether a recorded effect differs from a call only in its secrets."""
        like = [item for item in self._like(call, state_id) if item[1].outcome.final]
        return call.mac is not None and bool(like) and not self._alike(call, like)

    def differs_in_ignored(self, call: Call, state_id: str) -> bool:
        """Say whether calls of one attempt with the request of a call differed only in what is not compared."""
        if _is_explicit(call.key) or not (self._info(IGNORED) and call.namespace == "http"):
            return False
        parts = IgnoredParts()
        like = self._by_request[state_id, call.namespace].get(call.digest, [])
        for seq, fact in like:
            parts.note(fact, self.ignored(seq))
        made = [fact for _, fact in like if fact.outcome.final]
        return parts.tells_apart((state_id, call.namespace, call.digest), made, effect=call.effect)

    def ignored(self, seq: int) -> Mapping[str, str]:
        """Return the info of the fact at a seq about what was not compared."""
        found = {name: self._info(name).get(seq) for name in (IGNORED, IGNORED_MAC)}
        return {name: text for name, text in found.items() if text is not None}

    def _under(self, alike: Sequence[_Found], state_id: str) -> _Found | None:
        attempts = self._attempts(state_id)
        here = [item for item in alike if item[1].state_id == state_id and item[1].attempt in attempts]
        final = [item for item in alike if item[1].outcome.final]
        return here[-1] if here else final[-1] if final else None

    def _nth(
        self, call: Call, like: Sequence[_Found], state_id: str, alike: int | None, *, keeps_all: bool
    ) -> _Found | None:
        """Return the answer to the n-th call with a request in the same round, as its last attempt saw it."""
        occurrence = call.key.rpartition("/")[2]
        if not _NUMBER.fullmatch(occurrence):  # a reconcile function asks for the present state of the world
            return None
        number = int(occurrence) if alike is None else alike
        successes = [item for item in like if item[1].outcome.final and item[1].made_in is not None]
        attempts = self._attempts(state_id)
        if attempts:
            first, last = (0 if keeps_all else attempts[0]), attempts[-1]
            before = [item for item in successes if first <= (item[1].made_in or 0) < last]
            if number < len(before):
                return before[number]
            if alike is not None:
                own = [item for item in like if (item[1].state_id, item[1].attempt) == (state_id, last)]
                own.sort(key=lambda item: int(item[1].key.rpartition("/")[2]))
                return own[number - len(before)] if number < len(before) + len(own) else None
            for item in reversed(like):
                key = path_key(state_id, last, call.namespace, item[1].request_digest, occurrence)
                if item[1].key == key:
                    return item
        if call.effect and number < len(successes):  # the effect has happened, no matter in which attempt
            return successes[number]
        return None

    def _attempts(self, state_id: str) -> list[int]:
        """Return the shared attempts whose facts the fork's current attempt may reuse (see `rounds`)."""
        rounds = [attempts for segment in self._of.get(state_id, ()) for attempts in segment.rounds]
        number = self._rounds[state_id]
        return rounds[number] if number < len(rounds) else []

    def _is_gone(self, fact: FactRecorded) -> bool:
        """Say whether an answer held a secret that only the recording process knew."""
        outcome = fact.outcome
        return (
            isinstance(outcome, FactValue)
            and not outcome.final
            and has_placeholder(self._load(outcome.payload_id))
        )

    def sealed(self, seq: int) -> tuple[str, bytes] | None:
        """Return the seal of the fact at a seq, and its artifact's id; None when it has no seal."""
        seal_id = self._info(SECRET_PAYLOAD).get(seq)
        return None if seal_id is None else (seal_id, stored_seal(self._load, seal_id))

    def was_effect(self, key: str) -> bool:
        """Say whether an effect was intended under a key."""
        return any(intent.key == key for intent in self._intents)

    def sent(self, state_id: str, namespace: str, idempotency_key: str) -> str | None:
        """Return the digest of the first request that a state sent under an idempotency key."""
        wanted = state_id, namespace, idempotency_key
        for intent in self._intents:
            if (intent.state_id, intent.namespace, intent.idempotency_key) == wanted:
                return intent.request_digest
        return None

    def took(self, seq: int, own_seq: int) -> None:
        """Record that the fact at a seq of this past is now the fork's own."""
        self.taken[own_seq] = seq

    def _info(self, name: str) -> Mapping[int, str]:
        """Return the info of entries under a name, by seq."""
        if name not in self._infos:
            self._infos[name] = {
                entry.seq: text for entry in self.entries if isinstance(text := entry.info.get(name), str)
            }
        return self._infos[name]

    @functools.cached_property
    def _intents(self) -> list[EffectIntended]:
        return [entry.event for entry in self.entries if isinstance(entry.event, EffectIntended)]

    @functools.cached_property
    def _facts(self) -> list[_Found]:
        return [item for segment in self.segments for item in segment.facts]

    @functools.cached_property
    def _by_request(self) -> Mapping[tuple[str, str], dict[str, list[_Found]]]:
        found: dict[tuple[str, str], dict[str, list[_Found]]] = defaultdict(dict)
        for item in self._facts:
            fact = item[1]
            name = fact.key if _is_explicit(fact.key) else fact.state_id
            found[name, fact.namespace].setdefault(fact.request_digest, []).append(item)
        return found


def shared_past_id(entry: Entry) -> str | None:
    """Return the id of the shared past, or of the recorded answers, that a run's first entry names, or None."""
    if not isinstance(entry.event, RunStarted):
        return None
    found = entry.info.get(SHARED_PAST_ID, entry.info.get(FACTS_FROM_ID))
    return found if isinstance(found, str) else None


def _is_explicit(key: str) -> bool:
    return not key.startswith(RESERVED_FACT_PREFIX)
