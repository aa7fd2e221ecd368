"""Functions as steps in the crash matrix: each kind of call, killed at every boundary in every way."""

from __future__ import annotations

import pytest
from campaign import FULL

from machine import Plan, RetryPolicy, RunConfig
from machine.config import FanOutJoin
from machine.testing import crash_matrix
from machine.torture import FAULTS
from tests.io import functions_of_steps as functions

CONCURRENT = RunConfig(execution_mode=FanOutJoin(3))


def stepping(*, keyed=True):
    """Return a plan whose states call functions as steps in every way."""
    plan = Plan("stepping", version="1")
    functions.Flaky.left = 1

    @plan.state("read.rows", side_effects="read_only_io", retry=RetryPolicy(2))
    async def rows(ctx, io, rec):
        ctx["rows"] = list(await io.step(functions.same, (1, 2.0)))
        ctx["here"] = functions.decorated(1)
        ctx["there"] = await functions.decorated_async(1)
        ctx["flaky"] = await io.step(functions.flaky)  # whose failure ends the first attempt

    @plan.state("read.more", side_effects="read_only_io")
    def more(ctx, io, rec):
        ctx["more"] = functions.decorated(7)
        try:
            io.step(functions.fails, "own")
        except functions.OwnError as exc:
            ctx["failed"] = str(exc)

    @plan.state("pay.card", after=[rows, more], side_effects="apply_side_effect", idempotency="key-1")
    async def pay(ctx, io, rec):
        amount = await io.step(functions.same, 40)
        if keyed:
            ctx["paid"] = await functions.charge_async(amount)
        else:
            ctx["paid"] = await io.step(functions.later, amount, effect=True)

    return plan


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [pytest.param(RunConfig(), marks=pytest.mark.long), CONCURRENT],
    ids=["sequential", "concurrent"],
)
def test_steps_are_safe_everywhere(config):
    matrix = crash_matrix(stepping(), config=config, faults=FAULTS if FULL else FAULTS[::4])
    assert matrix.safe, matrix.render()
    assert matrix.status == "completed"


def test_steps_are_safe_at_every_boundary():
    functions.CALLS.clear()
    matrix = crash_matrix(stepping(), faults=["killed_before_append"])
    assert matrix.safe, matrix.render()
    # the first run alone calls functions: twice where a plain step is part of another
    assert functions.CALLS.count((40, "key-1")) == 1
    assert functions.CALLS.count("decorated") == 3


def test_an_effect_whose_function_does_not_take_the_key_is_told_as_unsafe():
    matrix = crash_matrix(stepping(keyed=False), faults=["killed_before_append"])
    assert not matrix.safe
    assert "an effect of step was sent twice, and its receiver cannot tell" in matrix.render()
