"""Child runs as the `io` of a handler sees them: how one is named, what comes of it, and who drives it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

import attrs
from blake3 import blake3

from machine import codec
from machine.errors import ErrorInfo
from machine.ids import RunId
from machine.plan import Plan

CHILD_RUN: Final = "wait.child"
"""Namespace of the waits for child runs."""

OnParentEnd = Literal["cancel", "leave"]
"""The fate of a child whose parent ends before it, or no longer waits for it."""

_VERSION_7: Final = 7 << 76 | 2 << 62
_HASHED_BITS: Final = (0xFFF << 64) | (1 << 62) - 1


@attrs.frozen
class ChildResult:
    """The outcome of a child run: its status, its final context, its digest and its id.

    `status` is completed, failed, cancelled or limit_exceeded; `error` is why it failed, None when it did not.
    """

    status: str
    context: Mapping[str, Any]
    digest: str
    run_id: str
    error: ErrorInfo | None = None

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> ChildResult:
        """Return the result that the answer to a wait holds."""
        error = payload.get("error")
        return cls(
            payload["status"],
            payload["context"],
            payload["digest"],
            payload["run_id"],
            None if error is None else codec.from_json(error, ErrorInfo),
        )


class Children(Protocol):
    """The child runs of a run, as its driver has them."""

    def know(self, key: str, plan: Plan, params: Mapping[str, Any], *, stays: bool) -> None:
        """Note the plan and the input of the child under the key of a wait; `stays`: it may outlive its parent."""
        ...

    async def outcome(self, key: str, run_id: str) -> Mapping[str, Any] | None:
        """Drive a child, and return its outcome; None when it waits, or another process drives it."""
        ...

    def spent(self, run_id: str) -> str | None:
        """Return what a child that has ended has spent, as the info of a fact says it; None for nothing."""
        ...

    async def give_up(self, run_id: str) -> None:
        """Cancel a child, durably, unless it has ended or belongs to another run."""
        ...


def child_id(parent: str, key: str, now_ms: int) -> RunId:
    """Return the id of a child run: a UUID version 7 of a time, its parent and the key of the wait for it.

    It is made once and recorded before the child begins, so that whoever goes on finds the same child.
    """
    hashed = int.from_bytes(blake3(f"{parent}\n{key}".encode()).digest(16))
    return RunId(str(uuid.UUID(int=now_ms << 80 | _VERSION_7 | hashed & _HASHED_BITS)))
