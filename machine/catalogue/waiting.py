"""Kinds about waiting for people, clocks and external events."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from machine.catalogue.fields import Count
from machine.catalogue.registry import Kind, Level

__all__ = [
    "KINDS",
    "ApprovalReceived",
    "ExternalEventReceived",
    "InterruptRaised",
    "NodeParked",
    "TimerCreated",
    "TimerFired",
]


@attrs.frozen
class InterruptRaised:
    """The run stopped to wait for an answer from a person or a program."""

    interrupt_id: str
    reason: str
    node_id: str | None = None
    prompt: str | None = None
    data: Any = None


@attrs.frozen
class ApprovalReceived:
    """Somebody decided what was waiting for approval."""

    approval_id: str
    decision: Literal["approved", "rejected"]
    decided_by: str | None = None
    comment: str | None = None


@attrs.frozen
class TimerCreated:
    """A timer was set. Times are in milliseconds since 1970 (UTC)."""

    timer_id: str
    fires_at_ms: Count
    label: str | None = None


@attrs.frozen
class TimerFired:
    """A timer fired. Times are in milliseconds since 1970 (UTC)."""

    timer_id: str
    fired_at_ms: Count | None = None


@attrs.frozen
class ExternalEventReceived:
    """An external event arrived for this run."""

    correlation_key: str
    event_type: str | None = None
    source: str | None = None
    data: Any = None
    payload_ref: str | None = None


@attrs.frozen
class NodeParked:
    """A node waits for something, at most until a time in milliseconds since 1970 (UTC)."""

    node_id: str
    reason: str
    waits_for: str | None = None
    until_ms: Count | None = None


KINDS = (
    Kind("interrupt_raised", InterruptRaised, Level.ESSENTIAL),
    Kind("approval_received", ApprovalReceived, Level.ESSENTIAL),
    Kind("timer_created", TimerCreated),
    Kind("timer_fired", TimerFired),
    Kind("external_event_received", ExternalEventReceived, Level.ESSENTIAL),
    Kind("node_parked", NodeParked),
)
