"""The crash matrix over streams: a crash at each piece, before and after it, loses and repeats nothing."""

from __future__ import annotations

import pytest

from machine import Plan
from machine.io.transport import BaseTransport, Opened
from machine.testing import crash_matrix
from machine.torture import FAULTS

WORDS = ["Once ", "upon ", "a ", "time"]


class Words:
    """The rest of an answer."""

    def __init__(self):
        self.left = list(WORDS)

    async def next(self):
        return self.left.pop(0).encode() if self.left else None

    async def aclose(self):
        pass


class Teller(BaseTransport):
    """Answers with a stream; a POST is an effect."""

    one_effect_per_key = True

    def is_effect(self, namespace, request):
        return request["method"] == "POST"

    def with_idempotency_key(self, namespace, request, key):
        return {**request, "headers": {"idempotency-key": key}}

    async def perform(self, namespace, request):
        raise AssertionError

    async def open_stream(self, namespace, request):
        return Opened({"status": 200, "url": request["url"], "headers": []}, Words())


def plan_of(path):
    plan = Plan("told", transports={"http": Teller()})

    @plan.state("a.read", side_effects="read_only_io")
    async def read(ctx, io, rec):
        async with io.open_file(path, piece_bytes=6) as file:
            ctx["file"] = [piece.decode() async for piece in file]
        async with io.http_stream("GET", "http://h/") as answer:
            async for piece in answer:
                ctx["first"] = piece.decode()
                break

    @plan.state("b.send", side_effects="apply_side_effect", idempotency="key")
    async def send(ctx, io, rec):
        async with io.http_stream("POST", "http://h/") as answer:
            ctx["words"] = [piece.decode() async for piece in answer]

    return plan


@pytest.mark.slow
@pytest.mark.long
def test_streams_are_safe_everywhere(tmp_path):
    path = tmp_path / "file"
    path.write_text("some words in a file")
    matrix = crash_matrix(plan_of(str(path)), faults=FAULTS[::3])
    assert matrix.safe, matrix.render()
    events = [boundary.event for boundary in matrix.boundaries]
    assert events.count("fact_recorded") == 1 + 4 + 1 + 1 + 1 + 1 + 1 + 4 + 1
