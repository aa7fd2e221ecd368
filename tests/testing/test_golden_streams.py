"""A golden of a stream: replayed with its source gone, and caught when the code reads on where it stopped."""

from __future__ import annotations

from golden_suite import said

STREAMED = """
from machine import Plan

plan = Plan("prices", version="1")
MOST = 2


@plan.state("fetch.data", side_effects="read_only_io")
async def data(ctx, io, rec):
    pieces = []
    async with io.open_file("world.txt", piece_bytes=4) as file:
        async for piece in file:
            pieces.append(piece.decode())
            if len(pieces) == MOST:
                break
    ctx["pieces"], ctx["total"] = pieces, 25
"""


def test_a_golden_of_a_stream_replays_and_catches_a_change(suite):
    suite.write("world.txt", "0123456789ab")
    suite.write("prices.py", STREAMED)
    suite.run("--golden=record-missing").assert_outcomes(passed=1)
    suite.unplug()
    suite.run().assert_outcomes(passed=1)
    suite.change("MOST = 2", "MOST = 3")
    result = suite.run()
    result.assert_outcomes(failed=1)
    assert "file.open" in said(result)
