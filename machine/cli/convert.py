"""`convert`: bundles in the version that people review."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from machine.cli import error_report
from machine.cli.command_session import Injected
from machine.cli.error_report import Exit
from machine.cli.many_recorded_runs import bundles_in
from machine.cli.output import clean
from machine.errors import MachineError, UsageError
from machine.recordings.bundle import convert_bundle


def convert(*paths: str, session: Injected) -> int:
    """Write bundles anew in the version that people review, in place.

    Version 2 names everything by its state and call, one value a line, with no times and no ids, so that a
    change of a run is a change of a few lines. The run and its digest stay the same. Golden runs are recorded
    in it; this command is for those that were recorded before. A file that is of version 2 already is checked
    and left as it is; one that cannot be converted is left as it is too, and the exit code is not 0.

    Parameters
    ----------
    paths
        The bundles, or folders: every bundle in them and below.
    """
    if not paths:
        raise UsageError("name the bundles to convert", hint="machine convert fixtures converts a folder")
    told: dict[str, list[Any]] = {"converted": [], "unchanged": [], "failed": []}
    worst = Exit.OK
    for file in [each for path in paths for each in (bundles_in(path) if Path(path).is_dir() else [path])]:
        try:
            word = "converted" if convert_bundle(file) else "unchanged"
        except MachineError as exc:
            worst = max(worst, error_report.exit_of(exc))
            told["failed"].append({"file": file, "error": error_report.as_json(exc)})
            if not session.as_json:
                session.note("failed", clean(str(exc)))
            continue
        told[word].append(file)
        if not session.as_json:
            session.out.line(f"{word}  {clean(file)}")
    if session.as_json:
        session.out.json(told)
    return worst
