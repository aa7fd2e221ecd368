"""Files that are read piece by piece: of any size, in bounded memory, the same in replay with the file gone."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import pytest
from campaign import FULL

from machine import Plan, open_store, replay, run
from machine.engine import run_reader
from machine.errors import OtherIoError
from machine.events import FactRecorded
from machine.io.files import PIECE_BYTES


@pytest.fixture
def store():
    with open_store("memory://") as opened:
        yield opened


def plan_of(handler, **meta):
    plan = Plan("files")
    plan.state("a.only", **{"side_effects": "read_only_io", **meta})(handler)
    return plan


def both(handler, store, *gone):
    """Run a handler, and replay it with files gone."""
    plan = plan_of(handler)
    result = run(plan, store=store)
    assert result.status == "completed", result.error
    for path in gone:
        path.unlink()
    again = replay(result.run_id, plan=plan, store=store)
    assert again.identical, again.divergence
    facts = [entry.event for entry, _ in run_reader.entries(store, result.run_id)]
    return result.context, [fact for fact in facts if isinstance(fact, FactRecorded)]


CONTENTS = {
    "nothing": b"",
    "a byte": b"x",
    "a piece": b"x" * PIECE_BYTES,
    "more than a piece": b"line\n" * (PIECE_BYTES // 4),
    "bytes": bytes(range(256)) * 3000,
    "a line without end": b"word " * PIECE_BYTES,
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
def test_a_file_is_read_whole(store, tmp_path, content, plain):
    path = tmp_path / "file"
    path.write_bytes(content)

    async def handler(ctx, io, rec):
        async with io.open_file(path) as file:
            data = b"".join([piece async for piece in file])
        ctx["read"] = [hashlib.sha256(data).hexdigest(), file.size, file.path == str(path)]

    def in_a_thread(ctx, io, rec):
        with io.open_file(path) as file:
            data = b"".join(file)
        ctx["read"] = [hashlib.sha256(data).hexdigest(), file.size, file.path == str(path)]

    context, facts = both(in_a_thread if plain else handler, store, path)
    assert context["read"] == [hashlib.sha256(content).hexdigest(), len(content), True]
    assert (len(facts) == 1) == (0 < len(content) <= PIECE_BYTES)


def test_lines_are_those_of_the_text(store, tmp_path):
    path = tmp_path / "file"
    path.write_bytes("one\ntwo\r\n\nfour with é".encode())

    async def handler(ctx, io, rec):
        async with io.open_file(path, piece_bytes=2) as file:
            ctx["lines"] = [line async for line in file.lines()]

    assert both(handler, store, path)[0]["lines"] == ["one", "two", "", "four with é"]


def test_a_reader_may_stop_early(store, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")

    async def handler(ctx, io, rec):
        async with io.open_file(path, piece_bytes=4) as file:
            async for piece in file:
                ctx["first"] = piece.decode()
                break

    context, facts = both(handler, store, path)
    assert context["first"] == "0123"
    assert [fact.piece for fact in facts] == [0, 1, None]


@pytest.mark.parametrize(
    ("name", "code"), [("gone", "file_not_found"), ("", "file_failed"), ("pipe", "file_failed")]
)
def test_what_cannot_be_read_is_an_error_of_its_kind(store, tmp_path, name, code):
    os.mkfifo(tmp_path / "pipe")

    async def handler(ctx, io, rec):
        with pytest.raises(OtherIoError) as caught:
            await io.open_file(tmp_path / name).__aenter__()
        ctx["code"] = caught.value.code

    assert both(handler, store)[0]["code"] == code


@pytest.mark.parametrize("options", [{"piece_bytes": 0}, {"piece_bytes": "x"}, {"piece_bytes": 2**40}])
def test_a_size_of_pieces_that_is_none_is_refused(store, tmp_path, options):
    async def handler(ctx, io, rec):
        with pytest.raises(OtherIoError) as caught:
            io.open_file(tmp_path, **options)
        ctx["code"] = caught.value.code

    assert both(handler, store)[0]["code"] == "io_invalid_request"


LARGE = """
import hashlib, json, os, resource, sys
from machine import Plan, open_store, replay, run, verify

path, megabytes = sys.argv[1], int(sys.argv[2])
plan = Plan("large")

@plan.state("a.read", side_effects="read_only_io")
async def read(ctx, io, rec):
    digest, size = hashlib.sha256(), 0
    async with io.open_file(path) as file:
        async for piece in file:
            digest.update(piece)
            size += len(piece)
    ctx["read"] = [digest.hexdigest(), size]

def write(megabytes):
    with open(path, "wb") as file:
        for number in range(megabytes):
            lines = (b"%07d %07d some words of an ordinary log file\\n" % (number, line) for line in range(20165))
            file.write(b"".join(lines))

def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

with open_store(f"sqlite:///{path}.db") as store:
    write(1)
    run(plan, store=store)
    before = memory()
    write(megabytes)
    result = run(plan, store=store)
    live = memory()
    os.unlink(path)
    again = replay(result.run_id, plan=plan, store=store)
    sound = verify(result.run_id, store=store).ok
    after = memory()
print(json.dumps([result.context["read"][1], again.identical, sound, live - before, after - before]))
"""


@pytest.mark.slow
@pytest.mark.long
def test_a_large_file_is_read_and_replayed_in_bounded_memory(tmp_path):
    """The growth of the largest resident set is held: a file that stood in memory once would be seen."""
    megabytes = 1024 if FULL else 200
    ended = subprocess.run(
        [sys.executable, "-c", LARGE, tmp_path / "large", str(megabytes)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    size, identical, sound, live, after = json.loads(ended.stdout)
    assert size > (megabytes - 5) << 20
    assert (identical, sound) == (True, True)
    assert live < 64
    assert after < 64
