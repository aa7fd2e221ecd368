"""DBOS, with its system database in SQLite: a workflow of trivial steps."""

from __future__ import annotations

import asyncio
import logging
import os
import time

from dbos import DBOS, SetWorkflowID
from payload import result
from stage import WARM, main, stopwatch, stored

logging.disable(logging.WARNING)
NOTES = {}
FRESH = os.environ.get


@DBOS.step()
def step(number):
    return result(number)


@DBOS.step()
async def async_step(number):
    return result(number)


@DBOS.workflow()
def row(steps):
    for number in range(steps):
        step(number)


@DBOS.workflow()
async def fan(width, concurrency):
    limit = asyncio.Semaphore(concurrency)

    async def one(number):
        async with limit:
            await async_step(number)

    await asyncio.gather(*(one(number) for number in range(width)))


@DBOS.workflow()
def dying(steps, dies):
    NOTES["begun"] = time.perf_counter()
    for number in range(steps):
        step(number)
    NOTES["walked"] = time.perf_counter()
    if os.environ.get("DIES") == "1":
        os._exit(0)


def launch():
    DBOS(config={"name": "bench", "system_database_url": "sqlite:///dbos.sqlite", "application_version": "1"})
    DBOS.launch()


def live(n):
    """Run a workflow of trivial steps."""
    launch()
    row(WARM)
    told = {}
    with stopwatch(n, told):
        row(n)
    DBOS.destroy()
    return {**told, "bytes": stored("dbos.sqlite", n)}


def fanned(n, concurrency):
    """Run a workflow of steps side by side."""
    launch()
    told = {}

    async def both():
        await fan(WARM, concurrency)
        with stopwatch(n, told):
            await fan(n, concurrency)

    asyncio.run(both())
    return told


def interrupted(n):
    """Run a workflow and die after its last step, before it has returned."""
    os.environ["DIES"] = "1"
    launch()
    with SetWorkflowID("dying"):
        dying(n, 1)


def recovered(n):
    """Recover the workflow that died: how long until it begins, and what each recorded step costs that it walks."""
    start = time.perf_counter()
    launch()
    DBOS.retrieve_workflow("dying").get_result()
    return {
        "us": (NOTES["walked"] - NOTES["begun"]) / n * 1e6,
        "ms": (NOTES["walked"] - start) * 1e3,
    }


if __name__ == "__main__":
    main(live, fanned, interrupted, recovered)
