"""`scan`: what looks like a secret in a run or in a file."""

from __future__ import annotations

from pathlib import Path

import attrs

from machine.cli.failures import Exit
from machine.cli.output import clean
from machine.cli.session import Injected
from machine.engine.scan import Leak, scan_bytes
from machine.engine.scan import scan as scan_run
from machine.replay.bundle_lines import is_bundle

__all__ = ["scan"]


def scan(what: str, /, *, session: Injected) -> int:
    """Find what looks like a secret in a run or a file.

    Of a run, the events and everything they name are looked through. A secret itself is never printed: only
    where it stands, by which rule it was found and how long it is. Exit code 1 says that something was found.

    Parameters
    ----------
    what
        The run (its id, the beginning of it, @last, or the path of a bundle), or the path of any other file.
    """
    path = Path(what)
    if path.is_file() and not is_bundle(path):
        leaks = scan_bytes(path.read_bytes())
        leaks = [attrs.evolve(leak, where=what) for leak in leaks]
    else:
        with session.reading(what) as (store, run_id):
            leaks = scan_run(run_id, store=store)
        what = run_id
    if session.as_json:
        session.json({"scanned": what, "found": [attrs.asdict(leak) for leak in leaks]})
    elif leaks:
        session.out.table(["WHERE", "RULE", "LENGTH", "PATH"], [_row(leak) for leak in leaks])
    else:
        session.note("note", "nothing that looks like a secret was found")
    return Exit.FAILED if leaks else Exit.OK


def _row(leak: Leak) -> tuple[str, str, str, str]:
    return clean(leak.where), clean(leak.rule), f"{leak.length:>6}", clean(leak.path)
