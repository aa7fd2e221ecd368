"""Reading and checking a bundle of version 2: the error of an invalid one names its first wrong line."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, NoReturn

from machine import canonical, codec
from machine.envelope import chain_next, seal
from machine.errors import BundleError, Code, LogError, MachineError
from machine.events import ArtifactKind, Entry
from machine.ids import RunId
from machine.recordings.artifact_spool import ArtifactSpool
from machine.recordings.bundle_line_reader import CONFLICT, way_out
from machine.recordings.readable_events import RUN, Block, Course
from machine.recordings.readable_json import value_of
from machine.recordings.readable_writer import (
    INPUT,
    MANIFEST,
    ORDER,
    PLAN,
    PROVENANCE,
    RECORDED,
    context_format_of,
    readable_lines,
    sum_of,
)
from machine.recordings.run_contents import Recording, gather
from machine.stores.base import ZERO_CHAIN, StoredEvent

_BLOCK: Final = b"-- "
_NAME: Final = re.compile(rb"-- (?P<name>.+) (?P<sum>[0-9a-f]{8})")
_CONFLICTS: Final = (b"<<<<<<< ", b"||||||| ", b"=======", b">>>>>>> ")
_END: Final = b'{"end":'
_OPENING: Final = (MANIFEST, PLAN, PROVENANCE, INPUT)


class _Part(NamedTuple):
    """A block as it stands in the file: the number of its first line, its name, and its content."""

    line: int
    name: str
    content: Any


def read_readable(lines: Sequence[bytes], path: str) -> Recording:
    """Return the run of a bundle of version 2 after a full check. Raises `BundleError`."""
    return _Reader(lines, path).read()


def read_unsealed(lines: Sequence[bytes], path: str) -> Recording:
    """Return the run of a bundle of version 2 whose sums, end and spelling may be those before a merge or an edit.

    Of several ends, as a merge may leave them, the earliest time counts. All else is checked. Raises `BundleError`.
    """
    left = [line for line in lines if not line.startswith(_END)]
    ends = [line for line in lines if line.startswith(_END)]
    times = {millis: line for line in ends if (millis := _time_in(line)) is not None}
    end = [times[min(times)]] if times else ends[-1:]
    return _Reader([*left, *end], path, sealed=False).read()


def millis_of(said: Any) -> int:
    """Return the time of a recording in milliseconds since 1970, from the line that has it."""
    return int(datetime.strptime(said["recorded"], RECORDED).replace(tzinfo=UTC).timestamp()) * 1000


def _time_in(end: bytes) -> int | None:
    try:
        return millis_of(canonical.decode(end)["end"])
    except (MachineError, LookupError, TypeError, ValueError, OverflowError):
        return None


def provenance_of(lines: Iterator[bytes]) -> bytes:
    """Return the provenance in the lines of a bundle of version 2, unchecked; empty where there is none."""
    found = itertools.dropwhile(lambda line: not line.startswith(b"-- %b " % PROVENANCE.encode()), lines)
    next(found, None)
    content = itertools.takewhile(lambda line: not line.startswith(_BLOCK), found)
    lines_of_it = [line.decode() for line in content]
    return canonical.encode(value_of(lines_of_it)) if lines_of_it else b""


class _Reader:
    """A reading of the lines of a bundle; `line` is the number of the current one, for errors."""

    def __init__(self, lines: Sequence[bytes], path: str, *, sealed: bool = True) -> None:
        self._lines = lines
        self._path = path
        self._sealed = sealed
        self._dated_first = False
        self._line = 1
        self._spool = ArtifactSpool()
        self._course = Course(self._load, lambda artifact: self._spool.add(artifact.id, artifact.data))

    def read(self) -> Recording:
        for number, line in enumerate(self._lines, 1):
            self._line = number
            if line.startswith(_CONFLICTS):
                raise self._wrong(CONFLICT, hint=way_out(self._path))
            if line.endswith(b"\r"):
                raise self._wrong(
                    "its line end was changed to CRLF", hint="put `*.run -text` into .gitattributes"
                )
        run_id, millis = self._header()
        parts = list(self._parts())
        log: list[tuple[Entry, StoredEvent]] = []
        chain = ZERO_CHAIN
        for part in self._in_order(self._opened(parts)):
            self._line, seq = part.line, len(log) + 1
            data = self._envelope(part, seq, run_id, millis)
            chain = chain_next(chain, data)
            try:
                entry = codec.decode_entry(seq, data)
                self._course.advance(entry)
            except LogError as exc:
                raise self._wrong(exc.message) from None
            log.append((entry, StoredEvent(seq, data, chain)))
        if not log:
            raise self._wrong("it has no event")
        try:
            recording = gather(log, self._load, self._spool)
        except MachineError as exc:
            raise self._wrong(exc.message) from exc
        if self._sealed:
            self._compare(recording)
        return recording

    def _load(self, artifact_id: str) -> bytes:
        data = self._spool.get(artifact_id)
        if data is None:
            raise self._wrong(f"it leads to artifact {artifact_id}, which is not in the bundle")
        return data

    # -- the parts of the file -------------------------------------------------------------------------------

    def _header(self) -> tuple[str, int]:
        """Return the run's id and the time of its recording in milliseconds."""
        self._line = 1
        try:
            header = canonical.decode(self._lines[0])
            run_id, self._dated_first = str(RunId(header["run_id"])), "recorded" in header
        except (MachineError, LookupError, TypeError, ValueError) as exc:
            self._refuse("its first line is not that of a bundle", exc)
        if not self._dated_first:
            self._line = len(self._lines)
            self._require_end()
        try:
            said = header if self._dated_first else canonical.decode(self._lines[-1])["end"]
            return run_id, millis_of(said)
        except (MachineError, LookupError, TypeError, ValueError, OverflowError) as exc:
            self._refuse("it has not the time of the recording", exc)

    def _require_end(self) -> None:
        if not self._lines[-1].startswith(_END):
            raise self._wrong("it has no end: a part of it is missing", Code.BUNDLE_TRUNCATED)

    def _parts(self) -> Iterator[_Part]:
        starts = [at for at, line in enumerate(self._lines) if line.startswith(_BLOCK)]
        last = len(self._lines) - 1
        self._line = last + 1
        self._require_end()
        if not starts or starts[0] != 1:
            self._line = 2
            raise self._wrong("no block follows its first line")
        for at, after in itertools.pairwise([*starts, last]):
            self._line = at + 1
            name, lines = _NAME.fullmatch(self._lines[at]), self._lines[at + 1 : after]
            if name is None:
                raise self._wrong("it is no name of a block")
            if self._sealed and sum_of(name["name"], lines) != name["sum"]:
                text = f"the block `{name['name'].decode(errors='replace')}` was changed"
                raise self._wrong(text, hint=way_out(self._path))
            try:
                content = value_of([line.decode() for line in lines]) if lines else None
                yield _Part(at + 1, name["name"].decode(), content)
            except ValueError as exc:
                self._refuse("the block is no JSON", exc)

    def _opened(self, parts: list[_Part]) -> list[_Part]:
        """Take in what the first event names, and return the blocks of events."""
        ids: dict[str, str] = {}
        rest = list(parts)
        for name in _OPENING:
            if not rest or rest[0].name != name:
                if name == PROVENANCE:
                    continue
                self._line = rest[0].line if rest else len(self._lines)
                raise self._wrong(f"the block `{name}` belongs here")
            part = rest.pop(0)
            self._line = part.line
            try:
                if name == INPUT:
                    ids["initial_snapshot_id"] = self._course.initial(part.content)
                else:
                    if name == MANIFEST:
                        self._course.context_format = context_format_of(part.content)
                    ids[f"{name}_id"] = self._course.add(ArtifactKind(name), canonical.encode(part.content))
            except (MachineError, AttributeError, TypeError) as exc:
                self._refuse("the block is not what its name says", exc)
        self._course.opening = ids
        return rest

    def _in_order(self, parts: list[_Part]) -> list[_Part]:
        """Return the blocks of events in the order of the log."""
        if not parts or parts[-1].name != f"{RUN} {ORDER}":
            return parts
        *rest, order = parts
        self._line = order.line
        lanes: dict[str, list[_Part]] = {}
        for part in reversed(rest):
            lanes.setdefault(_block(part).state_id, []).append(part)
        try:
            counts = [
                (state_id, int(count))
                for state_id, _, count in (each.partition(" ") for each in order.content)
            ]
            found = [lanes[state_id].pop() for state_id, count in counts for _ in range(count)]
        except (LookupError, TypeError, ValueError, AttributeError) as exc:
            self._refuse("the order is not one of the events of this bundle", exc)
        if len(found) != len(rest):
            raise self._wrong("the order leaves out events of this bundle")
        return found

    def _envelope(self, part: _Part, seq: int, run_id: str, millis: int) -> bytes:
        try:
            body, info = self._course.event(_block(part))
            return seal(seq, body, run_id, millis, {str(name): str(text) for name, text in info.items()})
        except MachineError as exc:
            raise self._wrong(exc.message) from None
        except (LookupError, TypeError, ValueError, AttributeError) as exc:
            self._refuse("the block is not the event that its name says", exc)

    def _compare(self, recording: Recording) -> None:
        """Refuse any other spelling of the run than the one that is written."""
        due = readable_lines(recording, dated_first=self._dated_first)
        for number, (line, same) in enumerate(itertools.zip_longest(self._lines, due), 1):
            self._line = number
            if line != same:
                if line is not None and line.startswith(_END):
                    raise self._wrong(
                        "its end is not that of this run: it was changed", hint=way_out(self._path)
                    )
                text = "nothing" if same is None else same[:80].decode(errors="replace")
                raise self._wrong(f"it must be written as: {text}", hint=way_out(self._path))

    def _refuse(self, problem: str, exc: Exception) -> NoReturn:
        raise self._wrong(f"{problem}: {exc}" if str(exc) else problem) from exc

    def _wrong(self, problem: str, code: Code = Code.BUNDLE_INVALID, hint: str | None = None) -> BundleError:
        return BundleError(problem, path=self._path, line=self._line, code=code, hint=hint)


def _block(part: _Part) -> Block:
    place, _, rest = part.name.partition(" ")
    kind, _, detail = rest.partition(" ")
    return Block(place, kind, detail, part.content)
