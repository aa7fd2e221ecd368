"""Versions of a handler's code: a handler asks whether an attempt of it began with a change, or before it."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import Any, Final

import attrs

from machine.events import FactRecorded
from machine.ids import VersionId
from machine.io.attempt_scope import AttemptScope
from machine.io.call_identity import Call
from machine.watch.watch import engine_at_work

VERSION: Final = "version"
"""Namespace of the facts that say that an attempt has a change."""


class Versions(ABC):
    """The part of `io` that says which version of the code an attempt goes on with."""

    _scope: AttemptScope

    @abstractmethod
    def _identify(self, namespace: str, request: Any, fact_key: str | None) -> Call:
        """Return the identified call."""

    @abstractmethod
    async def _fact(self, call: Call, value: bytes | None = None) -> FactRecorded:
        """Return the one fact of a call for all of its callers."""

    def _has_version(self, call: Call) -> bool:
        """Say whether the attempt has the change that a call asks for: a live one has every change."""
        del call
        return True

    @functools.cached_property
    def _versions(self) -> dict[tuple[str, bool], bool]:
        """The answers given so far in this attempt, by id and whether the reconcile function asked."""
        return {}

    async def version(self, id: str) -> bool:  # noqa: A002 - the contract's name
        """Say whether this attempt goes the way of a change that `id` names, to change code under suspended runs.

        True where the attempt asks for the first time live, and recorded then. False, without a fact, where a
        suspended attempt goes on that was recorded before the change, and in its replays. An attempt gets one
        answer, however often it asks.
        """
        name = str(VersionId(id))
        with engine_at_work():
            scope = self._scope
            scope.check_open("called", VERSION)
            scope.secrets.refuse_in_key("the id of a version", name)
            asked = name, scope.reads_only
            known = self._versions.get(asked)
            if known is None:
                call = attrs.evolve(self._identify(VERSION, {"id": name}, None), own=True)
                known = self._versions[asked] = self._has_version(call)
                if known:
                    await self._fact(call, b"true")
            return known
