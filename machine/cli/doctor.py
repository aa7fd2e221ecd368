"""`doctor`: find what would make a replay differ."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from cyclopts.validators import Number

from machine.cli.command_session import ConfigFile, Injected, Quiet, Repeated, Session
from machine.cli.error_report import Exit
from machine.cli.output import clean
from machine.cli.progress import doing
from machine.cli.run_and_resume import config_of, input_of
from machine.cli.state_text import short_state
from machine.doctor import Diagnosis, examine_plan, examine_recording
from machine.doctor.checks import REPLAYS
from machine.doctor.family import export_family
from machine.errors import UsageError
from machine.recordings.bundle_line_reader import is_bundle

_RUN: Final = re.compile(r"@last|[0-9a-fA-F]{6,8}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{0,12}){1,4}")
"""Pattern of a run's name: `@last`, or an id long enough not to be a module's name by chance."""
_COUNT: Final = Parameter(validator=Number(gte=1, lte=100))
_SECONDS: Final = Parameter(validator=Number(gt=0, lte=86400))


def doctor(
    what: str,
    /,
    *,
    input: Repeated = (),  # noqa: A002 - the name of the option
    skip_tag: Repeated = (),
    config: ConfigFile = None,
    target: str | None = None,
    replays: Annotated[int, _COUNT] = REPLAYS,
    timeout: Annotated[float, _SECONDS] = 300.0,
    quiet: Quiet = False,
    session: Injected,
) -> int:
    """Find what would make a replay differ.

    Looks for I/O of handlers that bypasses io, and for dependence on the environment. A plan is run once for
    real, effects included, for each input. The recording, or a given one, is then replayed in other processes,
    each with another PYTHONHASHSEED, time zone, language and working directory. Lists every use of I/O without
    io, with its source line and what to do instead, and the first difference (exit code 1), or says that there
    is none (exit code 0). Nothing is stored.

    Parameters
    ----------
    what
        The plan: package.module:plan or path/file.py:plan. Or a recording: the id of a run or the beginning of
        it, @last, or the path of a bundle.
    input
        The run's input, a JSON object: as it is, in a file (@FILE), or on stdin (-). May be given more than once;
        then each is run.
    skip_tag
        Skip the states that have this tag. May be given more than once.
    target
        The plan of a recording, when it is not the one the run was started from.
    replays
        How many times to replay each recording.
    timeout
        How many seconds a process may take.
    """
    with doing("", quiet=quiet or session.as_json) as progress:
        if _RUN.fullmatch(what) or is_bundle(what):
            if input or skip_tag or config:
                raise UsageError(
                    "--input, --skip-tag and --config are for a plan, and this is a recording",
                    hint="name the plan to have it run",
                )
            with session.reading(what) as (store, run_id), tempfile.TemporaryDirectory() as place:
                found = session.load_recorded(store, run_id, target).target
                bundle = Path(place, "bundle.run")
                export_family(run_id, bundle, store=store)
                diagnosis = examine_recording(
                    bundle, found, replays=replays, timeout=timeout, progress=progress
                )
        elif target is not None:
            raise UsageError("--target is for a recording, and this is a plan")
        else:
            inputs = [input_of(text) for text in input] or [{}]
            diagnosis = examine_plan(
                session.load(what).target,
                inputs=inputs,
                config=config_of(config, skip_tag),
                replays=replays,
                timeout=timeout,
                progress=progress,
            )
    if session.as_json:
        session.out.json(diagnosis.to_json())
    else:
        _show(session, diagnosis)
    return Exit.OK if diagnosis.healthy else Exit.FAILED


def _show(session: Session, diagnosis: Diagnosis) -> None:
    out = session.out
    for run_id, status in diagnosis.runs.items():
        if status != "completed":
            session.note("note", f"run {run_id} is {status}; what was examined is that")
    if diagnosis.findings:
        out.table(
            ["STATE", "WHERE", "DOES", "REMEDY"],
            [
                (
                    short_state(finding.state_id),
                    f"{_shown(finding.file)}:{finding.line}",
                    (clean(finding.does), "yellow"),
                    clean(finding.remedy),
                )
                for finding in diagnosis.findings
            ],
        )
    for difference in diagnosis.differences:
        out.line(("differs", "bold red"), f"  in a replay with {difference.environment}")
        for line in difference.lines:
            out.line(line)
    for problem in diagnosis.problems:
        out.line(("problem", "bold red"), f"  {clean(problem)}")
    runs, replays = len(diagnosis.runs), diagnosis.replays
    counted = f"{runs} run{'s' * (runs != 1)}, {replays} replay{'s' * (replays != 1)}"
    if diagnosis.healthy:
        out.line(("healthy", "green"), f"  {counted}: identical, and nothing without io")
    else:
        out.line(("unhealthy", "bold red"), f"  {counted}")


def _shown(file: str) -> str:
    path = os.path.relpath(file)
    return clean(file if path.startswith("..") else path)
