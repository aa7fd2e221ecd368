"""Kinds about tools and models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from machine.catalogue.fields import Count, Ratio
from machine.catalogue.registry import Kind

__all__ = [
    "KINDS",
    "ModelTelemetry",
    "Provenance",
    "ToolCallCompleted",
    "ToolCallFailed",
    "ToolCallStarted",
]


@attrs.frozen
class ModelTelemetry:
    """Tokens and cost of one use of a model, in the event of the call it served or separately."""

    provider: str
    model: str
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    finish_reason: str | None = None
    cost_usd_micros: Count | None = None


@attrs.frozen
class Provenance:
    """Origin and trustworthiness of a result, in another event or separately."""

    model_id: str
    model_version: str | None = None
    confidence: Ratio | None = None
    verified: bool | None = None
    source: str | None = None
    trust_domain: str | None = None
    evidence: tuple[str, ...] | None = None


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


KINDS = (
    Kind("tool_call_started", ToolCallStarted),
    Kind("tool_call_completed", ToolCallCompleted),
    Kind("tool_call_failed", ToolCallFailed),
    Kind("model_telemetry", ModelTelemetry),
    Kind("provenance", Provenance),
)
