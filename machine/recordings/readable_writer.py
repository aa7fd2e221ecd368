"""Writing a bundle of version 2, which people review: named blocks in place of ids, numbers and times.

The same run always has the same lines. What a replay does not need is left out: times, the trace of errors, and the
build but for the code of the handlers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import attrs
from blake3 import blake3

from machine import canonical, codec
from machine.config import BuildProvenance
from machine.engine.fork_prefix import FACTS_FROM_ID, SHARED_PAST_ID
from machine.engine.recorded_answers import FACTS_EFFECTS, FACTS_FROM
from machine.errors import BundleError, Code
from machine.events import DRIVER, INBOX_SEEN, RunCompleted, RunStarted
from machine.io.recorded_answers_io import ANSWERED_BY
from machine.kernel.facts_with_ignored_parts import IGNORED, IGNORED_MAC
from machine.kernel.linearize import without_suspensions
from machine.kernel.open_waits import DUE, MESSAGE
from machine.kernel.sealed_facts import REQUEST_MAC, REQUEST_SECRETS, SECRET_PAYLOAD
from machine.kernel.segments import FIRST_RUN, NEXT_RUN, PREVIOUS_RUN, SEGMENT
from machine.kernel.snapshot import Snapshot
from machine.kernel.transactions import EFFECT_KEY
from machine.kernel.usage import WALL_MS
from machine.plan import Graph, recorded_graph
from machine.recordings.bundle_line import (
    FORMAT,
    MAX_JSON_LINE,
    version_of,
)
from machine.recordings.bundle_version import READABLE, is_readable, version_for
from machine.recordings.readable_events import RUN, Block, Course
from machine.recordings.readable_json import lines_of
from machine.recordings.run_contents import Recording

MOST_BYTES: Final = 64 * 1024 * 1024
"""The most bytes of such a bundle, which is held in memory; a larger run is exported in version 1."""

_LEFT_OUT: Final = frozenset(
    {
        "run_id",
        "ts_millis",
        "provenance_id",
        "trace",
        IGNORED,
        IGNORED_MAC,
        REQUEST_MAC,
        EFFECT_KEY,
        REQUEST_SECRETS,
        SECRET_PAYLOAD,
        FACTS_FROM,
        FACTS_FROM_ID,
        FACTS_EFFECTS,
        ANSWERED_BY,
        DRIVER,
        DUE,
        INBOX_SEEN,
        MESSAGE,
        NEXT_RUN,
        PREVIOUS_RUN,
        FIRST_RUN,
        SEGMENT,
        WALL_MS,
    }
)
"""Informational fields that differ in each recording and that no replay needs."""

MANIFEST, PLAN, PROVENANCE, INPUT = "manifest", "plan", "provenance", "input"
ORDER: Final = "order"
RECORDED: Final = "%Y-%m-%dT%H:%M:%SZ"
"""The time of the recording, to the second."""


def readable_lines(recording: Recording, *, dated_first: bool = False) -> Iterator[bytes]:
    """Yield the lines of a run's bundle of version 2, without line ends.

    The time of the recording stands in the last line, which differs in each recording anyway; with `dated_first` it
    stands in the first, as this version was first written.
    Raises `BundleError` (`bundle_not_readable`) for a run that this version cannot hold, or `bundle_too_large`.
    """
    hashed, total = blake3(), 0
    recorded = _second_of(recording.entries[0].ts_millis)
    if recording.waits:
        recording = _in_one_piece(recording)
    for line in _content(recording, {"recorded": recorded} if dated_first else {}):
        total += len(line) + 1
        if len(line) > MAX_JSON_LINE or total > MOST_BYTES:
            raise _unfit(
                recording,
                f"it has more than {MOST_BYTES} bytes, or a line has more than {MAX_JSON_LINE}",
                Code.BUNDLE_TOO_LARGE,
            )
        hashed.update(line + b"\n")
        yield line
    end: dict[str, Any] = {"digest": recording.digest, "events": len(recording.log)}
    if not dated_first:
        end["recorded"] = recorded
        hashed.update(recorded.encode())
    yield canonical.encode({"end": {**end, "hash": hashed.hexdigest()}})


def _in_one_piece(recording: Recording) -> Recording:
    """Return a run without the suspensions that it has come back from: a matter of timing, and in no digest."""
    entries = [entry._replace(seq=seq) for seq, entry in enumerate(without_suspensions(recording.entries), 1)]
    return attrs.evolve(recording, entries=entries, log=recording.log[: len(entries)])


def _content(recording: Recording, header: dict[str, str]) -> Iterator[bytes]:
    first = recording.entries[0]
    if SHARED_PAST_ID in first.info:
        raise _unfit(recording, "it is a fork with other facts, which names events of another run")
    if FACTS_FROM_ID in first.info and not isinstance(recording.entries[-1].event, RunCompleted):
        raise _unfit(recording, "it has not ended, and still needs the recording that answers its calls")
    if recording.waits and not recording.ended:
        raise _unfit(recording, "it has not ended, and this form has no time limits of waits and no messages")
    yield canonical.encode(
        {
            "bundle": {"format": FORMAT, "version": version_for(recording.needs, readable=True)},
            "hash": "blake3",
            "run_id": recording.run_id,
            **header,
        }
    )
    for name, value in _opening(recording):
        yield from _block_lines(name, value)
    graph = recorded_graph(recording.artifacts[recording.plan_id][1])
    for block in _in_lanes(_blocks(recording), graph):
        yield from _block_lines(block.name, block.content)


def _opening(recording: Recording) -> Iterator[tuple[str, Any]]:
    """Yield the contents that the first event names."""
    started = recording.entries[0].event
    assert isinstance(started, RunStarted)

    def load(artifact_id: str) -> bytes:
        return recording.artifacts[artifact_id][1]

    yield MANIFEST, canonical.decode(load(started.manifest_id))
    yield PLAN, canonical.decode(load(started.plan_id))
    if recording.provenance_id is not None:
        yield PROVENANCE, canonical.decode(_code_alone(load(recording.provenance_id)))
    yield INPUT, Snapshot.open(started.initial_snapshot_id, load).to_dict()


def context_format_of(manifest: Any) -> int:
    """Return the rules by which a run stores contexts, from the JSON of its manifest."""
    return int(manifest.get("context_format", 1))


def _code_alone(provenance: bytes) -> bytes:
    """Return a provenance without what differs from machine to machine."""
    built = codec.from_json(canonical.decode(provenance), BuildProvenance)
    alone = BuildProvenance(
        python_version="", platform="", packages={}, code=built.code, target=built.target, source=built.source
    )
    return canonical.encode(codec.to_json(alone))


def _blocks(recording: Recording) -> Iterator[Block]:
    course = Course(lambda artifact_id: recording.artifacts[artifact_id][1], lambda _: None)
    started = recording.entries[0].event
    assert isinstance(started, RunStarted)
    course.context_format = context_format_of(canonical.decode(recording.artifacts[started.manifest_id][1]))
    for entry in recording.entries:
        info = {name: value for name, value in entry.info.items() if name not in _LEFT_OUT}
        try:
            yield course.block(entry._replace(info=info))
        except ValueError as exc:
            raise _unfit(recording, f"event {entry.seq}: {exc}") from None
        course.advance(entry)


def _in_lanes(blocks: Iterable[Block], graph: Graph) -> Iterator[Block]:
    """Yield the blocks state by state, in the order of the plan, and the order of the log where it is another."""
    place_of = {state_id: place for place, state_id in enumerate(graph.order)}
    order: list[str] = []
    segment: list[Block] = []
    mixed = False

    def flushed() -> list[Block]:
        nonlocal mixed
        lanes = sorted(segment, key=lambda block: place_of.get(block.state_id, -1))
        mixed = mixed or lanes != segment
        segment.clear()
        return lanes

    for block in blocks:
        order.append(block.state_id)
        if block.place == RUN:
            yield from flushed()
            yield block
        else:
            segment.append(block)
    yield from flushed()
    if mixed:
        yield Block(RUN, ORDER, content=_counted(order))


def _counted(order: Sequence[str]) -> list[str]:
    """Return the states of successive events, each with the number of them."""
    counted: list[tuple[str, int]] = []
    for state_id in order:
        if counted and counted[-1][0] == state_id:
            counted[-1] = state_id, counted[-1][1] + 1
        else:
            counted.append((state_id, 1))
    return [f"{state_id} {count}" for state_id, count in counted]


def recorded_at(bundle: bytes, milliseconds: int) -> bytes:
    """Return a bundle of version 2 with another time of its recording, in milliseconds since 1970."""
    *lines, end, last = bundle.split(b"\n")
    recorded = _second_of(milliseconds)
    content = b"".join(line + b"\n" for line in lines)
    hashed = blake3(content + recorded.encode()).hexdigest()
    ended = canonical.decode(end)["end"] | {"recorded": recorded, "hash": hashed}
    return content + canonical.encode({"end": ended}) + b"\n" + last


def _second_of(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds // 1000, tz=UTC).strftime(RECORDED)


def without_time(bundle: bytes) -> bytes:
    """Return what a bundle says besides the time of its recording: equal for equal runs."""
    lines = bundle.split(b"\n")
    if not is_readable(version_of(lines[0])):
        return bundle
    return b"\n".join(line for line in lines[1:] if not line.startswith(b'{"end":'))


def _block_lines(name: str, content: Any) -> list[bytes]:
    lines = [] if content is None else [line.encode() for line in lines_of(content)]
    return [b"-- %b %b" % (name.encode(), sum_of(name.encode(), lines)), *lines]


def sum_of(name: bytes, lines: Sequence[bytes]) -> bytes:
    """Return the checksum of a block."""
    return blake3(b"\n".join([name, *lines])).hexdigest()[:8].encode()


def _unfit(recording: Recording, why: str, code: Code = Code.BUNDLE_NOT_READABLE) -> BundleError:
    return BundleError(
        f"it cannot be written in version {READABLE}: {why}",
        path=f"the bundle of run {recording.run_id}",
        code=code,
        hint="export it without --readable"
        + (", or in this form when it has ended" if not recording.ended else ""),
    )
