"""`torture`: crash a run at every boundary."""

from __future__ import annotations

from machine.cli.answers_in_advance import InAdvance
from machine.cli.command_session import ConfigFile, Flag, Injected, JsonText, Quiet, Repeated
from machine.cli.error_report import Exit
from machine.cli.output import clean
from machine.cli.progress import doing
from machine.cli.run_and_resume import config_of, input_of
from machine.torture import FAULTS, crash_matrix


def torture(
    target: str,
    /,
    *,
    input: JsonText = "{}",  # noqa: A002 - the name of the option
    skip_tag: Repeated = (),
    config: ConfigFile = None,
    fault: Repeated = (),
    idempotent: Repeated = (),
    stop_at_first: Flag = False,
    in_advance: InAdvance | None = None,
    quiet: Quiet = False,
    session: Injected,
) -> int:
    """Crash a run at every boundary, with every fault, and check that it recovers.

    The plan is run once for real, in a temporary store, effects included. Then it is run again on the recorded
    responses, once for every append and every fault (killed before and after the append, and when a call has
    returned, torn write, lost fsync, disk full, IO error, duplicate append, store locked), resumed, and
    compared with the first run: nothing durable may be lost, and nothing in the log may be fetched or done
    again. A run that waits needs its answers in advance, in every run (--answer, --clock skip). Prints the
    unsafe boundaries (exit code 1), or that there are none (exit code 0).

    Parameters
    ----------
    target
        The plan: package.module:plan or path/file.py:plan. `:plan` may be left out when there is only one.
    input
        The run's input, a JSON object: as it is, in a file (@FILE), or on stdin (-). It becomes the context.
    skip_tag
        Skip the states that have this tag. May be given more than once.
    fault
        Try only this fault, for instance torn_write or enospc. May be given more than once.
    idempotent
        Treat effects of this namespace as idempotent. May be given more than once.
    stop_at_first
        Stop at the first unsafe cell.
    """
    loaded = session.load(target)
    with doing("", quiet=quiet or session.as_json) as say, session.user_code():
        matrix = crash_matrix(
            loaded.plan,
            input=input_of(input),
            config=config_of(config, skip_tag),
            faults=fault or FAULTS,
            idempotent=idempotent,
            stop_at_first=stop_at_first,
            **(in_advance or InAdvance()).arguments(),
            progress=lambda done, total: say(f"{done}/{total} cells"),
        )
    if session.as_json:
        session.out.json(matrix.to_json())
        return Exit.OK if matrix.safe else Exit.FAILED
    if matrix.status != "completed":
        session.note("note", f"the run itself ended {matrix.status}; the matrix is of that run")
    session.out.line((matrix.summary(), "green" if matrix.safe else "bold red"))
    if not matrix.safe:
        session.out.table(
            ["SEQ", "EVENT", "STATE", "FAULT", "REASON"],
            [[*cells, (clean(reason), "red")] for *cells, reason in matrix.rows()],
        )
    return Exit.OK if matrix.safe else Exit.FAILED
