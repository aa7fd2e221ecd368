# The catalogue as type checkers see it. tests/test_catalogue_types.py makes it, and compares it with the table.
# ruff: noqa: PYI021
# fmt: off

from typing import Any, Literal

import attrs

from machine.catalogue.field_types import Count as Count
from machine.catalogue.field_types import Ratio as Ratio
from machine.catalogue.field_types import Time as Time
from machine.catalogue.markdown import render_markdown as render_markdown
from machine.catalogue.payload_parts import ErrorInfo as ErrorInfo
from machine.catalogue.payload_parts import ModelTelemetry as ModelTelemetry
from machine.catalogue.payload_parts import Parent as Parent
from machine.catalogue.payload_parts import Provenance as Provenance
from machine.catalogue.registry import Catalogue as Catalogue
from machine.catalogue.registry import Custom as Custom
from machine.catalogue.registry import Kind as Kind
from machine.catalogue.registry import Level as Level

STANDARD: Catalogue

@attrs.frozen
class WorkflowStarted:
    """A workflow began with its input."""

    workflow_id: str
    workflow_version: str
    initial_input: Any

@attrs.frozen
class WorkflowCompleted:
    """A workflow ended with a result."""

    final_state: Any

@attrs.frozen
class WorkflowFailed:
    """A workflow ended in an error."""

    error: str

@attrs.frozen
class WorkflowCancelled:
    """A workflow was cancelled."""

    reason: str | None = None

@attrs.frozen
class NodeScheduled:
    """A node was put into a queue."""

    queue_type: str
    node_id: str | None = None

@attrs.frozen
class NodeStarted:
    """A worker began an attempt of a node."""

    worker_id: str
    attempt: int
    node_id: str | None = None

@attrs.frozen
class NodeCompleted:
    """A node ended with its output and what it changed."""

    output: Any
    state_patch: Any
    duration_ms: int
    node_id: str | None = None
    gen_ai_system: str | None = None
    gen_ai_model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None
    cost_usd: float | None = None
    provenance: Provenance | None = None

@attrs.frozen
class NodeFailed:
    """An attempt of a node failed."""

    error: str
    attempt: int
    retryable: bool
    node_id: str | None = None

@attrs.frozen
class NodeSkipped:
    """A node will not run."""

    reason: str
    node_id: str | None = None

@attrs.frozen
class NodeCancelled:
    """A node was cancelled."""

    node_id: str | None = None

@attrs.frozen
class InterruptRaised:
    """A node asks a person to review a state."""

    reason: str
    state_for_review: Any
    node_id: str | None = None

@attrs.frozen
class ApprovalReceived:
    """Somebody decided what was waiting for approval."""

    user_id: str
    decision: Literal["approved", "rejected"]
    node_id: str | None = None
    comment: str | None = None
    state_patch: Any = None

@attrs.frozen
class TimerCreated:
    """A timer was set."""

    fire_at: Time
    node_id: str | None = None
    correlation_key: str | None = None

@attrs.frozen
class TimerFired:
    """A timer fired."""

    node_id: str | None = None
    correlation_key: str | None = None

@attrs.frozen
class ExternalEventReceived:
    """An external event arrived."""

    correlation_key: str
    payload: Any

@attrs.frozen
class ChildWorkflowStarted:
    """A child workflow was started."""

    child_execution_id: str
    child_workflow_id: str
    node_id: str | None = None

@attrs.frozen
class ChildWorkflowCompleted:
    """A child workflow ended with a result."""

    child_execution_id: str
    result: Any
    node_id: str | None = None

@attrs.frozen
class ChildWorkflowFailed:
    """A child workflow ended in an error."""

    child_execution_id: str
    error: str
    node_id: str | None = None

@attrs.frozen
class BudgetExceeded:
    """More of a resource was used than its budget allows."""

    kind: str
    limit: int
    current: int
    node_id: str | None = None

@attrs.frozen
class TokenBudgetExceeded:
    """More tokens were used than the budget allows."""

    kind: str
    limit: int
    current: int
    node_id: str | None = None

