"""The parts of a log that belong to one state each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import attrs

from machine import codec
from machine.engine.fork_streams import is_answer
from machine.events import (
    EffectIntended,
    Entry,
    Event,
    FactRecorded,
    RunResumed,
    StateCompleted,
    StateEntered,
    StateFailed,
    StateSkipped,
)
from machine.exception_to_error_info import orphaned


@attrs.frozen(eq=False)
class Segment:
    """One contiguous part of a log that belongs to one state; `plan_id` is the plan it began under."""

    state_id: str
    plan_id: str
    entries: Sequence[Entry]

    @property
    def settled(self) -> bool:
        """True when the state was completed or skipped."""
        return isinstance(self.entries[-1].event, StateCompleted | StateSkipped)

    @property
    def base_snapshot_id(self) -> str | None:
        """The id of the context the state began on, None when no attempt begins in this part."""
        return next((event.base_snapshot_id for event in self._of(StateEntered)), None)

    @property
    def uncertain(self) -> bool:
        """True when an effect was intended and its outcome is unknown."""
        open_keys: set[str] = set()
        for entry in self.entries:
            if isinstance(entry.event, EffectIntended):
                open_keys.add(entry.event.key)
            elif isinstance(entry.event, FactRecorded) and not entry.event.given_up:
                open_keys.discard(entry.event.key)
        return bool(open_keys)

    @cached_property
    def rounds(self) -> list[list[int]]:
        """The attempts, grouped so that each may reuse the facts of the interrupted one before it."""
        found: list[list[int]] = [[]]
        for entry in self.entries:
            if isinstance(entry.event, StateEntered):
                found[-1].append(entry.event.attempt)
            elif isinstance(entry.event, StateFailed) and not entry.event.cut:
                found.append([])
        return [attempts for attempts in found if attempts]

    @cached_property
    def facts(self) -> list[tuple[int, FactRecorded]]:
        """The facts but parts of streams, each with its seq."""
        return [(each.seq, fact) for each in self.entries if is_answer(fact := each.event)]

    def _of(self, kind: type[Any]) -> list[Any]:
        return [entry.event for entry in self.entries if isinstance(entry.event, kind)]


def segments_of(entries: Sequence[Entry], plan_id: str) -> Iterator[Segment]:
    """Yield the states of a part of a log, each with the run-level events that occurred before it settled."""
    current: list[Entry] = []
    state_id, began_under = "", plan_id
    for entry in entries:
        event = entry.event
        lane = str(getattr(event, "state_id", ""))
        if lane and lane != state_id:
            if current:
                yield Segment(state_id, began_under, current)
            current, state_id, began_under = [], lane, plan_id
        if lane or (current and not Segment(state_id, began_under, current).settled):
            current.append(entry)
        if isinstance(event, RunResumed) and event.plan_id is not None:
            plan_id = event.plan_id
    if current:
        yield Segment(state_id, began_under, current)


def cut_in(segment: Segment, base_snapshot_id: str) -> Iterator[Entry]:
    """Yield a state's attempts as interrupted attempts that begin on another context; the last one is open."""
    attempts = [attempt for attempts in segment.rounds for attempt in attempts]
    for attempt in attempts:
        for entry in segment.entries:
            event = entry.event
            if isinstance(event, StateEntered) and event.attempt == attempt:
                if attempt != attempts[0]:
                    yield _instead(entry, StateFailed(segment.state_id, orphaned(segment.state_id)))
                yield _instead(entry, StateEntered(segment.state_id, attempt, base_snapshot_id))
            elif isinstance(event, FactRecorded | EffectIntended) and event.attempt == attempt:
                yield entry


def _instead(entry: Entry, event: Event) -> Entry:
    return entry._replace(event=event, body=codec.encode_event(event))
