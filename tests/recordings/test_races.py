"""Calls that race inside one handler replay to the same winner, always."""

from __future__ import annotations

import asyncio
import random

import anyio
import pytest

from machine import Plan, replay, run
from machine.io.transport import BaseTransport

REPLAYS = 100


class Jitter(BaseTransport):
    """Answers late, by an amount that the seed decides."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    async def perform(self, namespace, request):
        await anyio.sleep(self.random.random() / 100)
        return {"answer": request["n"]}


def gathers():
    plan = Plan("op")

    @plan.state("step.race")
    async def race(ctx, io, rec):
        came = []

        async def ask(n):
            came.append((await io.call("slow", {"n": n})).response["answer"])
            if n % 3 == 0:
                came.append((await io.call("slow", {"n": 100 + n})).response["answer"])

        await asyncio.gather(*(ask(n) for n in range(10)))
        ctx["came"] = came

    return plan


def takes_the_first():
    plan = Plan("op")

    @plan.state("step.race")
    async def race(ctx, io, rec):
        tasks = [asyncio.create_task(io.call("slow", {"n": n})) for n in range(10)]
        done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        ctx["winners"] = sorted(task.result().response["answer"] for task in done)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    return plan


@pytest.mark.slow
@pytest.mark.parametrize("plan_of", [gathers, takes_the_first])
def test_ten_racing_calls_replay_identical_a_hundred_times_of_a_hundred(store, plan_of):
    orders = set()
    for seed in range(REPLAYS // 10):
        result = run(plan_of(), store=store, transports={"slow": Jitter(seed)})
        assert result.status == "completed"
        orders.add(str(result.context))
        for _ in range(10):
            found = replay(result.run_id, plan=plan_of(), store=store, transports={"slow": Jitter(0)})
            assert (found.divergence, found.digest) == (None, result.digest)
    assert len(orders) > 1  # there was a race at all
