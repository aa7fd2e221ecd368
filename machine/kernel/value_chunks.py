"""Chunks: a large value of a context, divided by its content, and the list that names them.

An edit of a value changes the chunks around it and leaves the others as they are, so a value that grows by a little
costs a chunk or two. Where a chunk ends follows from its bytes alone: each value has one list, and any other is
refused. The module is pure: missing bytes are requested through `load`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

from blake3 import blake3

from machine import canonical
from machine.errors import Code, CodecError, CorruptionError

CHUNKED_ABOVE: Final = 64 * 1024
"""The largest number of canonical bytes of a value that is stored whole."""

LEAST: Final = 16 * 1024
"""The least number of bytes of a chunk that is not the last."""

MOST: Final = 128 * 1024
"""The most bytes of a chunk."""

_LARGEST: Final = 512 * 1024 * 1024
"""The most bytes of a value in chunks: what a store takes as one artifact."""

_LONGEST_LIST: Final = _LARGEST // LEAST * 67 + 100

# The sum, without carry, of 81 of the preceding bits: each round adds the sum so far at two distances. Integers of
# arbitrary size compute it for a whole block in a few steps, at 4 ns a byte. With three terms a round, the sum of
# equal bytes does not cancel itself.
_DISTANCES: Final = ((5, 13), (23, 51), (167, 349), (791, 1401))
_REACH: Final = sum(far for _, far in _DISTANCES) // 8 + 3
"""The number of bytes before the end of a chunk that the two last bytes of the sum depend on."""

_RANDOM: Final = blake3(b"cuts").digest(256)
"""The bytes that take the places of others in the sum, by those."""

_END: Final = re.compile(rb"\x00[\x00\x01]")  # one place in 32 kB
_BLOCK: Final = 32 * 1024
_INSIDE: Final = range(0x80, 0xC0)
"""The bytes of UTF-8 that no character begins with."""


class Chunks(NamedTuple):
    """The chunks of a value: the id of each, and where it ends."""

    ids: tuple[str, ...]
    ends: tuple[int, ...]

    @property
    def places(self) -> Iterator[tuple[int, int]]:
        """The beginning and the end of each chunk."""
        return pairwise((0, *self.ends))

    @property
    def listed(self) -> bytes:
        """The bytes of the list, whose hash is the id of the value."""
        return _spelled(self.ends[-1], self.ids)


def chunked(data: bytes, known: tuple[bytes, Chunks] | None = None) -> Chunks:
    """Return the chunks of a value. Those that `known`, another one, has too are found without a search."""
    before, places, found = b"", [], dict[str, int]()
    if known is not None:
        before, chunks = known
        places = [*chunks.places][:-1]  # the last one ends where its value does, wherever that would be cut
        found = {each: place for place, each in enumerate(chunks.ids)}
    ids: list[str] = []
    ends: list[int] = []
    begin, expected = 0, 0
    while begin < len(data):
        end = 0
        if expected < len(places):
            first, last = places[expected]
            if data.startswith(before[first:last], begin):
                end = begin + last - first
        if 0 < end < len(data):
            ids.append(known[1].ids[expected] if known else "")
        else:
            end = _end_of_chunk(data, begin)
            ids.append(blake3(memoryview(data)[begin:end]).hexdigest())
            expected = found.get(ids[-1], len(places))
        ends.append(end)
        begin, expected = end, expected + 1
    return Chunks(tuple(ids), tuple(ends))


def _end_of_chunk(data: bytes, begin: int) -> int:
    """Return where the chunk that begins at `begin` ends."""
    if len(data) - begin <= LEAST:
        return len(data)
    last = min(begin + MOST, len(data))
    for at in range(begin + LEAST, last, _BLOCK):
        block = data[at - _REACH : min(at + _BLOCK, last) - 1]
        bits = int.from_bytes(block.translate(_RANDOM), "little")
        for near, far in _DISTANCES:
            bits ^= (bits << near) ^ (bits << far)
        sums = bits.to_bytes(len(block) + _REACH, "little")
        for found in _END.finditer(sums, _REACH - 2, len(block)):
            end = at - _REACH + found.end()
            if data[end] not in _INSIDE:
                return end
    if last == len(data):
        return last
    return next((at for at in range(last, last - 4, -1) if data[at] not in _INSIDE), last)


def _spelled(size: int, ids: Sequence[str]) -> bytes:
    names = '","'.join(ids)
    return f'{{"bytes":{size},"chunks":["{names}"],"type":"chunks"}}'.encode()


def chunk_ids(list_id: str, data: bytes) -> list[str]:
    """Return the ids of the chunks in a list. Raises `CorruptionError` unless it is one of a large value."""
    return _parsed(list_id, data)[1]


def _parsed(list_id: str, data: bytes) -> tuple[int, list[str]]:
    """Return the number of bytes of the value that a list stands for, and the ids of its chunks."""
    try:
        value = canonical.decode(data) if len(data) <= _LONGEST_LIST else None
        match value:
            case {"bytes": int(size), "chunks": [*ids]}:
                large = CHUNKED_ABOVE < size <= _LARGEST
                enough = (size - 1) // MOST < len(ids) <= (size - 1) // LEAST + 1
                names = all(isinstance(each, str) for each in ids)
                if large and enough and names and _spelled(size, ids) == data:
                    return size, ids
    except (CodecError, UnicodeEncodeError):
        pass
    raise _no_list(list_id)


def joined(list_id: str, load: Callable[[str], bytes]) -> bytes:
    """Return the value that a list stands for.

    Raises `CorruptionError` unless the list is exactly that of this value, and what `load` raises.
    """
    size, ids = _parsed(list_id, load(list_id))
    pieces: list[bytes] = []
    left = size
    for each in ids:
        piece = load(each)
        left -= len(piece)
        if left < 0 or not 0 < len(piece) <= MOST:  # so that no list makes us load more than it says
            raise _no_list(list_id)
        pieces.append(piece)
    data = b"".join(pieces)
    begin = 0
    for end in accumulate(map(len, pieces)):
        if _end_of_chunk(data, begin) != end:
            raise _no_list(list_id)
        begin = end
    if left:
        raise _no_list(list_id)
    return data


def _no_list(list_id: str) -> CorruptionError:
    text = f"artifact {list_id} is not the list of a value's chunks"
    return CorruptionError(text, code=Code.ARTIFACT_CORRUPT)
