"""The work of a run, described without its interrupted attempts: the same however often it crashed, and where.

An interrupted attempt leaves behind only the successes that later attempts reuse. Failed outcomes show in the
result of their attempts; intents are counted by the receiver of the effects.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from machine import canonical, codec
from machine.errors import Code
from machine.events import (
    CleanupBegun,
    DomainEventRecorded,
    EffectIntended,
    Entry,
    FactRecorded,
    RetryScheduled,
    RunCompleted,
    RunStarted,
    StateCompleted,
    StateEntered,
    StateFailed,
    StateSkipped,
)
from machine.ids import RESERVED_FACT_PREFIX
from machine.kernel.linearize import without_suspensions
from machine.kernel.transactions import dropped


def interrupted_attempts(entries: Iterable[Entry]) -> set[tuple[str, int]]:
    """Return the attempts that a crash interrupted, by state and number, including attempts that are still open."""
    interrupted: set[tuple[str, int]] = set()
    attempt: dict[str, int] = {}
    for entry in entries:
        match entry.event:
            case StateEntered(state_id, number):
                attempt[state_id] = number
                interrupted.add((state_id, number))
            case StateFailed(state_id, error) if error.code == Code.ORPHAN_ATTEMPT_RECOVERED:
                continue
            case StateCompleted(state_id) | StateFailed(state_id):
                interrupted.discard((state_id, attempt.get(state_id, 0)))
            case _:
                continue
    return interrupted


def summary_of(entries: Iterable[Entry]) -> dict[str, Any]:
    """Return the work of a run as JSON: its begin and end, each state's attempts and facts, none interrupted."""
    known = without_suspensions(entries)
    interrupted, without_end = interrupted_attempts(known), dropped(known)
    run: dict[str, Any] = {}
    states: dict[str, Any] = {}
    attempt: dict[str, int] = {}
    for entry in known:
        event = entry.event
        match event:
            case RunStarted() | CleanupBegun() | RunCompleted():
                run[event.type] = codec.event_to_json(event)
            case StateSkipped(state_id, reason):
                _state(states, state_id)["skipped"] = reason
            case StateEntered(state_id, number, base):
                attempt[state_id] = number
                if (state_id, number) not in interrupted:
                    _state(states, state_id)["attempts"].append({"base": base, "events": []})
            case RetryScheduled(state_id, _, delay_ms):
                _state(states, state_id)["attempts"].append({"after_ms": delay_ms})
            case FactRecorded(state_id=state_id) if event.outcome.final and event.key not in without_end:
                told = codec.event_to_json(event)
                _state(states, state_id)["facts"].append(
                    [event.namespace, event.request_digest, told["outcome"]]
                )
            case DomainEventRecorded() | StateCompleted() | StateFailed():
                state_id = event.state_id
                if (state_id, attempt.get(state_id)) not in interrupted:
                    told = {
                        key: value for key, value in codec.event_to_json(event).items() if key != "attempt"
                    }
                    _state(states, state_id)["attempts"][-1]["events"].append(told)
            case _:
                continue
    for state in states.values():
        state["facts"].sort(key=canonical.encode)  # concurrent calls come in any order
    return {"run": run, "states": states}


def digest_of(told: Any) -> str:
    """Return the digest of a summary."""
    return canonical.artifact_id(canonical.encode(told))


def repeated_effects(entries: Iterable[Entry]) -> list[str]:
    """Return the namespaces of effects with a second intent although their outcome was in the log.

    The n-th call of an attempt with a certain request is answered by the n-th success of the attempts before
    it.
    """
    wrong: list[str] = []
    successes: dict[tuple[str, str], list[int]] = {}
    for entry in entries:
        event = entry.event
        if isinstance(event, FactRecorded) and event.outcome.final:
            successes.setdefault((event.state_id, event.request_digest), []).append(event.attempt)
        elif isinstance(event, EffectIntended) and event.key.startswith(RESERVED_FACT_PREFIX):
            before = successes.get((event.state_id, event.request_digest), ())
            number = int(event.key.rpartition("/")[2])
            if number < sum(attempt < event.attempt for attempt in before):
                wrong.append(event.state_id)
    return wrong


def _state(states: dict[str, Any], state_id: str) -> dict[str, Any]:
    found: dict[str, Any] = states.setdefault(state_id, {"attempts": [], "facts": []})
    return found
