"""The external input that a suspended run waits for."""

from __future__ import annotations

from typing import ClassVar, TypeAlias

import attrs


@attrs.frozen
class EffectWait:
    """A wait for the outcome of an effect that was intended and has none."""

    type: ClassVar[str] = "effect_outcome"
    key: str
    state_id: str


@attrs.frozen
class PlanWait:
    """A wait for permission to continue with another plan."""

    type: ClassVar[str] = "plan_change"
    plan_id: str


@attrs.frozen
class SecretWait:
    """A wait for permission to continue without the true values of secrets that the driver cannot open."""

    type: ClassVar[str] = "secrets_lost"


Wait: TypeAlias = EffectWait | PlanWait | SecretWait
