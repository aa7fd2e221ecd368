"""`cancel` and `resolve`: commands of an operator to a run."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

import machine
from machine.cli import progress
from machine.cli.command_session import Flag, Injected
from machine.cli.error_report import Exit
from machine.cli.events_and_facts import wait_text
from machine.cli.json_arguments import json_input
from machine.cli.output import STYLES
from machine.cli.wait_text import tell_waits
from machine.cli.where import NOBODY, Selection, check_one, for_each
from machine.codec import to_json
from machine.engine.open_wait_info import waits_of
from machine.engine.run_reader import PastRun
from machine.errors import Code, UsageError
from machine.kernel.run_status import FINAL_STATUSES


def resolve(
    run: str,
    key: str,
    /,
    *,
    outcome: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    not_done: Flag = False,
    session: Injected,
) -> int:
    """Tell a suspended run the outcome of an effect.

    A run is suspended when it crashed after an effect may have been sent, and the state has on_uncertain="ask".
    Look at the receiver, then give either the outcome or --not-done. Your answer becomes a fact of the run, and
    a replay is given it like any other. `machine resume` continues the run.

    Parameters
    ----------
    run
        The run: its id, the beginning of it, or @last.
    key
        The key of the effect, or the beginning of it; `machine show RUN` lists them.
    outcome
        The effect happened, and this JSON is the response to it: as it is, in a file (@FILE), or on stdin (-).
        For HTTP an object with any of status, json, text and headers.
    not_done
        The effect did not happen: the run sends it when it is resumed.
    """
    if (outcome is None) != not_done:
        raise UsageError("give the outcome of the effect: either --outcome JSON or --not-done")
    with session.writing(run) as (store, run_id):
        word = {"not_done": True}
        if outcome is not None:
            word = {"outcome": json_input(outcome, "the outcome", Code.INVALID_EFFECT_OUTCOME)}
        with progress.watching_quietly(quiet=session.as_json) as reporter:
            waits = machine.resolve(run_id, key, store=store, reporter=reporter, **word)
        if session.as_json:
            session.out.json({"run_id": run_id, "waits": [to_json(wait) for wait in waits]})
        else:
            session.out.pairs(
                [("run", run_id), ("waits for", ", ".join(map(wait_text, waits)) or "nothing more")]
            )
            if waits:
                tell_waits(session, waits_of(PastRun.read(run_id, store)))
            else:
                session.note("next", session.command("resume", run_id))
    return Exit.OK


def cancel(
    run: str | None = None,
    /,
    *,
    reason: str | None = None,
    by: str | None = None,
    timeout: float = 30.0,
    chosen: Selection = NOBODY,
    session: Injected,
) -> int:
    """End a run cancelled.

    The process that drives it interrupts its attempts, kills the programs it started, does the cleanup of the run
    and ends it; a run that nobody drives is ended here, or left to whoever resumes it where it has a cleanup.
    Cancelling a run during its cleanup ends it without the rest of that. A cancelled run cannot be resumed, unlike
    one that was stopped with Ctrl-C. With --where, every unfinished run that the filter selects is cancelled, one
    after the other.

    Parameters
    ----------
    run
        The run: its id, the beginning of it, or @last. Left out with --where.
    reason
        Why, for those who look at the run later.
    by
        Who asks for it. By default the user of this process.
    timeout
        How many seconds to wait for the process that drives it.
    """
    check_one(run, chosen)
    if run is None:
        return for_each(
            session,
            chosen,
            lambda store, run_id: {
                "status": machine.cancel(run_id, reason=reason, by=by, store=store, timeout=timeout).status
            },
        )
    with session.writing(run) as (store, run_id):
        result = machine.cancel(run_id, reason=reason, by=by, store=store, timeout=timeout)
    if session.as_json:
        session.out.json({"run_id": run_id, "status": result.status, "digest": result.digest})
    else:
        session.out.pairs([("run", run_id), ("status", (result.status, STYLES.get(result.status, "")))])
    if result.status not in FINAL_STATUSES:
        session.note("its cleanup is left", session.command("resume", run_id))
        return Exit.OK
    return Exit.OK if result.status == "cancelled" else Exit.FAILED
