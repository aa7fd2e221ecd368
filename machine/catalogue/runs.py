"""Kinds about runs and states."""

from __future__ import annotations

from typing import Literal

import attrs

from machine.catalogue.fields import Count
from machine.catalogue.registry import Custom, Kind
from machine.ids import ArtifactId, ContextKey, OpId, OpPath, RunId, StateId

__all__ = [
    "KINDS",
    "ArtifactWritten",
    "CheckpointSaved",
    "ChildRunCompleted",
    "ChildRunSpawned",
    "Custom",
    "OpBoundary",
    "StateUpdated",
    "StepDiscovered",
]


@attrs.frozen
class ArtifactWritten:
    """An artifact was stored for this run."""

    artifact_id: ArtifactId
    kind: str
    size_bytes: Count | None = None
    media_type: str | None = None
    label: str | None = None


@attrs.frozen
class OpBoundary:
    """The run entered or left an operation, or one step of it."""

    op_id: OpId
    boundary: Literal["entered", "left"]
    op_path: OpPath | None = None
    label: str | None = None


@attrs.frozen
class ChildRunSpawned:
    """A child run was started."""

    child_run_id: RunId
    op_id: OpId | None = None
    fact_key: str | None = None
    input_ref: str | None = None


@attrs.frozen
class ChildRunCompleted:
    """A child run ended."""

    child_run_id: RunId
    status: Literal["completed", "failed", "cancelled", "limit_exceeded"]
    output_ref: str | None = None
    error_code: str | None = None
    duration_ms: Count | None = None


@attrs.frozen
class CheckpointSaved:
    """A snapshot of the context was kept as a checkpoint."""

    snapshot_id: ArtifactId
    state_id: StateId | None = None
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

    state_id: StateId
    changed_keys: tuple[ContextKey, ...] | None = None
    snapshot_id: ArtifactId | None = None
    summary: str | None = None


KINDS = (
    Kind("artifact_written", ArtifactWritten),
    Kind("op_boundary", OpBoundary),
    Kind("child_run_spawned", ChildRunSpawned),
    Kind("child_run_completed", ChildRunCompleted),
    Kind("checkpoint_saved", CheckpointSaved),
    Kind("step_discovered", StepDiscovered),
    Kind("state_updated", StateUpdated),
    Kind("custom", Custom),
)
