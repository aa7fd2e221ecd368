"""What a suspended run waits for."""

from __future__ import annotations

from typing import ClassVar, TypeAlias

import attrs

__all__ = ["EffectWait", "PlanWait", "SecretWait", "Wait"]


@attrs.frozen
class EffectWait:
    """A run waits to be told what became of an effect that was intended and has no outcome."""

    type: ClassVar[str] = "effect_outcome"
    key: str
    state_id: str


@attrs.frozen
class PlanWait:
    """A run waits to go on with another plan than so far."""

    type: ClassVar[str] = "plan_change"
    plan_id: str


@attrs.frozen
class SecretWait:
    """A run waits to go on without the true values of its secrets, which its driver cannot open."""

    type: ClassVar[str] = "secrets_lost"


Wait: TypeAlias = EffectWait | PlanWait | SecretWait
