"""`diff`: the differences of two recorded runs."""

from __future__ import annotations

import machine
from machine.cli.command_session import Injected
from machine.cli.error_report import Exit
from machine.cli.schedules import STYLES
from machine.recordings import diff_text


def diff(a: str, b: str, /, *, state: str | None = None, session: Injected) -> int:
    """Show how two recorded runs differ.

    They are aligned by state and attempt. Prints the differences of what the runs were asked to do, the first
    event that differs, then for each state its attempts, facts, domain events and writes, and the last
    contexts. Times, ids and machines are no difference. No user code runs. The exit code is 0 for identical
    runs, 1 for others.

    Parameters
    ----------
    a
        The first run: its id, the beginning of it, @last, or the path of a bundle.
    b
        The other run, named in the same way.
    state
        Compare only this state: its full id, or without the op.
    """
    with session.reading(a) as (store, run_a), session.reading(b) as (other_store, run_b):
        found = machine.diff_runs(run_a, run_b, store=store, other_store=other_store, state=state)
    if session.as_json:
        session.out.json(found.to_json())
    else:
        for mark, line in diff_text.marked(found):
            session.out.line((line, STYLES.get(mark, "")))
    return Exit.OK if found.identical else Exit.FAILED
