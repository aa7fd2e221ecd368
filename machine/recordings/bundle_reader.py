"""Reading and checking a whole bundle; the error of an invalid one names its first wrong line."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import attrs

from machine import canonical
from machine.engine.log_check import provenance_id
from machine.envelope import chain_next
from machine.errors import BundleError, Code, LogError, MachineError, NotFoundError
from machine.events import Artifact, ArtifactKind, Entry, RunStarted
from machine.recordings import bundle_line as form
from machine.recordings import bundle_version
from machine.recordings.artifact_spool import ArtifactSpool, SpooledArtifacts
from machine.recordings.bundle_line_reader import CONFLICT, read_lines
from machine.recordings.bundle_writer import carried, end_of
from machine.recordings.run_contents import Recording, gather, seals_of
from machine.stores.base import ZERO_CHAIN, Message, StoredEvent

T = TypeVar("T")


def read_bundle(path: str | os.PathLike[str]) -> Recording:
    """Return the run of a bundle after a full check. Raises what `open_bundle` raises."""
    lines = read_lines(os.fspath(path))
    first = next(lines)
    if bundle_version.is_readable(form.version_of(first)):
        from machine.recordings.readable_reader import read_readable  # noqa: PLC0415 - most bundles are not

        return read_readable([first, *lines], os.fspath(path))
    return _Reader(os.fspath(path)).read(itertools.chain([first], lines))


def is_readable(path: str | os.PathLike[str]) -> bool:
    """Return whether a bundle is in the form that people review. Raises `BundleError`."""
    return bundle_version.is_readable(form.version_of(next(read_lines(os.fspath(path)))))


class _Reader:
    """A reading of a bundle from first to last line; `line` is the number of the current one, for errors."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.line = 0
        self.artifacts = SpooledArtifacts(ArtifactSpool())
        self.seals: dict[str, Artifact] = {}
        self.lines: dict[str, int] = {}  # of artifacts
        self.first_event = 0
        self.messages: list[Message] = []

    def read(self, found: Iterator[bytes]) -> Recording:
        lines = self._checked(found)
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
                self._add(self._parsed(form.parse_artifact, line), header)
            elif line.startswith(form.MESSAGE) and header.needs >= bundle_version.Needs.WAITS and log:
                message = self._parsed(form.parse_message, line)
                if message.number != len(self.messages) + 1:
                    raise self._wrong(f"message {message.number} is not the next one")
                self.messages.append(message)
            elif line.startswith(form.EVENT):
                if self.messages:
                    raise self._wrong("an event follows a message")
                entry, data = self._parsed(lambda line: form.parse_event(line, header.run_id), line)
                if entry.seq != len(log) + 1:
                    raise self._wrong(f"event {entry.seq} is in the place of event {len(log) + 1}")
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
        recording = attrs.evolve(self._gathered(header, log), messages=tuple(self.messages))
        self.line = 1
        if recording.needs != header.needs:
            raise self._wrong("its version is not that of this run")
        if self.messages and (recording.ended or not recording.waits):
            raise self._wrong("there are messages to a run that does not wait")
        self.line = last
        if end_of(recording) != end:
            raise self._wrong(f"it is not the end of this run, which would be {end_of(recording).decode()}")
        return recording

    def _checked(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        for number, line in enumerate(lines, 1):
            self.line = number
            if line.endswith(b"\r"):
                raise self._wrong(
                    "its line end was changed to CRLF",
                    hint="git does that: put `*.run -text` into .gitattributes",
                )
            if line.startswith(b"<<<<<<< "):
                raise self._wrong(CONFLICT, hint="take one side of the merge as it is, or record it again")
            self._parsed(form.check_sum, line)
            yield line

    def _parsed(self, parse: Callable[[bytes], T], line: bytes) -> T:
        try:
            return parse(line)
        except (ValueError, LogError) as exc:
            raise self._wrong(str(exc)) from None

    def _add(self, artifact: Artifact, header: form.Header) -> None:
        if artifact.id in self.lines:
            raise self._wrong(f"artifact {artifact.id} is there already, in line {self.lines[artifact.id]}")
        if artifact.kind == ArtifactKind.SECRET_PAYLOAD:
            if header.secrets is None:
                raise self._wrong("a sealed secret is in a bundle without a key")
            self.seals[artifact.id] = artifact
        elif self.seals:
            raise self._wrong("an artifact follows the sealed secrets")
        else:
            self.artifacts.add(artifact)
        self.lines[artifact.id] = self.line

    def _gathered(self, header: form.Header, log: list[tuple[Entry, StoredEvent]]) -> Recording:
        """Return the run, after checking that its artifacts are exactly those its events reference, in order."""
        spool = self.artifacts.spool
        self.line = self.first_event
        for role, data, artifact_id in _said(header, log):
            found = None if data is None else canonical.artifact_id(data)
            if found != artifact_id:
                raise self._wrong(f"it names {artifact_id} as its {role}, the header has {found}")
            if data is not None and found is not None:
                if found in self.lines:
                    self.line = self.lines[found]
                    raise self._wrong(f"the {role} may be in the header only")
                spool.add(found, data)

        def missing(artifact_id: str) -> bytes:
            raise NotFoundError(
                f"it leads to artifact {artifact_id}, which is not in the bundle",
                code=Code.ARTIFACT_NOT_FOUND,
            )

        def stepping() -> Iterator[tuple[Entry, StoredEvent]]:
            for entry, stored in log:
                self.line = self.first_event + entry.seq - 1
                yield entry, stored

        try:
            recording = gather(stepping(), missing, spool)
        except MachineError as exc:
            newer = exc.code == Code.RUN_NEWER_FORMAT
            code = Code.BUNDLE_NEWER_FORMAT if newer else Code.BUNDLE_INVALID
            raise self._wrong(exc.message, code, exc.hint if newer else None) from exc
        self._compare(recording)
        if header.secrets is None:
            return recording
        self._compare_seals(seals_of(recording))
        return attrs.evolve(recording, seals=self.seals, lock=canonical.decode(header.secrets))

    def _compare(self, recording: Recording) -> None:
        needed = carried(recording)
        unused = self.artifacts.keys() - set(needed)
        for artifact_id, line in self.lines.items():
            if artifact_id in unused:
                self.line = line
                raise self._wrong(f"no event leads to artifact {artifact_id}")
        for here, due in zip(self.artifacts, needed, strict=True):
            self.line = self.lines[here]
            if here != due:
                raise self._wrong(f"artifact {here} is in the place of {due}")
            said, used = self.artifacts.kinds[here], recording.artifacts.kinds[here]
            if said != used:
                raise self._wrong(f"artifact {here} is of kind {used}, not {said}")

    def _compare_seals(self, named: Iterable[str]) -> None:
        due = iter(named)
        for seal_id in self.seals:
            self.line = self.lines[seal_id]
            if (
                seal_id not in due
            ):  # `in` consumes `due` up to the match: this checks the order, and some may be absent
                raise self._wrong(f"no event leads to the sealed secret {seal_id} there")

    def _wrong(self, problem: str, code: Code = Code.BUNDLE_INVALID, hint: str | None = None) -> BundleError:
        return BundleError(problem, path=self.path, line=self.line or None, code=code, hint=hint)


def _said(
    header: form.Header, log: list[tuple[Entry, StoredEvent]]
) -> Iterator[tuple[str, bytes | None, str | None]]:
    """Yield plan and provenance: role, bytes from the header, and the id given by the first event."""
    if isinstance(log[0][0].event, RunStarted):  # else the fold of the log raises the better error
        yield ArtifactKind.PLAN, header.plan, log[0][0].event.plan_id
        yield ArtifactKind.PROVENANCE, header.provenance, provenance_id(log[0][0])
