"""`artifacts`: list what the handlers of a run have written, or get one of it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from machine.cli.command_session import Flag, Injected, RunOrBundle, Session
from machine.cli.context_and_artifact import carried, to_terminal
from machine.cli.error_report import Exit
from machine.cli.output import clean, on_terminal
from machine.cli.state_text import short_state
from machine.errors import Code, OtherIoError, UsageError
from machine.io.atomic_write import write_atomically
from machine.recordings.output_reader import artifact_pieces
from machine.recordings.output_reader import artifacts as artifacts_of


def artifacts(
    run: RunOrBundle,
    name: str | None = None,
    /,
    *,
    output: Annotated[str | None, Parameter(name=["--output", "-o"])] = None,
    force: Flag = False,
    session: Injected,
) -> int:
    """List the artifacts that a run has written, or print one of them.

    They are those that its handlers stored with `rec.artifact`. One is printed unchanged when stdout is not a
    terminal. On a terminal JSON is indented, and bytes that are not text are refused.

    Parameters
    ----------
    name
        The artifact to print.
    output
        Write it into this file instead, completely or not at all.
    force
        Replace an existing file.
    """
    if name is None and output is not None:
        raise UsageError(
            "--output needs the name of an artifact",
            hint=f"{session.command('artifacts', run)} lists them",
            code=Code.USAGE,
        )
    with session.reading(run) as (store, run_id):
        if name is None:
            found = artifacts_of(run_id, store=store)
        else:
            _one(session, run_id, name, artifact_pieces(run_id, name, store=store), output, force=force)
            return Exit.OK
    if session.as_json:
        session.out.json({"run_id": run_id, "artifacts": [each.to_json() for each in found]})
    elif not found:
        session.note("note", f"run {run_id} has written no artifact")
    else:
        session.out.table(
            ["NAME", "KIND", "BYTES", "STATE", "ID"],
            [
                (
                    clean(each.name),
                    clean(each.kind),
                    f"{each.size:>9}",
                    short_state(each.state_id),
                    each.artifact_id,
                )
                for each in found
            ],
        )
    return Exit.OK


def _one(
    session: Session, run_id: str, name: str, pieces: Iterable[bytes], output: str | None, *, force: bool
) -> None:
    """Print an artifact, or write it into a file."""
    if output is not None:
        size = _written(output, pieces, force=force)
        if session.as_json:
            session.out.json({"run_id": run_id, "name": name, "file": output, "bytes": size})
        else:
            session.note("wrote", f"{clean(output)}, {size} bytes")
    elif session.as_json or on_terminal(sys.stdout):
        data = b"".join(pieces)
        if session.as_json:
            session.out.json({"run_id": run_id, "name": name, "bytes": len(data), **carried(data)})
        else:
            to_terminal(session.out.document, data)
    else:
        for piece in pieces:
            session.out.data(piece)


def _written(output: str, pieces: Iterable[bytes], *, force: bool) -> int:
    path = Path(output)
    if not force and (path.is_file() or path.is_symlink()):  # nothing else can be replaced
        raise OtherIoError(
            f"{output} already exists",
            code=Code.FILE_FAILED,
            details={"path": output},
            hint="--force replaces it",
        )
    try:
        write_atomically(output, pieces)
        return path.stat().st_size
    except OSError as exc:
        raise OtherIoError(
            f"{output} cannot be written: {exc.strerror}", code=Code.FILE_FAILED, details={"path": output}
        ) from exc
