"""The parts of payloads that several kinds of events share: telemetry of a model, origin, error, parent."""

from __future__ import annotations

from typing import Any

import attrs

from machine.catalogue.field_types import Count


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

    model_id: str | None = None
    model_version: str | None = None
    confidence: float | None = None
    verified: bool = False
    source: str | None = None
    trust_domain: str | None = None
    evidence_refs: tuple[str, ...] = ()


@attrs.frozen
class ErrorInfo:
    """The known data of an error, in the payload of another event; the error of a failed run fits."""

    code: str
    message: str
    category: str | None = None
    retryable: bool | None = None
    details: Any = None
    causes: tuple[Any, ...] | None = None


@attrs.frozen
class Parent:
    """The execution that another one belongs to, in the payload of another event."""

    parent_id: str
    parent_type: str
