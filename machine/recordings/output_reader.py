"""Reading of the artifacts that the handlers of a run have written, also while it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from machine.default_store import DEFAULT_STORE, with_default_store
from machine.did_you_mean import did_you_mean
from machine.engine import run_reader
from machine.engine.log_check import LogCheck
from machine.errors import Code, NotFoundError
from machine.kernel.outputs import Output, pieces_of, size_in_list
from machine.recordings.result_json import fields_json
from machine.stores.base import Store


@attrs.frozen
class RunArtifact:
    """One artifact of a run: its name, kind, id and size, and the state and attempt that wrote it."""

    name: str
    kind: str
    artifact_id: str
    size: int
    state_id: str
    attempt: int

    def to_json(self) -> dict[str, Any]:
        """Return the artifact as a JSON object."""
        return fields_json(self)


@with_default_store()
def artifacts(run_id: str, *, store: Store = DEFAULT_STORE) -> list[RunArtifact]:
    """Return the artifacts that a run has written by now, in the order in which their names were first written.

    One that a later attempt of its state has written again is the later one. Raises `NotFoundError` for a run that
    does not exist, and `LogError` or `CorruptionError` for a log that is damaged.
    """
    return [
        RunArtifact(
            output.name,
            output.kind,
            output.artifact_id,
            _size(output, store),
            output.state_id,
            output.attempt,
        )
        for output in _outputs(store, run_id).values()
    ]


@with_default_store()
def read_artifact(run_id: str, name: str, *, store: Store = DEFAULT_STORE) -> bytes:
    """Return the bytes of an artifact of a run.

    Raises `NotFoundError` (`artifact_not_found`) when the run has none of that name, and as `artifacts` does.
    """
    return b"".join(artifact_pieces(run_id, name, store=store))


def artifact_pieces(run_id: str, name: str, *, store: Store) -> Iterator[bytes]:
    """Yield the bytes of an artifact of a run, piece by piece. Raises as `read_artifact` does."""
    outputs = _outputs(store, run_id)
    output = outputs.get(name)
    if output is None:
        names = [*outputs]
        listed = f"it has {', '.join(map(repr, names))}" if names else "it has written none"
        raise NotFoundError(
            f"run {run_id} has no artifact {name!r}",
            code=Code.ARTIFACT_NOT_FOUND,
            details={"run_id": run_id, "artifact": name, "artifacts": names},
            hint=did_you_mean(name, names, listed, show=repr),
        )
    return pieces_of(output.artifact_id, store.get, in_pieces=output.in_pieces)


def _outputs(store: Store, run_id: str) -> dict[str, Output]:
    run_reader.require_run(store, run_id)
    check = LogCheck(store.get, joins=False)
    for _ in run_reader.checked(store, run_id, check):
        pass
    return check.history.outputs.by_name


def _size(output: Output, store: Store) -> int:
    data = store.get(output.artifact_id)
    return size_in_list(output.artifact_id, data) if output.in_pieces else len(data)
