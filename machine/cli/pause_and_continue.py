"""`pause` and `continue`: a run is put away, and goes on where it was."""

from __future__ import annotations

import machine
from machine.cli.command_session import Injected, Session
from machine.cli.error_report import Exit
from machine.cli.output import STYLES
from machine.cli.where import NOBODY, UNFINISHED, Selection, check_one, for_each
from machine.engine.run_result import RunResult
from machine.kernel.run_status import RunStatus
from machine.kernel.suspension import pauses


def pause(
    run: str | None = None,
    /,
    *,
    timeout: float = 30.0,
    chosen: Selection = NOBODY,
    session: Injected,
) -> int:
    """Put a run away until `machine continue`.

    The process that drives it interrupts its attempts and lets go of it; no worker takes it. A run that waits
    for an answer stays suspended, and is paused as soon as it would go on. Its child runs are paused too. With
    --where, every unfinished run that the filter selects is paused.

    Parameters
    ----------
    run
        The run: its id, the beginning of it, or @last. Left out with --where.
    timeout
        How many seconds to wait for the process that drives it.
    """
    check_one(run, chosen)
    if run is None:
        return for_each(
            session,
            chosen,
            lambda store, run_id: {"status": machine.pause(run_id, store=store, timeout=timeout).status},
            statuses=UNFINISHED,
        )
    with session.writing(run) as (store, run_id):
        result = machine.pause(run_id, store=store, timeout=timeout)
    _tell(session, result)
    if not session.as_json:
        word = (
            "once the code is mended"
            if pauses(result.waits)
            else "it is paused once it would go on; to take it back"
        )
        session.note(word, session.command("continue", run_id))
    return Exit.OK


def continue_run(
    run: str | None = None,
    /,
    *,
    timeout: float = 30.0,
    chosen: Selection = NOBODY,
    session: Injected,
) -> int:
    """Let a paused run go on, in place.

    It keeps what it has; a state with on_error="pause" that had failed for good is tried again, with all its
    retries and today's code. A worker takes the run then, or `machine resume` drives it. With --where, every
    paused run that the filter selects goes on.

    Parameters
    ----------
    run
        The run: its id, the beginning of it, or @last. Left out with --where.
    timeout
        How many seconds to wait for the process that drives it.
    """
    check_one(run, chosen)
    if run is None:
        return for_each(
            session,
            chosen,
            lambda store, run_id: {
                "status": machine.continue_run(run_id, store=store, timeout=timeout).status
            },
            statuses=(RunStatus.SUSPENDED.value,),
        )
    with session.writing(run) as (store, run_id):
        result = machine.continue_run(run_id, store=store, timeout=timeout)
    _tell(session, result)
    if result.status == RunStatus.RUNNING:
        session.note("next", session.command("resume", run_id))
    return Exit.OK


def _tell(session: Session, result: RunResult) -> None:
    if session.as_json:
        session.out.json({"run_id": result.run_id, "status": result.status, "paused": pauses(result.waits)})
    else:
        said = "paused" if pauses(result.waits) else result.status
        session.out.pairs([("run", result.run_id), ("status", (said, STYLES.get(result.status, "")))])
