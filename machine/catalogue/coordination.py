"""Kinds about coordination: choosing an agent for a task, and agents used as tools. Turns count from 0."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from machine.catalogue.fields import Count, Ratio
from machine.catalogue.registry import Kind, Level
from machine.catalogue.tools import ModelTelemetry, Provenance
from machine.ids import RunId

__all__ = [
    "KINDS",
    "AgentToolCompleted",
    "AgentToolFailed",
    "AgentToolInvoked",
    "AgentToolProgress",
    "AgentToolTerminated",
    "AgentToolTurn",
    "CoordinatorDecision",
    "CoordinatorDiscovery",
    "CoordinatorScoring",
]


@attrs.frozen
class CoordinatorDiscovery:
    """A coordinator found who could take a task."""

    coordinator_id: str
    candidates: tuple[str, ...]
    task: str | None = None


@attrs.frozen
class CoordinatorScoring:
    """A coordinator scored its candidates, by name."""

    coordinator_id: str
    scores: Mapping[str, float]
    method: str | None = None


@attrs.frozen
class CoordinatorDecision:
    """A coordinator chose a candidate."""

    coordinator_id: str
    chosen: str
    reason: str | None = None
    confidence: Ratio | None = None


@attrs.frozen
class AgentToolInvoked:
    """An agent was called as a tool."""

    invocation_id: str
    agent: str
    task: str | None = None
    input_ref: str | None = None
    child_run_id: RunId | None = None


@attrs.frozen
class AgentToolProgress:
    """An agent called as a tool said how far it is."""

    invocation_id: str
    agent: str
    message: str | None = None
    progress: Ratio | None = None


@attrs.frozen
class AgentToolTurn:
    """An agent called as a tool took a turn."""

    invocation_id: str
    agent: str
    turn: Count
    role: str | None = None
    content_ref: str | None = None
    model: ModelTelemetry | None = None


@attrs.frozen
class AgentToolCompleted:
    """An agent called as a tool returned."""

    invocation_id: str
    agent: str
    turns: Count | None = None
    duration_ms: Count | None = None
    output_ref: str | None = None
    model: ModelTelemetry | None = None
    provenance: Provenance | None = None


@attrs.frozen
class AgentToolTerminated:
    """An agent called as a tool was stopped from outside it."""

    invocation_id: str
    agent: str
    reason: str
    turns: Count | None = None


@attrs.frozen
class AgentToolFailed:
    """An agent called as a tool ended in an error."""

    invocation_id: str
    agent: str
    error_code: str
    message: str
    retryable: bool | None = None
    duration_ms: Count | None = None


KINDS = (
    Kind("coordinator_discovery", CoordinatorDiscovery),
    Kind("coordinator_scoring", CoordinatorScoring, Level.VERBOSE),
    Kind("coordinator_decision", CoordinatorDecision),
    Kind("agent_tool_invoked", AgentToolInvoked),
    Kind("agent_tool_progress", AgentToolProgress, Level.VERBOSE),
    Kind("agent_tool_turn", AgentToolTurn, Level.VERBOSE),
    Kind("agent_tool_completed", AgentToolCompleted),
    Kind("agent_tool_terminated", AgentToolTerminated),
    Kind("agent_tool_failed", AgentToolFailed),
)
