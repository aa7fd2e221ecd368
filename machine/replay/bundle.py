"""Bundles: a whole run in one portable file, out of a store and into one.

A bundle is checked to its end before anything of it is stored, and then stored in one append: all of it or nothing.
Reading one executes nothing, and writes nowhere.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Final, Self, TypeVar

import attrs

from machine import canonical
from machine.engine import reading
from machine.errors import (
    BundleError,
    Code,
    Concurrency,
    Corruption,
    IoOther,
    LogError,
    MachineError,
    NotFound,
)
from machine.events import Entry, RunStarted, chain_next
from machine.io.atomic import write_atomically
from machine.replay import bundle_format as form
from machine.replay.bundle_lines import MAX_BUNDLE, read_lines
from machine.replay.recording import Recording, gather, provenance_id
from machine.stores.base import ZERO_CHAIN, Artifact, ArtifactKind, Store, StoredEvent
from machine.stores.memory import MemoryStore

__all__ = [
    "Bundle",
    "export_run",
    "import_bundle",
    "open_bundle",
    "read_bundle",
    "store_recording",
    "write_bundle",
]

T = TypeVar("T")

_GZIP_HEADER: Final = b"\x1f\x8b\x08" + bytes(5) + b"\x02\xff"
"""RFC 1952 section 2.3.1: no name and no time, so that the same run has the same bytes."""


@attrs.frozen
class Bundle:
    """A run read from a bundle: `store` is in memory and holds just that run."""

    run_id: str
    store: Store

    def close(self) -> None:
        """Release the store; twice is harmless."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


# -- out of a store ------------------------------------------------------------------------------------------


def export_run(
    run_id: str, path: str | os.PathLike[str] | None = None, *, store: Store, gzip: bool = False
) -> bytes:
    """Return a run as the bytes of a bundle and, given a path, make them the whole content of that file.

    The same run gives the same bytes, whichever store it is in; `gzip` compresses them. A run that has not ended is
    exported as far as it went. A file that was there is replaced at once, or after an error left as it was.

    Raises `NotFound`; `LogError`, `Corruption` or `PlanError` for a run that is damaged; and `BundleError` with
    `bundle_too_large` or `bundle_not_written`.
    """
    reading.require_run(store, run_id)
    recording = gather(reading.entries(store, run_id), store.get)
    data = _joined(recording)
    if gzip:
        data = _compressed(data)
    if path is not None:
        write_bundle(path, data)
    return data


def _joined(recording: Recording) -> bytes:
    lines: list[bytes] = []
    total = 0
    for line, most in _lines(recording):
        total += len(line) + 1
        if len(line) > most or total > MAX_BUNDLE:
            raise BundleError(
                f"a line may have {most} bytes, and the whole {MAX_BUNDLE}",
                path=f"the bundle of run {recording.run_id}",
                line=len(lines) + 1,
                code=Code.BUNDLE_TOO_LARGE,
            )
        lines.append(line)
    return b"\n".join((*lines, b""))


def _lines(recording: Recording) -> Iterator[tuple[bytes, int]]:
    """Yield each line of a bundle, and how long it may be."""
    header = _header_of(recording)
    yield form.header_line(header), form.MAX_JSON_LINE
    carried = _carried(recording)
    for artifact in carried:
        yield form.artifact_line(artifact), form.MAX_LINE
    for entry in recording.entries:
        yield form.event_line(entry.seq, entry.body, entry.info), form.MAX_JSON_LINE
    yield _end_of(recording), form.MAX_JSON_LINE


def _header_of(recording: Recording) -> form.Header:
    built = recording.provenance_id
    return form.Header(
        recording.run_id,
        _json_of(recording, recording.plan_id),
        None if built is None else _json_of(recording, built),
    )


def _json_of(recording: Recording, artifact_id: str) -> bytes:
    data = recording.artifacts[artifact_id].data
    try:
        if canonical.encode(canonical.decode(data)) == data:
            return data
    except MachineError:
        pass
    raise Corruption(f"artifact {artifact_id} is not canonical JSON", code=Code.ARTIFACT_CORRUPT)


def _carried(recording: Recording) -> list[Artifact]:
    """Return the artifacts that have a line: all but the plan and the provenance, which the header has."""
    in_header = {recording.plan_id, recording.provenance_id}
    return [artifact for artifact in recording.artifacts.values() if artifact.id not in in_header]


