# The catalogue as type checkers see it. tests/test_catalogue_types.py makes it, and compares it with the table.
# ruff: noqa: PYI021
# fmt: off

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from machine.catalogue.field_types import Count as Count
from machine.catalogue.field_types import Ratio as Ratio
from machine.catalogue.kinds import ModelTelemetry as ModelTelemetry
from machine.catalogue.kinds import Provenance as Provenance
from machine.catalogue.markdown import render_markdown as render_markdown
from machine.catalogue.registry import Catalogue as Catalogue
from machine.catalogue.registry import Custom as Custom
from machine.catalogue.registry import Kind as Kind
from machine.catalogue.registry import Level as Level

STANDARD: Catalogue

@attrs.frozen
class ArtifactWritten:
    """An artifact was stored for this run."""

    artifact_id: str
    kind: str
    size_bytes: Count | None = None
    media_type: str | None = None
    label: str | None = None

@attrs.frozen
class OpBoundary:
    """The run entered or left an operation, or one step of it."""

    op_id: str
    boundary: Literal["entered", "left"]
    op_path: str | None = None
    label: str | None = None

@attrs.frozen
class ChildRunSpawned:
    """A child run was started."""

    child_run_id: str
    op_id: str | None = None
    fact_key: str | None = None
    input_ref: str | None = None

@attrs.frozen
class ChildRunCompleted:
    """A child run ended."""

    child_run_id: str
    status: Literal["completed", "failed", "cancelled", "limit_exceeded"]
    output_ref: str | None = None
    error_code: str | None = None
    duration_ms: Count | None = None

@attrs.frozen
class CheckpointSaved:
    """A snapshot of the context was kept as a checkpoint."""

    snapshot_id: str
    state_id: str | None = None
    label: str | None = None

@attrs.frozen
class StepDiscovered:
    """A step of work became known while the run was under way."""

    step_id: str
    title: str | None = None
    parent_step_id: str | None = None
    depends_on: tuple[str, ...] | None = None

@attrs.frozen
class StateUpdated:
    """A state changed what the context holds."""

    state_id: str
    changed_keys: tuple[str, ...] | None = None
    snapshot_id: str | None = None
    summary: str | None = None

@attrs.frozen
class ToolCallStarted:
    """A tool was called."""

    call_id: str
    tool: str
    arguments: Mapping[str, Any] | None = None
    input_ref: str | None = None

@attrs.frozen
class ToolCallCompleted:
    """A tool call returned."""

    call_id: str
    tool: str
    duration_ms: Count | None = None
    output_ref: str | None = None
    model: ModelTelemetry | None = None
    provenance: Provenance | None = None

@attrs.frozen
class ToolCallFailed:
    """A tool call ended in an error."""

    call_id: str
    tool: str
    error_code: str
    message: str
    retryable: bool | None = None
    duration_ms: Count | None = None
    model: ModelTelemetry | None = None

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

@attrs.frozen
class BudgetExceeded:
    """More of a resource was used than its budget allows."""

    budget: str
    limit: Count
    used: Count
    unit: str | None = None
    scope: str | None = None

@attrs.frozen
class TokenBudgetExceeded:
    """More tokens were used than the budget allows."""

    limit_tokens: Count
    used_tokens: Count
    model: str | None = None
    scope: str | None = None

@attrs.frozen
class CostBudgetExceeded:
    """More money was spent than the budget allows, in millionths of a US dollar."""

    limit_usd_micros: Count
    used_usd_micros: Count
    scope: str | None = None

@attrs.frozen
class AutonomyLimitReached:
    """The limit of what may be done without a person was reached."""

    limit: Count
    used: Count
    action: str | None = None
    scope: str | None = None

@attrs.frozen
class CircuitBreakerTripped:
    """Calls to something that keeps failing were stopped."""

    breaker: str
    failures: Count | None = None
    threshold: Count | None = None
    retry_after_ms: Count | None = None
    reason: str | None = None

@attrs.frozen
class EscalationRequired:
    """Somebody with more authority has to decide."""

    reason: str
    escalate_to: str | None = None
    severity: str | None = None
    call_id: str | None = None

@attrs.frozen
class PolicyViolation:
    """Something was tried that a policy does not allow."""

    policy: str
    reason: str
    action: str | None = None
    namespace: str | None = None
    call_id: str | None = None

@attrs.frozen
class ToolApprovalRequired:
    """A tool may not be called before somebody approves it."""

    call_id: str
    tool: str
    approval_id: str | None = None
    reason: str | None = None
    input_ref: str | None = None

@attrs.frozen
class StrategyStarted:
    """A strategy began to pursue a goal."""

    strategy_id: str
    strategy: str
    goal: str | None = None
    max_iterations: Count | None = None

@attrs.frozen
class PlanGenerated:
    """A strategy made a plan, or a new revision of it."""

    strategy_id: str
    steps: tuple[str, ...]
    revision: Count | None = None
    plan_ref: str | None = None

@attrs.frozen
class IterationStarted:
    """An iteration of a strategy began."""

    strategy_id: str
    iteration: Count
    focus: str | None = None

@attrs.frozen
class ToolCalled:
    """A strategy chose to call a tool."""

    strategy_id: str
    tool: str
    iteration: Count | None = None
    call_id: str | None = None

@attrs.frozen
class CriticVerdict:
    """A critic judged a result."""

    strategy_id: str
    verdict: Literal["accept", "revise", "reject"]
    iteration: Count | None = None
    score: float | None = None
    feedback: str | None = None

@attrs.frozen
class IterationCompleted:
    """An iteration of a strategy ended."""

    strategy_id: str
    iteration: Count
    outcome: str | None = None
    output_ref: str | None = None
    duration_ms: Count | None = None

@attrs.frozen
class StrategyLimitHit:
    """A strategy was stopped by one of its limits."""

    strategy_id: str
    limit_name: str
    limit: Count | None = None
    used: Count | None = None

@attrs.frozen
class StrategyCompleted:
    """A strategy ended."""

    strategy_id: str
    status: Literal["succeeded", "failed", "stopped"]
    iterations: Count | None = None
    output_ref: str | None = None
    duration_ms: Count | None = None

@attrs.frozen
class GoalEvaluated:
    """It was decided whether a goal is met."""

    goal: str
    met: bool
    strategy_id: str | None = None
    confidence: Ratio | None = None
    rationale: str | None = None

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
    child_run_id: str | None = None

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
