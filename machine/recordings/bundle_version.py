"""The versions of bundles: what an older program cannot judge has one of its own, so that it says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any, Final

from machine.config import IoMode
from machine.events import (
    CleanupBegun,
    DomainEventRecorded,
    Entry,
    LimitReached,
    RunSuspended,
    StateCompleted,
    StateSkipped,
    WaitBegun,
)
from machine.io.approval_before_call import is_before_call
from machine.kernel.state_history import FAILED_WITH
from machine.kernel.suspension import pauses


class Needs(IntEnum):
    """The least that a program must know to judge a run; a later one includes the ones before."""

    BASICS = 0
    WAITS = 1
    """Waits of handlers."""
    CONTROLS = 2
    """Limits, policy, artifacts that handlers wrote, dry runs, choices of what is retried, pauses, approvals that
    were asked before a call, cleanup states, and states that were skipped for their failure."""
    NEXT_RUN = 3
    """States that say that the run goes on as another."""


_WITH_SECRETS: Final = 3
_PLAIN: Final = {Needs.BASICS: 1, Needs.WAITS: 4, Needs.CONTROLS: 6, Needs.NEXT_RUN: 8}
_READABLE: Final = {Needs.BASICS: 2, Needs.WAITS: 5, Needs.CONTROLS: 7, Needs.NEXT_RUN: 9}
READABLE: Final = _READABLE[Needs.BASICS]
"""The first version of the form that people review."""

VERSIONS: Final = tuple(sorted({*_PLAIN.values(), *_READABLE.values(), _WITH_SECRETS}))
"""The versions that can be read."""

_NEEDED_BY: Final = {"limits": Needs.CONTROLS, "policy": Needs.CONTROLS, "retry_budget": Needs.CONTROLS}
"""The fields of a configuration that an older program does not know."""

_OF_RETRIES: Final = {"jitter", "retry_on", "give_up_on"}
"""The fields of its retry policy that need controls."""


def _is_pause(entry: Entry) -> bool:
    return isinstance(entry.event, RunSuspended) and pauses(entry.event.waits)


def needs_of(entries: Iterable[Entry], manifest: Mapping[str, Any]) -> Needs:
    """Return what a program must know to judge a run, given its events and the JSON of its manifest."""
    configured = manifest.get("run_config", {})
    needs = max((_NEEDED_BY.get(name, Needs.BASICS) for name in configured), default=Needs.BASICS)
    of_retries = not _OF_RETRIES.isdisjoint(configured.get("retry_policy", ()))
    if of_retries or configured.get("io_mode") == IoMode.DRY_RUN:
        needs = max(needs, Needs.CONTROLS)
    for entry in entries:
        if _is_control(entry):
            needs = max(needs, Needs.CONTROLS)
        elif isinstance(entry.event, WaitBegun):
            before_call = is_before_call(entry.event)
            needs = max(needs, Needs.CONTROLS if before_call else Needs.WAITS)
        elif isinstance(entry.event, StateCompleted) and entry.event.next_input_id is not None:
            needs = Needs.NEXT_RUN
    return needs


def _is_control(entry: Entry) -> bool:
    event = entry.event
    return (
        isinstance(event, LimitReached | CleanupBegun)
        or _is_output(entry)
        or _is_pause(entry)
        or _skips_failure(entry)
    )


def _is_output(entry: Entry) -> bool:
    return isinstance(entry.event, DomainEventRecorded) and entry.event.artifact_kind is not None


def _skips_failure(entry: Entry) -> bool:
    return isinstance(entry.event, StateSkipped) and entry.event.reason.startswith(FAILED_WITH)


def version_for(needs: Needs, *, readable: bool = False, secrets: bool = False) -> int:
    """Return the version of a bundle of a run with these needs, in the form that people review if `readable`."""
    if readable:
        return _READABLE[needs]
    return _WITH_SECRETS if secrets and needs is Needs.BASICS else _PLAIN[needs]


def needs_of_version(version: int | None) -> Needs:
    """Return what a version says that its run needs."""
    by_version = {number: needs for form in (_PLAIN, _READABLE) for needs, number in form.items()}
    return by_version.get(version or 0, Needs.BASICS)


def is_readable(version: int | None) -> bool:
    """Return whether bundles of a version are in the form that people review."""
    return version in _READABLE.values()
