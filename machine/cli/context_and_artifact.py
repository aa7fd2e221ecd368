"""`context` and `artifact`: print the data of a run, for people or for another program."""

from __future__ import annotations

import base64
import sys
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from machine import canonical
from machine.cli.command_session import Injected, RunOrBundle, Session, names_bundle, names_run
from machine.cli.error_report import NotHereError
from machine.cli.output import clean, on_terminal
from machine.engine import run_reader
from machine.engine.log_check import LogCheck
from machine.errors import Code, CodecError, IdError, UsageError
from machine.events import ArtifactKind, RunStarted, StateCompleted
from machine.ids import ArtifactId
from machine.kernel.outputs import pieces_of
from machine.kernel.snapshot import Load, Snapshot
from machine.kernel.value_chunks import joined


def context(
    run: RunOrBundle,
    /,
    *,
    at: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    session: Injected,
) -> int:
    """Print the context of a run as JSON.

    Without --at it is the last context; the writes of a state are in it once the state has completed.

    Parameters
    ----------
    at
        Use the context as of this event of the log: that of the last checkpoint at or before it.
    """
    with session.reading(run) as (store, run_id):
        head = store.latest_seq(run_id)
        if at is not None and at > head:
            raise UsageError(f"run {run_id} has {head} events, not {at}", code=Code.USAGE)
        seq, snapshot_id = 0, ""
        for entry, _ in run_reader.checked(store, run_id, LogCheck(store.get), at):
            if isinstance(entry.event, RunStarted):
                seq, snapshot_id = entry.seq, entry.event.initial_snapshot_id
            elif isinstance(entry.event, StateCompleted):
                seq, snapshot_id = entry.seq, entry.event.context_snapshot_id
        value = Snapshot.open(snapshot_id, store.get).to_dict()
    if session.as_json:
        session.out.json({"run_id": run_id, "seq": seq, "snapshot_id": snapshot_id, "context": value})
    else:
        session.out.document(value)
    return 0


def artifact(id: str, /, *, session: Injected) -> int:  # noqa: A002
    """Print the bytes of an artifact.

    They are printed unchanged when stdout is not a terminal. On a terminal JSON is indented, and bytes that are
    not text are refused. What is stored in parts, a large value or a large artifact of a handler, is printed whole.

    Parameters
    ----------
    id
        The artifact: 64 hexadecimal digits, as --json of other commands shows them.
    """
    with session.open_store() as store:
        if not _is_artifact_id(id) or not store.exists(id):
            raise NotHereError(
                f"there is no artifact {id!r} in {store.url}",
                code=Code.ARTIFACT_NOT_FOUND,
                details={"artifact": id, "store": store.url},
                hint=_how_to_find(session, id),
            )
        kind = store.kind(id)
        data = _whole(id, kind, store.get)
    if session.as_json:
        session.out.json({"id": id, "kind": kind, "bytes": len(data), **carried(data)})
    elif on_terminal(sys.stdout):
        to_terminal(session.out.document, data)
    else:
        session.out.data(data)
    return 0


def _whole(artifact_id: str, kind: str, load: Load) -> bytes:
    if kind == ArtifactKind.CONTEXT_CHUNKS:
        return joined(artifact_id, load)
    if kind == ArtifactKind.OUTPUT_PIECES:
        return b"".join(pieces_of(artifact_id, load, in_pieces=True))
    return load(artifact_id)


def _is_artifact_id(name: str) -> bool:
    try:
        return bool(ArtifactId(name))
    except IdError:
        return False


def _how_to_find(session: Session, name: str) -> str:
    """Return what to do next when no artifact of the store has this id."""
    if _is_artifact_id(name):
        return (
            f"another store may have it, --store STORE; {session.command('runs')} shows the runs of this one"
        )
    if names_bundle(name):
        first = f"that is a bundle: {session.command('import', name)} stores its artifacts"
        return f"{first}, and {session.command('events', name, '--json')} shows their ids"
    if names_run(name):
        return f"that is a run: {session.command('events', name, '--json')} shows the ids of its artifacts"
    return (
        f"an id has {ArtifactId.rule}; {session.command('events', 'RUN', '--json')} "
        "and facts RUN --json show those of a run"
    )


def carried(data: bytes) -> dict[str, Any]:
    """Return bytes as a field of a JSON object: as a JSON value, else as text, else in base64."""
    try:
        return {"value": canonical.decode(data)}
    except CodecError:
        pass
    try:
        return {"text": data.decode("utf-8")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode("ascii")}


def to_terminal(document: Any, data: bytes) -> None:
    """Print bytes on a terminal: JSON by `document`, and text. Raises `UsageError` for anything else."""
    held = carried(data)
    if "value" in held:
        document(held["value"])
    elif "text" in held:
        sys.stdout.write("\n".join(clean(line) for line in held["text"].split("\n")) + "\n")
    else:
        raise UsageError(
            f"these are {len(data)} bytes that are not text",
            hint="send them to a file: > FILE",
            code=Code.USAGE,
        )
