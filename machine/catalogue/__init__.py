"""The typed catalogue of domain events: known names, and validation of their payloads.

Names of domain events are open. A name in the catalogue has a payload class, and its payload is validated
against it. The payload classes are loaded on first use, so a program that emits no event does not pay for them.

This package must never make a payload fit: nothing is coerced, dropped or guessed. It knows nothing of logs,
stores or secrets, and does no IO.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from machine.catalogue.fields import Count, Ratio
from machine.catalogue.markdown import render_markdown
from machine.catalogue.registry import Catalogue, Kind, Level

if TYPE_CHECKING:
    from machine.catalogue.coordination import (
        AgentToolCompleted,
        AgentToolFailed,
        AgentToolInvoked,
        AgentToolProgress,
        AgentToolTerminated,
        AgentToolTurn,
        CoordinatorDecision,
        CoordinatorDiscovery,
        CoordinatorScoring,
    )
    from machine.catalogue.limits import (
        AutonomyLimitReached,
        BudgetExceeded,
        CircuitBreakerTripped,
        CostBudgetExceeded,
        EscalationRequired,
        PolicyViolation,
        TokenBudgetExceeded,
        ToolApprovalRequired,
    )
    from machine.catalogue.runs import (
        ArtifactWritten,
        CheckpointSaved,
        ChildRunCompleted,
        ChildRunSpawned,
        Custom,
        OpBoundary,
        StateUpdated,
        StepDiscovered,
    )
    from machine.catalogue.standard import STANDARD
    from machine.catalogue.strategies import (
        CriticVerdict,
        GoalEvaluated,
        IterationCompleted,
        IterationStarted,
        PlanGenerated,
        StrategyCompleted,
        StrategyLimitHit,
        StrategyStarted,
        ToolCalled,
    )
    from machine.catalogue.tools import (
        ModelTelemetry,
        Provenance,
        ToolCallCompleted,
        ToolCallFailed,
        ToolCallStarted,
    )
    from machine.catalogue.waiting import (
        ApprovalReceived,
        ExternalEventReceived,
        InterruptRaised,
        NodeParked,
        TimerCreated,
        TimerFired,
    )

__all__ = [
    "STANDARD",
    "AgentToolCompleted",
    "AgentToolFailed",
    "AgentToolInvoked",
    "AgentToolProgress",
    "AgentToolTerminated",
    "AgentToolTurn",
    "ApprovalReceived",
    "ArtifactWritten",
    "AutonomyLimitReached",
    "BudgetExceeded",
    "Catalogue",
    "CheckpointSaved",
    "ChildRunCompleted",
    "ChildRunSpawned",
    "CircuitBreakerTripped",
    "CoordinatorDecision",
    "CoordinatorDiscovery",
    "CoordinatorScoring",
    "CostBudgetExceeded",
    "Count",
    "CriticVerdict",
    "Custom",
    "EscalationRequired",
    "ExternalEventReceived",
    "GoalEvaluated",
    "InterruptRaised",
    "IterationCompleted",
    "IterationStarted",
    "Kind",
    "Level",
    "ModelTelemetry",
    "NodeParked",
    "OpBoundary",
    "PlanGenerated",
    "PolicyViolation",
    "Provenance",
    "Ratio",
    "StateUpdated",
    "StepDiscovered",
    "StrategyCompleted",
    "StrategyLimitHit",
    "StrategyStarted",
    "TimerCreated",
    "TimerFired",
    "TokenBudgetExceeded",
    "ToolApprovalRequired",
    "ToolCallCompleted",
    "ToolCallFailed",
    "ToolCallStarted",
    "ToolCalled",
    "render_markdown",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # not at the top: making 45 attrs classes takes longer than importing the rest of this package
    from machine.catalogue.standard import STANDARD  # noqa: PLC0415

    globals().update({kind.payload.__name__: kind.payload for kind in STANDARD}, STANDARD=STANDARD)
    return globals()[name]
