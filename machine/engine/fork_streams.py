"""The parts of a stream that the shared past of a fork holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeGuard

from machine import canonical
from machine.events import Entry, Event, FactRecorded, FactValue
from machine.ids import piece_key
from machine.io.stream_end import pieces_of


def is_answer(event: Event) -> TypeGuard[FactRecorded]:
    """Say whether an event is the fact of a call, and no part of a stream."""
    return isinstance(event, FactRecorded) and event.piece is None


def parts_of(
    entries: Iterable[Entry], load: Callable[[str], bytes], seq: int, end: FactRecorded
) -> list[tuple[int, FactRecorded]]:
    """Return the head and the pieces of the stream that the fact at a seq ended; none if it ended no stream."""
    outcome = end.outcome
    if isinstance(outcome, FactValue):
        answer = canonical.decode_stored(outcome.payload_id, load(outcome.payload_id))
        if pieces_of(answer) is None:
            return []
    own = {
        fact.key: (entry.seq, fact)
        for entry in entries
        if entry.seq < seq
        and isinstance(fact := entry.event, FactRecorded)
        and (fact.state_id, fact.attempt) == (end.state_id, end.attempt)
    }
    found: list[tuple[int, FactRecorded]] = []
    while (part := own.get(piece_key(end.key, len(found)))) is not None:
        found.append(part)
    return found
