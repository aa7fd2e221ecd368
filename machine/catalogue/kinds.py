"""The kinds of domain events that this library knows: a table with one row for each.

A row has the name, one sentence, the required fields, the optional ones and the level. Iterations and turns count
from 0. The payload class of a row is made when this module is imported, and is named after its event:
`tool_called` has `ToolCalled`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

import attrs

from machine.catalogue.field_types import Count, Ratio
from machine.catalogue.registry import Catalogue, Custom, Kind, Level
from machine.ids import ArtifactId, ContextKey, OpId, OpPath, RunId, StateId


@attrs.frozen
class ModelTelemetry:
    """Tokens and cost of one use of a model, within the payload of another event or as an event of its own."""

    provider: str
    model: str
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    finish_reason: str | None = None
    cost_usd_micros: Count | None = None


@attrs.frozen
class Provenance:
    """Origin and trustworthiness of a result, within the payload of another event or as an event of its own."""

    model_id: str
    model_version: str | None = None
    confidence: Ratio | None = None
    verified: bool | None = None
    source: str | None = None
    trust_domain: str | None = None
    evidence: tuple[str, ...] | None = None


class _Row(NamedTuple):
    name: str
    says: str
    required: Mapping[str, Any]
    optional: Mapping[str, Any]
    level: Level = Level.NORMAL

    def kind(self) -> Kind:
        """Return the kind with its payload class, which is as a class statement would make it."""
        optional = {name: hint if hint is Any else hint | None for name, hint in self.optional.items()}
        body = {
            "__doc__": self.says,
            "__module__": "machine.catalogue",  # where it is imported from
            "__annotations__": {**self.required, **optional},
            **dict.fromkeys(optional),
        }
        name = "".join(word.capitalize() for word in self.name.split("_"))
        return Kind(self.name, attrs.frozen(type(name, (), body)), self.level)


_ROWS: Final = (
    # runs and states
    _Row(
        "artifact_written",
        "An artifact was stored for this run.",
        {"artifact_id": ArtifactId, "kind": str},
        {"size_bytes": Count, "media_type": str, "label": str},
    ),
    _Row(
        "op_boundary",
        "The run entered or left an operation, or one step of it.",
        {"op_id": OpId, "boundary": Literal["entered", "left"]},
        {"op_path": OpPath, "label": str},
    ),
    _Row(
        "child_run_spawned",
        "A child run was started.",
        {"child_run_id": RunId},
        {"op_id": OpId, "fact_key": str, "input_ref": str},
    ),
    _Row(
        "child_run_completed",
        "A child run ended.",
        {"child_run_id": RunId, "status": Literal["completed", "failed", "cancelled", "limit_exceeded"]},
        {"output_ref": str, "error_code": str, "duration_ms": Count},
    ),
    _Row(
        "checkpoint_saved",
        "A snapshot of the context was kept as a checkpoint.",
        {"snapshot_id": ArtifactId},
        {"state_id": StateId, "label": str},
    ),
    _Row(
        "step_discovered",
        "A step of work became known while the run was under way.",
        {"step_id": str},
        {"title": str, "parent_step_id": str, "depends_on": tuple[str, ...]},
    ),
    _Row(
        "state_updated",
        "A state changed what the context holds.",
        {"state_id": StateId},
        {"changed_keys": tuple[ContextKey, ...], "snapshot_id": ArtifactId, "summary": str},
    ),
    Kind("custom", Custom),
    # tools and models
    _Row(
        "tool_call_started",
        "A tool was called.",
        {"call_id": str, "tool": str},
        {"arguments": Mapping[str, Any], "input_ref": str},
    ),
    _Row(
        "tool_call_completed",
        "A tool call returned.",
        {"call_id": str, "tool": str},
        {"duration_ms": Count, "output_ref": str, "model": ModelTelemetry, "provenance": Provenance},
    ),
    _Row(
        "tool_call_failed",
        "A tool call ended in an error.",
        {"call_id": str, "tool": str, "error_code": str, "message": str},
        {"retryable": bool, "duration_ms": Count, "model": ModelTelemetry},
    ),
    Kind("model_telemetry", ModelTelemetry),
    Kind("provenance", Provenance),
    # waiting for people, clocks and external events
    _Row(
        "interrupt_raised",
        "The run stopped to wait for an answer from a person or a program.",
        {"interrupt_id": str, "reason": str},
        {"node_id": str, "prompt": str, "data": Any},
        Level.ESSENTIAL,
    ),
    _Row(
        "approval_received",
        "Somebody decided what was waiting for approval.",
        {"approval_id": str, "decision": Literal["approved", "rejected"]},
        {"decided_by": str, "comment": str},
        Level.ESSENTIAL,
    ),
    _Row(
        "timer_created",
        "A timer was set. Times are in milliseconds since 1970 (UTC).",
        {"timer_id": str, "fires_at_ms": Count},
        {"label": str},
    ),
    _Row(
        "timer_fired",
        "A timer fired. Times are in milliseconds since 1970 (UTC).",
        {"timer_id": str},
        {"fired_at_ms": Count},
    ),
    _Row(
        "external_event_received",
        "An external event arrived for this run.",
        {"correlation_key": str},
        {"event_type": str, "source": str, "data": Any, "payload_ref": str},
        Level.ESSENTIAL,
    ),
    _Row(
        "node_parked",
        "A node waits for something, at most until a time in milliseconds since 1970 (UTC).",
        {"node_id": str, "reason": str},
        {"waits_for": str, "until_ms": Count},
    ),
    # limits and policy
    _Row(
        "budget_exceeded",
        "More of a resource was used than its budget allows.",
        {"budget": str, "limit": Count, "used": Count},
        {"unit": str, "scope": str},
        Level.ESSENTIAL,
    ),
    _Row(
        "token_budget_exceeded",
        "More tokens were used than the budget allows.",
        {"limit_tokens": Count, "used_tokens": Count},
        {"model": str, "scope": str},
        Level.ESSENTIAL,
    ),
    _Row(
        "cost_budget_exceeded",
        "More money was spent than the budget allows, in millionths of a US dollar.",
        {"limit_usd_micros": Count, "used_usd_micros": Count},
        {"scope": str},
        Level.ESSENTIAL,
    ),
    _Row(
        "autonomy_limit_reached",
        "The limit of what may be done without a person was reached.",
        {"limit": Count, "used": Count},
        {"action": str, "scope": str},
        Level.ESSENTIAL,
    ),
    _Row(
        "circuit_breaker_tripped",
        "Calls to something that keeps failing were stopped.",
        {"breaker": str},
        {"failures": Count, "threshold": Count, "retry_after_ms": Count, "reason": str},
        Level.ESSENTIAL,
    ),
    _Row(
        "escalation_required",
        "Somebody with more authority has to decide.",
        {"reason": str},
        {"escalate_to": str, "severity": str, "call_id": str},
        Level.ESSENTIAL,
    ),
    _Row(
        "policy_violation",
        "Something was tried that a policy does not allow.",
        {"policy": str, "reason": str},
        {"action": str, "namespace": str, "call_id": str},
        Level.ESSENTIAL,
    ),
    _Row(
        "tool_approval_required",
        "A tool may not be called before somebody approves it.",
        {"call_id": str, "tool": str},
        {"approval_id": str, "reason": str, "input_ref": str},
        Level.ESSENTIAL,
    ),
    # strategies: plan, act, judge, repeat
    _Row(
        "strategy_started",
        "A strategy began to pursue a goal.",
        {"strategy_id": str, "strategy": str},
        {"goal": str, "max_iterations": Count},
    ),
    _Row(
        "plan_generated",
        "A strategy made a plan, or a new revision of it.",
        {"strategy_id": str, "steps": tuple[str, ...]},
        {"revision": Count, "plan_ref": str},
    ),
    _Row(
        "iteration_started",
        "An iteration of a strategy began.",
        {"strategy_id": str, "iteration": Count},
        {"focus": str},
    ),
    _Row(
        "tool_called",
        "A strategy chose to call a tool.",
        {"strategy_id": str, "tool": str},
        {"iteration": Count, "call_id": str},
    ),
    _Row(
        "critic_verdict",
        "A critic judged a result.",
        {"strategy_id": str, "verdict": Literal["accept", "revise", "reject"]},
        {"iteration": Count, "score": float, "feedback": str},
    ),
    _Row(
        "iteration_completed",
        "An iteration of a strategy ended.",
        {"strategy_id": str, "iteration": Count},
        {"outcome": str, "output_ref": str, "duration_ms": Count},
    ),
    _Row(
        "strategy_limit_hit",
        "A strategy was stopped by one of its limits.",
        {"strategy_id": str, "limit_name": str},
        {"limit": Count, "used": Count},
        Level.ESSENTIAL,
    ),
    _Row(
        "strategy_completed",
        "A strategy ended.",
        {"strategy_id": str, "status": Literal["succeeded", "failed", "stopped"]},
        {"iterations": Count, "output_ref": str, "duration_ms": Count},
    ),
    _Row(
        "goal_evaluated",
        "It was decided whether a goal is met.",
        {"goal": str, "met": bool},
        {"strategy_id": str, "confidence": Ratio, "rationale": str},
    ),
    # coordination: choosing an agent for a task, and agents used as tools
    _Row(
        "coordinator_discovery",
        "A coordinator found who could take a task.",
        {"coordinator_id": str, "candidates": tuple[str, ...]},
        {"task": str},
    ),
    _Row(
        "coordinator_scoring",
        "A coordinator scored its candidates, by name.",
        {"coordinator_id": str, "scores": Mapping[str, float]},
        {"method": str},
        Level.VERBOSE,
    ),
    _Row(
        "coordinator_decision",
        "A coordinator chose a candidate.",
        {"coordinator_id": str, "chosen": str},
        {"reason": str, "confidence": Ratio},
    ),
    _Row(
        "agent_tool_invoked",
        "An agent was called as a tool.",
        {"invocation_id": str, "agent": str},
        {"task": str, "input_ref": str, "child_run_id": RunId},
    ),
    _Row(
        "agent_tool_progress",
        "An agent called as a tool said how far it is.",
        {"invocation_id": str, "agent": str},
        {"message": str, "progress": Ratio},
        Level.VERBOSE,
    ),
    _Row(
        "agent_tool_turn",
        "An agent called as a tool took a turn.",
        {"invocation_id": str, "agent": str, "turn": Count},
        {"role": str, "content_ref": str, "model": ModelTelemetry},
        Level.VERBOSE,
    ),
    _Row(
        "agent_tool_completed",
        "An agent called as a tool returned.",
        {"invocation_id": str, "agent": str},
        {
            "turns": Count,
            "duration_ms": Count,
            "output_ref": str,
            "model": ModelTelemetry,
            "provenance": Provenance,
        },
    ),
    _Row(
        "agent_tool_terminated",
        "An agent called as a tool was stopped from outside it.",
        {"invocation_id": str, "agent": str, "reason": str},
        {"turns": Count},
    ),
    _Row(
        "agent_tool_failed",
        "An agent called as a tool ended in an error.",
        {"invocation_id": str, "agent": str, "error_code": str, "message": str},
        {"retryable": bool, "duration_ms": Count},
    ),
)


STANDARD: Final = Catalogue(tuple(row if isinstance(row, Kind) else row.kind() for row in _ROWS))
"""Every kind of the table; made on import, so that all threads have the same classes."""