def _end_of(recording: Recording) -> bytes:
    return form.end_line(
        artifacts=len(_carried(recording)),
        chain=recording.chain,
        digest=recording.digest,
        events=len(recording.log),
    )


def _compressed(data: bytes) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = stream.compress(data) + stream.flush()
    return _GZIP_HEADER + body + struct.pack("<LL", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def write_bundle(path: str | os.PathLike[str], data: bytes) -> None:
    """Make the bytes of a bundle the whole content of a file. Raises `BundleError` (`bundle_not_written`)."""
    path = os.fspath(path)
    try:
        write_atomically(path, data)
    except (OSError, IoOther) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is there and is not a regular file"
        raise BundleError(f"it cannot be written: {reason}", path=path, code=Code.BUNDLE_NOT_WRITTEN) from exc


# -- out of a file -------------------------------------------------------------------------------------------


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Return the run of a bundle, plain or compressed, checked to its end, in a store of its own in memory.

    Raises `BundleError` with `bundle_not_found`, `bundle_invalid`, `bundle_truncated`, `bundle_newer_format` or
    `bundle_too_large`.
    """
    recording = read_bundle(path)
    store = MemoryStore()
    store.url = os.fspath(path)
    store_recording(recording, store=store, path=store.url)
    return Bundle(recording.run_id, store)


def import_bundle(path: str | os.PathLike[str], *, store: Store) -> str:
    """Check a bundle to its end, store its run in one append under its own id, and return that id.

    Importing a run that is there already changes nothing. Raises what `open_bundle` raises; `BundleError` with
    `bundle_conflict` when the store has another log under that id, or the run's invocation key under another; and
    what `Store.append` raises.
    """
    recording = read_bundle(path)
    store_recording(recording, store=store, path=os.fspath(path))
    return recording.run_id


def store_recording(recording: Recording, *, store: Store, path: str) -> bool:
    """Append a whole run that was read from `path`. Returns False when it is there already."""
    if _is_there(recording, store, path):
        return False
    try:
        store.append(recording.run_id, 0, recording.log, list(recording.artifacts.values()))
    except Concurrency as exc:
        if exc.code == Code.INVOCATION_TAKEN:
            raise BundleError(
                f"{exc.message}: an invocation key belongs to one run",
                path=path,
                code=Code.BUNDLE_CONFLICT,
                hint="import it into another store",
            ) from exc
        if _is_there(recording, store, path):  # another process has just imported it
            return False
        raise
    return True


def _is_there(recording: Recording, store: Store, path: str) -> bool:
    head = store.head(recording.run_id)
    if head.seq == 0:
        return False
    mine = len(recording.log)
    if (head.seq, head.chain) == (mine, recording.chain):
        return True
    shared = min(head.seq, mine)
    (stored,) = store.read_range(recording.run_id, shared, shared)
    if stored.chain == recording.log[shared - 1].chain:
        which = "goes on" if head.seq > mine else "ends earlier"
        text = f"run {recording.run_id} is in {store.url} already and {which} there: {head.seq} events, here {mine}"
    else:
        text = f"{store.url} has another log of run {recording.run_id}"
    raise BundleError(
        text, path=path, code=Code.BUNDLE_CONFLICT, hint="nothing was written; import it into another store"
    )


def read_bundle(path: str | os.PathLike[str]) -> Recording:
    """Return the run of a bundle, checked to its end. Raises what `open_bundle` raises."""
    return _Reader(os.fspath(path)).read()


class _Reader:
    """One pass over a bundle; `line` is the one it is at, which an error names."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.line = 0
        self.artifacts: dict[str, Artifact] = {}
        self.lines: dict[str, int] = {}  # of artifacts
        self.first_event = 0

    def read(self) -> Recording:
        lines = self._checked(read_lines(self.path))
        first = next(lines)
        header = self._parsed(form.parse_header, first)
        log: list[tuple[Entry, StoredEvent]] = []
        chain = ZERO_CHAIN
        end = None
        for line in lines:
            if end is not None:
                raise self._wrong("something follows the end of the bundle")
            if line.startswith(form.ARTIFACT):
                if log:
                    raise self._wrong("an artifact follows an event")
                self._add(self._parsed(form.parse_artifact, line))
            elif line.startswith(form.EVENT):
                entry, data = self._parsed(lambda line: form.parse_event(line, header.run_id), line)
                if entry.seq != len(log) + 1:
                    raise self._wrong(f"event {entry.seq} stands where event {len(log) + 1} is due")
                self.first_event = self.first_event or self.line
                chain = chain_next(chain, data)
                log.append((entry, StoredEvent(entry.seq, data, chain)))
            elif line.startswith(form.END):
                if not log:
                    raise self._wrong("the end comes before any event")
                end = line
            else:
                raise self._wrong("it is neither an artifact, nor an event, nor the end")
        if end is None:
            self.line += 1
            raise self._wrong("it has no end: a part of it is missing", Code.BUNDLE_TRUNCATED)
        last = self.line
        recording = self._gathered(header, log)
        self.line = last
        if _end_of(recording) != end:
            raise self._wrong(f"it is not the end of this run, which would be {_end_of(recording).decode()}")
        return recording

    def _checked(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        for number, line in enumerate(lines, 1):
            self.line = number
            if line.endswith(b"\r"):
                raise self._wrong(
                    "its line end was changed to CRLF",
                    hint="git does that: put `*.run -text` into .gitattributes",
                )
            self._parsed(form.check_sum, line)
            yield line

    def _parsed(self, parse: Callable[[bytes], T], line: bytes) -> T:
        try:
            return parse(line)
        except (ValueError, LogError) as exc:
            raise self._wrong(str(exc)) from None

    def _add(self, artifact: Artifact) -> None:
        if artifact.id in self.lines:
            raise self._wrong(f"artifact {artifact.id} is there already, in line {self.lines[artifact.id]}")
        self.artifacts[artifact.id] = artifact
        self.lines[artifact.id] = self.line

    def _gathered(self, header: form.Header, log: list[tuple[Entry, StoredEvent]]) -> Recording:
        """Return the run, if the artifacts are those that its events lead to, in that order."""
        held = {artifact.id: artifact.data for artifact in self.artifacts.values()}
        self.line = self.first_event
        for role, data, artifact_id in _said(header, log):
            found = None if data is None else canonical.artifact_id(data)
            if found != artifact_id:
                raise self._wrong(f"it names {artifact_id} as its {role}, the header has {found}")
            if data is not None and found is not None:
                if found in self.lines:
                    self.line = self.lines[found]
                    raise self._wrong(f"the {role} is carried by the header alone")
                held[found] = data

        def load(artifact_id: str) -> bytes:
            data = held.get(artifact_id)
            if data is None:
                raise NotFound(
                    f"it leads to artifact {artifact_id}, which is not in the bundle",
                    code=Code.ARTIFACT_NOT_FOUND,
                )
            return data

        def stepping() -> Iterator[tuple[Entry, StoredEvent]]:
            for entry, stored in log:
                self.line = self.first_event + entry.seq - 1
                yield entry, stored

        try:
            recording = gather(stepping(), load)
        except MachineError as exc:
            raise self._wrong(exc.message) from exc
        self._compare(_carried(recording))
        return recording

    def _compare(self, needed: list[Artifact]) -> None:
        unused = self.artifacts.keys() - {artifact.id for artifact in needed}
        for artifact_id, line in self.lines.items():
            if artifact_id in unused:
                self.line = line
                raise self._wrong(f"no event leads to artifact {artifact_id}")
        for here, due in zip(self.artifacts.values(), needed, strict=True):
            self.line = self.lines[here.id]
            if here.id != due.id:
                raise self._wrong(f"artifact {here.id} stands where {due.id} is due")
            if here.kind != due.kind:
                raise self._wrong(f"artifact {here.id} is of kind {due.kind}, not {here.kind}")

    def _wrong(self, problem: str, code: Code = Code.BUNDLE_INVALID, hint: str | None = None) -> BundleError:
        return BundleError(problem, path=self.path, line=self.line or None, code=code, hint=hint)


def _said(
    header: form.Header, log: list[tuple[Entry, StoredEvent]]
) -> Iterator[tuple[str, bytes | None, str | None]]:
    """Yield what the header carries of plan and provenance, and the ids that the first event has for them."""
    if isinstance(log[0][0].event, RunStarted):  # else the fold says what is wrong
        yield ArtifactKind.PLAN, header.plan, log[0][0].event.plan_id
        yield ArtifactKind.PROVENANCE, header.provenance, provenance_id(log[0][0])
