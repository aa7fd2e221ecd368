"""Chunks of a large value: one list for each value, an edit that changes little of it, and wrong lists refused."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import FAST

from machine import canonical
from machine.errors import CorruptionError
from machine.kernel import value_chunks
from machine.kernel.value_chunks import CHUNKED_ABOVE, LEAST, MOST, chunk_ids, chunked, joined

ALPHABETS = ["0123456789,", 'abcdefgh {}":,', "ab", "żółć☃🦆x", "x"]


def text_of(seed, alphabet, size):
    """Return canonical bytes of about a size that the seed determines."""
    chosen = random.Random(seed).choices(alphabet, k=size // len(alphabet[0].encode()))
    return canonical.encode("".join(chosen))


TEXTS = st.builds(
    text_of,
    st.integers(0, 2**32),
    st.sampled_from(ALPHABETS),
    st.integers(CHUNKED_ABOVE + 1, 400_000),
).filter(lambda data: len(data) > CHUNKED_ABOVE)


def stored(data):
    """Return the id of the list of a value, and all its artifacts by id."""
    chunks = chunked(data)
    listed = chunks.listed
    artifacts = {each: data[begin:end] for each, (begin, end) in zip(chunks.ids, chunks.places, strict=True)}
    list_id = canonical.artifact_id(listed)
    return list_id, {**artifacts, list_id: listed}


def by_definition(data):
    """Return where the chunks of a value end, as `docs/log-format.md` defines it: byte by byte."""
    table = value_chunks._RANDOM
    bits = int.from_bytes(bytes(table[byte] for byte in data), "little")
    for near, far in ((5, 13), (23, 51), (167, 349), (791, 1401)):
        bits ^= (bits << near) ^ (bits << far)
    sums = bits.to_bytes(len(data) + 240, "little")
    ends = [0]
    while ends[-1] < len(data):
        begin = ends[-1]
        last = min(begin + 131_072, len(data))
        candidates = (
            end
            for end in range(begin + 16_384, last)
            if sums[end - 2] == 0 and sums[end - 1] < 2 and not 0x80 <= data[end] < 0xC0
        )
        end = next(candidates, last)
        while end == last < len(data) and 0x80 <= data[end] < 0xC0:
            end = last = last - 1
        ends.append(end)
    return tuple(ends[1:])


@FAST
@given(TEXTS)
def test_a_value_is_cut_as_the_format_says_and_comes_back(data):
    list_id, artifacts = stored(data)
    assert chunked(data).ends == by_definition(data)
    assert joined(list_id, artifacts.__getitem__) == data
    sizes = [end - begin for begin, end in chunked(data).places]
    assert all(LEAST <= size <= MOST for size in sizes[:-1])
    assert all(artifacts[each].decode() for each in chunked(data).ids)


@FAST
@given(TEXTS, st.data())
def test_what_is_known_of_another_value_changes_no_list(data, draw):
    other = data
    for _ in range(draw.draw(st.integers(0, 3))):
        at = draw.draw(st.integers(1, len(other) - 1))
        gone = draw.draw(st.integers(0, 50_000))
        new = draw.draw(st.sampled_from([b"", b"x", b"new " * 30, b"y" * 40_000]))
        cut = other[:at] + new + other[at + gone :]
        other = cut.decode(errors="ignore").encode() or b"x"
    assert chunked(other, (data, chunked(data))) == chunked(other)
    assert chunked(data, (other, chunked(other))) == chunked(data)


def rows(number):
    return [{"id": n, "name": f"item {n}", "price": n * 1.25} for n in range(number)]


EDITS = {
    "grown at the end": lambda value: [*value, {"id": -1}],
    "grown at the beginning": lambda value: [{"id": -1}, *value],
    "grown in the middle": lambda value: [*value[:9_000], {"id": -1}, *value[9_000:]],
    "shrunk in the middle": lambda value: [*value[:9_000], *value[9_001:]],
    "one number changed": lambda value: [*value[:9_000], {"id": 3}, *value[9_001:]],
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edit_changes_a_few_chunks_of_many(edit):
    value = rows(20_000)
    before, after = (chunked(canonical.encode(each)) for each in (value, edit(value)))
    assert len(before.ids) >= 15
    assert 1 <= len({*after.ids} - {*before.ids}) <= 3


def test_the_cuts_of_a_value_stay():
    data = canonical.encode(rows(3_000))
    assert chunked(data).ends == ENDS
    assert stored(data)[0] == LIST_ID


ENDS = (72835, 93767, 134893)
LIST_ID = "5269914d84d96801dc74d98cb181f4491ea7847754f64e57009761e679ff6476"

VALUE = canonical.encode(rows(5_000))
WHOLE = chunked(VALUE)
PIECES = [VALUE[begin:end] for begin, end in WHOLE.places]
SMALL = canonical.encode("x" * (CHUNKED_ABOVE - 2))


def spelled(size, pieces, **more):
    """Return a list of chunks, and itself with the chunks by id."""
    ids = [canonical.artifact_id(piece) for piece in pieces]
    data = canonical.encode({"bytes": size, "chunks": ids, "type": "chunks", **more})
    return data, {canonical.artifact_id(data): data, **dict(zip(ids, pieces, strict=True))}


def halved():
    half = len(PIECES[0]) // 2
    return [PIECES[0][:half], PIECES[0][half:], *PIECES[1:]]


WRONG = {
    "a value that is stored whole": spelled(len(SMALL), [SMALL]),
    "one byte more than there is": spelled(len(VALUE) + 1, PIECES),
    "one byte less than there is": spelled(len(VALUE) - 1, PIECES),
    "far more bytes than there are": spelled(2**40, PIECES),
    "no chunks": spelled(len(VALUE), []),
    "a chunk left out": spelled(len(VALUE), PIECES[1:]),
    "cut in more pieces": spelled(len(VALUE), halved()),
    "cut in fewer pieces": spelled(len(VALUE), [PIECES[0] + PIECES[1], *PIECES[2:]]),
    "an empty chunk at the end": spelled(len(VALUE), [*PIECES, b""]),
    "cut elsewhere": spelled(len(VALUE), [PIECES[0] + PIECES[1][:1], PIECES[1][1:], *PIECES[2:]]),
    "another type": spelled(len(VALUE), PIECES, type="list"),
    "a field more": spelled(len(VALUE), PIECES, more=1),
    "a size that is a text": spelled(str(len(VALUE)), PIECES),
    "a size that is true": spelled(True, PIECES),  # noqa: FBT003
}


def loader(artifacts, asked):
    def load(artifact_id):
        asked.append(artifact_id)
        return artifacts[artifact_id]

    return load


def test_the_list_that_the_wrong_ones_are_made_of_is_right():
    data, artifacts = spelled(len(VALUE), PIECES)
    assert joined(canonical.artifact_id(data), artifacts.__getitem__) == VALUE
    assert chunk_ids("list", data) == list(WHOLE.ids)


@pytest.mark.parametrize(("data", "artifacts"), WRONG.values(), ids=WRONG)
def test_a_list_that_is_not_that_of_its_value_is_refused(data, artifacts):
    list_id, asked = canonical.artifact_id(data), []
    with pytest.raises(CorruptionError, match=f"{list_id} is not the list") as caught:
        joined(list_id, loader(artifacts, asked))
    assert caught.value.code == "artifact_corrupt"
    assert len(asked) <= len(PIECES) + 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"7",
        b'{"bytes":70000,"chunks":[7,8],"type":"chunks"}',
        b'{"bytes":70000,"chunks":["a","\xed\xa0\x80"],"type":"chunks"}',
        b'{"bytes":70000,"chunks":["a\\"","b"],"type":"chunks"}',
        b'{"bytes":70000, "chunks":["a","b"],"type":"chunks"}',
        b'{"chunks":["a","b"],"bytes":70000,"type":"chunks"}',
        b'{"bytes":70000,"chunks":{"a":"b"},"type":"chunks"}',
        b'{"bytes":70000,"chunks":"ab","type":"chunks"}',
        b'{"bytes":70000,"chunks":["\\ud800","b"],"type":"chunks"}',
    ],
)
def test_what_is_no_list_is_refused_before_any_chunk_is_loaded(data):
    list_id, asked = canonical.artifact_id(data), []
    with pytest.raises(CorruptionError, match="is not the list"):
        joined(list_id, loader({list_id: data}, asked))
    assert asked == [list_id]


@pytest.mark.parametrize(
    "pieces",
    [[PIECES[1], PIECES[0], *PIECES[2:]], [PIECES[0], *PIECES], [b"\x80" * MOST] * 2],
    ids=["swapped", "twice", "no text"],
)
def test_a_list_of_other_chunks_is_that_of_other_bytes(pieces):
    """They have an id of their own, and whoever decodes them refuses what is not JSON."""
    data, artifacts = spelled(sum(map(len, pieces)), pieces)
    assert joined(canonical.artifact_id(data), artifacts.__getitem__) == b"".join(pieces)


def test_a_list_of_lists_is_refused():
    inner, artifacts = spelled(len(VALUE), PIECES)
    outer, more = spelled(len(VALUE) * 2, [inner] * 12)
    with pytest.raises(CorruptionError, match="is not the list"):
        joined(canonical.artifact_id(outer), {**artifacts, **more}.__getitem__)


def test_a_list_that_is_longer_than_any_is_not_parsed(monkeypatch):
    monkeypatch.setattr(canonical, "decode", lambda data: pytest.fail("it was parsed"))
    with pytest.raises(CorruptionError, match="is not the list"):
        chunk_ids("list", b"[" * 3_000_000)


def test_a_list_makes_nobody_load_more_than_it_says():
    """A list may name one chunk again and again, and that chunk may be of any size."""
    big = b"x" * 10_000_000
    data, artifacts = spelled(MOST * 4, [big] * 4)
    asked = []
    with pytest.raises(CorruptionError, match="is not the list"):
        joined(canonical.artifact_id(data), loader(artifacts, asked))
    assert len(asked) == 2
