"""Everything that a run can wait for: outcomes and permissions that the engine asks for, and waits of handlers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final, TypeAlias

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


@attrs.frozen
class PauseWait:
    """A wait for a person who lets a paused run go on.

    `state_id` is the state that has failed for good and pauses the run; None where a person has paused it.
    """

    type: ClassVar[str] = "pause"
    state_id: str | None = None


@attrs.frozen
class HandlerWait:
    """A wait that a handler began, as opposed to one that the engine asks for.

    It is a wait until `due_ms`, in milliseconds since the epoch; None without a time limit.
    """

    type: ClassVar[str]
    key: str
    state_id: str
    due_ms: int | None = None


@attrs.frozen
class ApprovalWait(HandlerWait):
    """A wait for a person's decision."""

    type: ClassVar[str] = "approval"


@attrs.frozen
class SignalWait(HandlerWait):
    """A wait for a message of another system."""

    type: ClassVar[str] = "signal"


@attrs.frozen
class TimerWait(HandlerWait):
    """A wait for a time, which is its limit."""

    type: ClassVar[str] = "timer"


@attrs.frozen
class ChildWait(HandlerWait):
    """A wait for the end of another run."""

    type: ClassVar[str] = "child"


Wait: TypeAlias = EffectWait | PlanWait | SecretWait | PauseWait | HandlerWait

WAIT_KINDS: Final[Mapping[str, type[HandlerWait]]] = {
    f"wait.{cls.type}": cls for cls in (ApprovalWait, SignalWait, TimerWait, ChildWait)
}
"""The waits of handlers, by the namespace of their facts."""

WAITED_FOR: Final[Mapping[str, str]] = {
    "wait.approval": "an approval",
    "wait.signal": "a signal",
    "wait.timer": "a time",
    "wait.child": "a child run",
}
"""The object of each kind of wait in words, by the namespace of its facts."""
