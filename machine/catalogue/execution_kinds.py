"""The kinds of events of an agent, of an execution of steps, and of a run.

A row is a name, what the engine records for the same happening, a sentence, and the required and optional fields.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from machine.catalogue.kind_row import STEP, Row
from machine.catalogue.payload_parts import ErrorInfo, ModelTelemetry, Parent, Provenance
from machine.catalogue.registry import Custom, Kind
from machine.ids import ArtifactId, OpPath, RunId

EXECUTION_ROWS: Final = (
    # an agent
    Row("state_updated", "state_completed", "The state of an agent changed.", {"payload": Any}, STEP),
    Row(
        "action_requested",
        "effect_intended, and the call",
        "An agent asked for an action.",
        {"action_id": str, "payload": Any},
    ),
    Row(
        "action_succeeded",
        "fact_recorded",
        "An action of an agent succeeded.",
        {"action_id": str, "output": Any},
    ),
    Row(
        "action_failed",
        "fact_recorded, error",
        "An action of an agent failed.",
        {"action_id": str, "error": str},
    ),
    Row("interrupted", "run_suspended", "An agent stopped to wait for an answer.", {"value": Any}),
    Row("resumed", "run_resumed", "An agent went on with an answer.", {"value": Any}),
    Row("completed", "run_completed", "An agent ended."),
    # an execution of steps
    Row(
        "execution_started",
        "run_started (labels)",
        "An execution began.",
        {},
        {"parent": Parent, "metadata": Any},
    ),
    Row(
        "step_started",
        "state_entered",
        "A step of an execution began.",
        {"step_type": str, "name": str},
        {**STEP, "parent_step_id": str},
    ),
    Row(
        "step_completed",
        "state_completed",
        "A step of an execution ended.",
        {"duration_ms": int},
        {**STEP, "output": str},
    ),
    Row("step_failed", "state_failed", "A step of an execution failed.", {"error": ErrorInfo}, STEP),
    Row("execution_paused", "run_suspended", "An execution was paused.", {"reason": str}),
    Row("execution_resumed", "run_resumed", "An execution went on."),
    Row("execution_completed", "run_completed", "An execution ended.", {"duration_ms": int}, {"output": str}),
    Row("execution_failed", "run_completed", "An execution ended in an error.", {"error": ErrorInfo}),
    Row("execution_cancelled", "run_completed", "An execution was cancelled.", {"reason": str}),
    Row(
        "artifact_stored",
        "artifact_written",
        "A step stored an artifact.",
        {"artifact_id": str, "content_hash": str, "size_bytes": int},
        STEP,
    ),
    Row(
        "step_discovered",
        "",
        "A step became known while the execution went on.",
        {"source_type": str, "reason": str, "depth": int},
        {**STEP, "discovered_by": str},
    ),
    Row(
        "tool_call_started",
        "",
        "A call of a tool began.",
        {"tool_call_id": str, "tool_name": str, "input": Any},
        STEP,
    ),
    Row("tool_call_completed", "", "A call of a tool returned.", {"tool_call_id": str, "output": Any}, STEP),
    Row(
        "checkpoint_saved",
        "state_completed",
        "A checkpoint of the state was saved.",
        {"checkpoint_id": str, "state_hash": str},
        STEP,
    ),
    Row(
        "goal_evaluated",
        "",
        "It was decided how far a goal is met.",
        {"goal_id": str, "status": Literal["met", "not_met", "progressing"]},
        {**STEP, "score": float, "reason": str},
    ),
    Kind("custom", Custom),
    # a run
    Row(
        "artifact_written",
        "written by `rec.artifact`",
        "An artifact was stored for the run; `rec.artifact` emits it.",
        {"artifact_id": ArtifactId, "kind": str, "meta": Any},
    ),
    Row(
        "op_boundary",
        "",
        "A step of an operation started or completed.",
        {"op_path": OpPath, "phase": Literal["started", "completed"]},
    ),
    Row(
        "child_run_spawned",
        "wait_begun of a child",
        "A child run was started.",
        {"parent_run_id": RunId, "child_run_id": RunId, "child_manifest_id": ArtifactId},
    ),
    Row(
        "child_run_completed",
        "fact of a child",
        "A child run ended.",
        {"child_run_id": RunId, "status": str},
        {"final_snapshot_id": ArtifactId},
    ),
    # more of tools and models
    Row(
        "tool_call_failed",
        "",
        "A call of a tool ended in an error.",
        {"tool_call_id": str, "tool_name": str, "error": ErrorInfo},
        {**STEP, "duration_ms": int, "model": ModelTelemetry},
    ),
    Kind("model_telemetry", ModelTelemetry),
    Kind("provenance", Provenance),
)
"""The rows, by what they are about."""
