"""Kinds about strategies: plan, act, judge, repeat. Iterations are counted from 0."""

from __future__ import annotations

from typing import Literal

import attrs

from machine.catalogue.fields import Count, Ratio
from machine.catalogue.registry import Kind, Level

__all__ = [
    "KINDS",
    "CriticVerdict",
    "GoalEvaluated",
    "IterationCompleted",
    "IterationStarted",
    "PlanGenerated",
    "StrategyCompleted",
    "StrategyLimitHit",
    "StrategyStarted",
    "ToolCalled",
]


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


KINDS = (
    Kind("strategy_started", StrategyStarted),
    Kind("plan_generated", PlanGenerated),
    Kind("iteration_started", IterationStarted),
    Kind("tool_called", ToolCalled),
    Kind("critic_verdict", CriticVerdict),
    Kind("iteration_completed", IterationCompleted),
    Kind("strategy_limit_hit", StrategyLimitHit, Level.ESSENTIAL),
    Kind("strategy_completed", StrategyCompleted),
    Kind("goal_evaluated", GoalEvaluated),
)
