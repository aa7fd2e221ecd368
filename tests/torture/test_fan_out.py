"""Runs whose states run side by side, killed at every boundary."""

from __future__ import annotations

import pytest

from machine import Plan, RunConfig
from machine.config import FanOutJoin
from machine.torture import crash_matrix


@pytest.mark.slow
@pytest.mark.long
def test_states_side_by_side_are_safe_wherever_the_power_fails(outside):
    plan = Plan("op")

    @plan.state("read.one")
    async def one(ctx, io, rec):
        ctx["one"] = (await io.call("world", {"n": 1})).response

    @plan.state("read.two")
    async def two(ctx, io, rec):
        ctx["two"] = (await io.call("world", {"n": 2})).response

    @plan.state("write.both", after=[one, two], side_effects="apply_side_effect", idempotency="once")
    async def both(ctx, io, rec):
        ctx["both"] = (await io.call("world", {"do": [ctx["one"], ctx["two"]]})).response

    for durability in ("effects", "states", "facts"):
        config = RunConfig(execution_mode=FanOutJoin(2), durability=durability)
        faults = ["killed_before_append", "killed_after_append", "fsync_lost"]
        matrix = crash_matrix(plan, transports={"world": outside()}, config=config, faults=faults)
        assert matrix.safe, matrix.render()
