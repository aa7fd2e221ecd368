"""The outputs of a run: artifacts that its handlers have named, and the pieces that large ones are stored in.

A name belongs to the state that wrote it first; only a later attempt of that state may write it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import attrs

from machine import canonical
from machine.errors import Code, CodecError, CorruptionError
from machine.events import ArtifactKind, DomainEventRecorded

OUTPUT_EVENT: Final = "artifact_written"
"""The name of the event of an output."""

PIECE: Final = 1024 * 1024
"""The number of bytes of each piece but the last, and the most of an output that is stored whole."""

LARGEST: Final = 512 * 1024 * 1024
"""The most bytes of an output."""

_LONGEST_LIST: Final = LARGEST // PIECE * 67 + 100


class Output(NamedTuple):
    """One output as its event has it: name, kind and id, how it is stored, and the attempt that wrote it."""

    name: str
    kind: str
    artifact_id: str
    stored: str
    state_id: str
    attempt: int

    def left_to(self, state_id: str, attempt: int) -> bool:
        """Say whether an attempt may write another artifact of this name: a later one of the same state."""
        return self.state_id == state_id and self.attempt < attempt

    @property
    def in_pieces(self) -> bool:
        """True when the artifact is the list of the pieces of the output."""
        return self.stored == ArtifactKind.OUTPUT_PIECES


def output_of(event: DomainEventRecorded) -> Output | None:
    """Return the output that an event is about, None for any other event.

    Raises `ValueError` where it is about one and does not say which.
    """
    if event.artifact_kind is None:
        return None
    match event.payload:
        case {"artifact_id": str(artifact_id), "kind": str(kind), "meta": {"name": str(name)}}:
            known = event.artifact_kind in {ArtifactKind.OUTPUT, ArtifactKind.OUTPUT_PIECES}
            if event.name == OUTPUT_EVENT and known:
                return Output(name, kind, artifact_id, event.artifact_kind, event.state_id, event.attempt)
    raise ValueError("its payload does not say which artifact was written")


@attrs.define
class Outputs:
    """The last output of each name, in the order in which the names were first written."""

    by_name: dict[str, Output] = attrs.field(factory=dict)

    def note(self, event: DomainEventRecorded) -> None:
        """Take in an event of the log. Raises `ValueError` for one that claims an output and names none."""
        output = output_of(event)
        if output is not None:
            self.by_name[output.name] = output


def spelled_list(size: int, ids: Sequence[str]) -> bytes:
    """Return the list of an output's pieces, whose hash is the id of the output."""
    names = '","'.join(ids)
    return f'{{"bytes":{size},"pieces":["{names}"],"type":"pieces"}}'.encode()


def piece_ids(list_id: str, data: bytes) -> list[str]:
    """Return the ids of the pieces in a list. Raises `CorruptionError` unless it is one."""
    return _parsed(list_id, data)[1]


def size_in_list(list_id: str, data: bytes) -> int:
    """Return the number of bytes of the output that a list stands for. Raises `CorruptionError`."""
    return _parsed(list_id, data)[0]


def _parsed(list_id: str, data: bytes) -> tuple[int, list[str]]:
    try:
        value = canonical.decode(data) if len(data) <= _LONGEST_LIST else None
    except CodecError:
        value = None
    if isinstance(value, Mapping):
        size, ids = value.get("bytes"), value.get("pieces")
        if type(size) is int and PIECE < size <= LARGEST and isinstance(ids, list):
            right = len(ids) == -(-size // PIECE) and all(isinstance(each, str) for each in ids)
            if right and spelled_list(size, ids) == data:
                return size, ids
    raise _no_list(list_id)


def pieces_of(output_id: str, load: Callable[[str], bytes], *, in_pieces: bool) -> Iterator[bytes]:
    """Yield the bytes of an output, piece by piece.

    Raises what `load` raises, and `CorruptionError` where the pieces are not those of its list.
    """
    if not in_pieces:
        yield load(output_id)
        return
    left, ids = _parsed(output_id, load(output_id))
    for each in ids:
        piece = load(each)
        if len(piece) != min(left, PIECE):
            raise _no_list(output_id)
        left -= len(piece)
        yield piece


def _no_list(list_id: str) -> CorruptionError:
    text = f"artifact {list_id} is not the list of an output's pieces"
    return CorruptionError(text, code=Code.ARTIFACT_CORRUPT)
