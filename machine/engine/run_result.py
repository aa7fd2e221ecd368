"""The result of a run when its driver returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from machine import canonical
from machine.errors import ErrorInfo
from machine.kernel.cleanup import error_of
from machine.kernel.history import History
from machine.kernel.retry_and_skip import fork_point
from machine.kernel.run_status import RunStatus
from machine.kernel.snapshot import Snapshot
from machine.stores.base import Store
from machine.waits import Wait


@attrs.frozen
class RunResult:
    """The result of a run when its driver returns.

    `status` is completed, failed, cancelled or suspended; `digest` identifies everything the run did; `context` is
    the final context, decoded, empty while the run can continue; `error` is why it failed, None when it did not;
    `waits` is the external input that a suspended run waits for. `fork_at` is the event from which to retry a
    failed state, None when none failed: `fork(run_id, at=fork_at, ...)` makes an attempt again, with the present
    code and the recorded facts. `skipped` are the states that failed and that the run went on without. The
    `details` of `error` hold the failures of cleanup states; in a run that did not fail its code is then
    `cleanup_failed`. `next_input` is the input of the run that would continue a completed one and was not begun
    (a dry run, `begin_next=False`), None otherwise: of runs that continue each other, a result is that of the last.
    """

    run_id: str
    status: str
    digest: str
    head_seq: int
    final_snapshot_id: str | None
    context: Mapping[str, Any]
    error: ErrorInfo | None = None
    waits: tuple[Wait, ...] = ()
    fork_at: int | None = None
    skipped: tuple[str, ...] = ()
    next_input: Mapping[str, Any] | None = None


def result_of(
    store: Store, order: Sequence[str], history: History, at_hand: Snapshot | None = None
) -> RunResult:
    """Return the result of a run; `order` is that of the states in its digest, `at_hand` a loaded snapshot."""
    snapshot_id, snapshot = history.final_snapshot_id, None
    if snapshot_id is not None:
        known = at_hand is not None and at_hand.id == snapshot_id
        snapshot = at_hand if known else Snapshot.open(snapshot_id, store.get)
    return RunResult(
        run_id=history.run_id or "",
        status=history.status.value,
        digest=history.digest(order),
        head_seq=history.head_seq,
        final_snapshot_id=snapshot_id,
        context=snapshot.to_dict() if snapshot is not None else {},
        error=error_of(history),
        waits=history.unanswered,
        fork_at=fork_point(history),
        skipped=tuple(state_id for state_id, state in history.states.items() if state.failed_and_skipped),
        next_input=_next_input(store, history),
    )


def _next_input(store: Store, history: History) -> Mapping[str, Any] | None:
    """Return the input of the run that would continue one that has completed, unless that has begun."""
    if history.status is not RunStatus.COMPLETED or not history.next_inputs:
        return None
    if store.run_row(history.run_id or "").next_run_id is not None:
        return None
    (artifact_id,) = history.next_inputs.values()
    given: Mapping[str, Any] = canonical.decode_stored(artifact_id, store.get(artifact_id))
    return given
