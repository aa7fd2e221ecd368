"""`export` and `import`: a run out of a store into one file, and back."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

from cyclopts import Parameter

import machine
from machine.cli.output import clean, on_terminal
from machine.cli.session import Flag, Injected
from machine.errors import BundleError, Code, UsageError
from machine.kernel.status import FINAL_STATUSES
from machine.replay.bundle import read_bundle, store_recording
from machine.replay.recording import Recording
from machine.secrets.handles.handle import MARK

__all__ = ["export", "import_runs"]

_STDOUT = "-"
_HANDLE = MARK.encode()


def export(
    run: str,
    /,
    *,
    output: Annotated[str, Parameter(name=("--output", "-o"), allow_leading_hyphen=True)],
    gzip: Flag = False,
    force: Flag = False,
    session: Injected,
) -> int:
    """Write a run as a bundle: one portable file.

    It holds every event and everything they lead to, one JSON object a line, so that the run can be read, verified
    and replayed anywhere. The same run always gives the same bytes. A run that has not ended is written as far as
    it went. No secret key, message or lease of the store is in it.

    Parameters
    ----------
    run
        The run: its id, the beginning of it, @last, or the path of a bundle.
    output
        The file to write, or - for stdout. It is replaced at once, or not at all.
    gzip
        Compress it. A file whose name ends in .gz is compressed without being asked.
    force
        Replace the file if it is there.
    """
    if output == _STDOUT:
        return _to_stdout(run, gzip=gzip, session=session)
    if not force and os.path.lexists(output):
        raise BundleError(
            "it is there already", path=output, code=Code.BUNDLE_NOT_WRITTEN, hint="--force replaces it"
        )
    with session.reading(run) as (store, run_id):
        data = machine.export_run(run_id, output, store=store, gzip=gzip or output.endswith(".gz"))
        events = store.head_seq(run_id)
    if session.as_json:
        session.json({"run_id": run_id, "file": output, "events": events, "bytes": len(data)})
    else:
        session.out.pairs(
            [("run", run_id), ("file", clean(output)), ("events", str(events)), ("bytes", str(len(data)))]
        )
    return 0


def _to_stdout(run: str, *, gzip: bool, session: Injected) -> int:
    if session.as_json:
        raise UsageError("--json and the bundle cannot both have stdout", hint="name a file: -o FILE")
    if gzip and on_terminal(sys.stdout):
        raise UsageError("a compressed bundle is nothing for a terminal", hint="name a file: -o FILE")
    with session.reading(run) as (store, run_id):
        data = machine.export_run(run_id, store=store, gzip=gzip)
    session.out.data(data)
    return 0


def import_runs(*files: str, session: Injected) -> int:
    """Store the runs of bundles.

    Each is checked to its end before anything of it is stored; nothing is executed. A run keeps its id, and one
    that is there already is left as it is. Prints the ids. The store is made if it is not there.

    Parameters
    ----------
    files
        The bundles, plain or compressed.
    """
    if not files:
        raise UsageError("name the bundles to import", hint="machine export RUN -o FILE makes one")
    if session.store_url.startswith("memory:"):
        raise UsageError("a store in memory ends with this command", hint="leave --store out, or name a file")
    recordings = [(file, read_bundle(file)) for file in files]
    done: list[dict[str, Any]] = []
    with session.open_store(create=True) as store:
        for file, recording in recordings:
            new = store_recording(recording, store=store, path=file)
            status = store.run_row(recording.run_id).status
            done.append({"file": file, "run_id": recording.run_id, "status": status, "new": new})
            if session.as_json:
                continue
            session.out.line(recording.run_id)
            if not new:
                session.note("note", f"{clean(file)}: the store has this run already")
            elif status not in FINAL_STATUSES and _holds_secrets(recording):
                text = "it is open and holds secrets; resumed here, it may make calls with them again"
                session.note("note", f"{clean(file)}: {text}")
    if session.as_json:
        session.json({"imported": done})
    return 0


def _holds_secrets(recording: Recording) -> bool:
    return any(_HANDLE in artifact.data for artifact in recording.artifacts.values())