@attrs.frozen
class CostBudgetExceeded:
    """More money was spent than the budget allows, in US dollars."""

    limit_usd: float
    current_usd: float
    node_id: str | None = None

@attrs.frozen
class AutonomyLimitReached:
    """An agent reached the limit of what it may do without a person."""

    agent_ref: str
    limit_type: str
    limit_value: Any
    actual_value: Any
    node_id: str | None = None

@attrs.frozen
class CircuitBreakerTripped:
    """An agent that keeps failing was stopped."""

    agent_ref: str
    consecutive_errors: int
    threshold: int
    node_id: str | None = None

@attrs.frozen
class EscalationRequired:
    """Somebody with more authority has to decide."""

    agent_ref: str
    reason: str
    escalation_target: str
    node_id: str | None = None

@attrs.frozen
class PolicyViolation:
    """Something was tried that a policy does not allow."""

    rule: str
    decision: str
    policy_scope: str
    node_id: str | None = None

@attrs.frozen
class ToolApprovalRequired:
    """A tool may not be called before somebody approves it."""

    tool_name: str
    approver: str
    context: Any
    node_id: str | None = None

@attrs.frozen
class StrategyStarted:
    """A strategy began with its configuration."""

    strategy: str
    config: Any

@attrs.frozen
class PlanGenerated:
    """A strategy made a plan."""

    steps: tuple[str, ...]

@attrs.frozen
class IterationStarted:
    """An iteration of a strategy began."""

    iteration: int

@attrs.frozen
class ToolCalled:
    """A tool was called."""

    tool: str
    node_id: str | None = None

@attrs.frozen
class CriticVerdict:
    """A critic judged a result."""

    score: float
    passed: bool
    node_id: str | None = None
    feedback: str | None = None

@attrs.frozen
class IterationCompleted:
    """An iteration of a strategy ended."""

    iteration: int
    input_tokens: int
    output_tokens: int
    cost_delta_usd: float | None = None

@attrs.frozen
class StrategyLimitHit:
    """A strategy was stopped by one of its limits."""

    limit_type: str
    limit_value: Any
    actual_value: Any

@attrs.frozen
class StrategyCompleted:
    """A strategy ended."""

    iterations: int
    total_cost_usd: float | None = None

@attrs.frozen
class CoordinatorDiscovery:
    """A coordinator found who could take a task, and who was left out."""

    query_skills: tuple[str, ...]
    candidates: tuple[Any, ...]
    filtered_out: tuple[Any, ...]
    node_id: str | None = None
    query_trust_domain: str | None = None

@attrs.frozen
class CoordinatorScoring:
    """A coordinator ranked its candidates."""

    rankings: tuple[Any, ...]
    spread: float
    weights: Any
    node_id: str | None = None

@attrs.frozen
class CoordinatorDecision:
    """A coordinator chose a candidate, or none."""

    method: str
    confidence: float
    rejected: tuple[Any, ...]
    node_id: str | None = None
    selected: str | None = None
    reasoning: str | None = None
    tiebreaker_tokens: Any = None
    tiebreaker_cost: float | None = None

@attrs.frozen
class AgentToolInvoked:
    """An agent was called as a tool."""

    agent_uri: str
    mode: str
    protocol: str
    input_hash: str
    node_id: str | None = None

@attrs.frozen
class AgentToolProgress:
    """An agent called as a tool gave a part of its output."""

    chunk_index: int
    partial_output_summary: str
    node_id: str | None = None

@attrs.frozen
class AgentToolTurn:
    """An agent called as a tool took a turn."""

    turn_number: int
    direction: str
    content_summary: str
    tokens: int
    cost: float
    node_id: str | None = None

@attrs.frozen
class AgentToolCompleted:
    """An agent called as a tool returned."""

    output: Any
    total_cost: float
    latency_ms: int
    node_id: str | None = None
    provenance: Any = None
    total_turns: int | None = None

@attrs.frozen
class AgentToolTerminated:
    """An agent called as a tool was stopped before it returned."""

    reason: str
    chunks_received: int
    cost: float
    node_id: str | None = None
    partial_output: Any = None

