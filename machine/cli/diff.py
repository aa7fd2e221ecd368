"""`diff`: how two recorded runs differ."""

from __future__ import annotations

import machine
from machine.cli.failures import Exit
from machine.cli.schedules import STYLES
from machine.cli.session import Injected
from machine.recordings import diff_text

__all__ = ["diff"]


def diff(a: str, b: str, /, *, state: str | None = None, session: Injected) -> int:
    """Say how two recorded runs differ.

    They are aligned by state and attempt: what they were asked to do, the first event that differs, then state
    by state the attempts, the facts, the domain events and what was written, and the last contexts. Times, ids
    and machines are no difference. No user code runs. The exit code is 0 for identical runs, 1 for others.

    Parameters
    ----------
    a
        The first run: its id, the beginning of it, @last, or the path of a bundle.
    b
        The other run, named the same ways.
    state
        Look at this state alone: its full id, or without the op.
    """
    with session.reading(a) as (store, run_a), session.reading(b) as (other_store, run_b):
        found = machine.diff_runs(run_a, run_b, store=store, other_store=other_store, state=state)
    if session.as_json:
        session.json(found.to_json())
    else:
        for mark, line in diff_text.marked(found):
            session.out.line((line, STYLES.get(mark, "")))
    return Exit.OK if found.identical else Exit.FAILED
