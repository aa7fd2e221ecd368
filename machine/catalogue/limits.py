"""Kinds about limits and policy; all are essential."""

from __future__ import annotations

import attrs

from machine.catalogue.fields import Count
from machine.catalogue.registry import Kind, Level

__all__ = [
    "KINDS",
    "AutonomyLimitReached",
    "BudgetExceeded",
    "CircuitBreakerTripped",
    "CostBudgetExceeded",
    "EscalationRequired",
    "PolicyViolation",
    "TokenBudgetExceeded",
    "ToolApprovalRequired",
]


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


KINDS = (
    Kind("budget_exceeded", BudgetExceeded, Level.ESSENTIAL),
    Kind("token_budget_exceeded", TokenBudgetExceeded, Level.ESSENTIAL),
    Kind("cost_budget_exceeded", CostBudgetExceeded, Level.ESSENTIAL),
    Kind("autonomy_limit_reached", AutonomyLimitReached, Level.ESSENTIAL),
    Kind("circuit_breaker_tripped", CircuitBreakerTripped, Level.ESSENTIAL),
    Kind("escalation_required", EscalationRequired, Level.ESSENTIAL),
    Kind("policy_violation", PolicyViolation, Level.ESSENTIAL),
    Kind("tool_approval_required", ToolApprovalRequired, Level.ESSENTIAL),
)