@attrs.frozen
class AgentToolFailed:
    """An agent called as a tool ended in an error."""

    failure_type: str
    message: str
    retryable: bool
    node_id: str | None = None

@attrs.frozen
class StateUpdated:
    """The state of an agent changed."""

    payload: Any
    step_id: str | None = None

@attrs.frozen
class ActionRequested:
    """An agent asked for an action."""

    action_id: str
    payload: Any

@attrs.frozen
class ActionSucceeded:
    """An action of an agent succeeded."""

    action_id: str
    output: Any

@attrs.frozen
class ActionFailed:
    """An action of an agent failed."""

    action_id: str
    error: str

@attrs.frozen
class Interrupted:
    """An agent stopped to wait for an answer."""

    value: Any

@attrs.frozen
class Resumed:
    """An agent went on with an answer."""

    value: Any

@attrs.frozen
class Completed:
    """An agent ended."""


@attrs.frozen
class ExecutionStarted:
    """An execution began."""

    parent: Parent | None = None
    metadata: Any = None

@attrs.frozen
class StepStarted:
    """A step of an execution began."""

    step_type: str
    name: str
    step_id: str | None = None
    parent_step_id: str | None = None

@attrs.frozen
class StepCompleted:
    """A step of an execution ended."""

    duration_ms: int
    step_id: str | None = None
    output: str | None = None

@attrs.frozen
class StepFailed:
    """A step of an execution failed."""

    error: ErrorInfo
    step_id: str | None = None

@attrs.frozen
class ExecutionPaused:
    """An execution was paused."""

    reason: str

@attrs.frozen
class ExecutionResumed:
    """An execution went on."""


@attrs.frozen
class ExecutionCompleted:
    """An execution ended."""

    duration_ms: int
    output: str | None = None

@attrs.frozen
class ExecutionFailed:
    """An execution ended in an error."""

    error: ErrorInfo

@attrs.frozen
class ExecutionCancelled:
    """An execution was cancelled."""

    reason: str

@attrs.frozen
class ArtifactStored:
    """A step stored an artifact."""

    artifact_id: str
    content_hash: str
    size_bytes: int
    step_id: str | None = None

@attrs.frozen
class StepDiscovered:
    """A step became known while the execution went on."""

    source_type: str
    reason: str
    depth: int
    step_id: str | None = None
    discovered_by: str | None = None

@attrs.frozen
class ToolCallStarted:
    """A call of a tool began."""

    tool_call_id: str
    tool_name: str
    input: Any
    step_id: str | None = None

@attrs.frozen
class ToolCallCompleted:
    """A call of a tool returned."""

    tool_call_id: str
    output: Any
    step_id: str | None = None

@attrs.frozen
class CheckpointSaved:
    """A checkpoint of the state was saved."""

    checkpoint_id: str
    state_hash: str
    step_id: str | None = None

@attrs.frozen
class GoalEvaluated:
    """It was decided how far a goal is met."""

    goal_id: str
    status: Literal["met", "not_met", "progressing"]
    step_id: str | None = None
    score: float | None = None
    reason: str | None = None

@attrs.frozen
class ArtifactWritten:
    """An artifact was stored for the run; `rec.artifact` emits it."""

    artifact_id: str
    kind: str
    meta: Any

@attrs.frozen
class OpBoundary:
    """A step of an operation started or completed."""

    op_path: str
    phase: Literal["started", "completed"]

@attrs.frozen
class ChildRunSpawned:
    """A child run was started."""

    parent_run_id: str
    child_run_id: str
    child_manifest_id: str

@attrs.frozen
class ChildRunCompleted:
    """A child run ended."""

    child_run_id: str
    status: str
    final_snapshot_id: str | None = None

@attrs.frozen
class ToolCallFailed:
    """A call of a tool ended in an error."""

    tool_call_id: str
    tool_name: str
    error: ErrorInfo
    step_id: str | None = None
    duration_ms: int | None = None
    model: ModelTelemetry | None = None
