"""A run that goes on as another in the crash matrix: one segment, killed at every boundary in every way."""

from __future__ import annotations

import pytest

from machine import Plan, RunConfig, StateOutcome
from machine.config import FanOutJoin
from machine.testing import crash_matrix


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [RunConfig(), RunConfig(execution_mode=FanOutJoin(2))], ids=["sequential", "concurrent"]
)
@pytest.mark.long
def test_one_segment_survives_every_fault(config):
    plan = Plan("counting", version="1")

    @plan.state("count.up")
    async def up(ctx, io):
        ctx["at"] = await io.now()
        return StateOutcome(next_run={"n": ctx["n"] + 1})

    @plan.state("count.rest", after=[up])
    def rest(ctx):
        ctx["rest"] = ctx["n"]

    matrix = crash_matrix(plan, input={"n": 0}, config=config)
    assert matrix.safe, matrix.render()
