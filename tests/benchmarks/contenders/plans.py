"""The plans that are measured, in a module that has no clock and opens nothing.

Where a module can read a clock, each step of its handlers is watched while it runs (undeclared IO), which can cost
as much as the rest of the step. So nothing but the plans may be here.
"""

from __future__ import annotations

import httpx
from payload import result

from machine import Plan


def trivial(number):
    """Return a handler that puts 200 bytes into the context."""

    async def handler(ctx, io, rec):
        ctx["result"] = result(number)

    return handler


async def counting(ctx, io, rec):
    """Put 200 bytes into the context, from what is there."""
    ctx["result"] = result(ctx["result"]["number"] + 1)


async def nothing(ctx, io, rec):
    """Do nothing."""


def linear(steps, handler=trivial):
    """Return a plan of states in a row; `handler` makes the handler of a number."""
    plan = Plan("bench")
    previous = []
    for number in range(steps):
        previous = [plan.state(f"step.n{number}", after=previous)(handler(number))]
    assert plan.graph
    return plan


def changing(steps, keys):
    """Return a plan of states that each change one of `keys` keys, and its input: 100 bytes a key."""

    def change(number):
        async def handler(ctx, io, rec):
            ctx[f"key{number * 7919 % keys:05d}"] = f"{number:0100d}"

        return handler

    return linear(steps, change), {f"key{number:05d}": f"{number:0100d}" for number in range(keys)}


def appending(steps, size):
    """Return a plan whose first state writes a list of `size` bytes, to which each that follows appends 100."""

    def append(number):
        async def handler(ctx, io, rec):
            if not number:
                rows = range(size // 51)
                ctx["rows"] = [{"id": row, "name": f"item {row:07}", "price": row * 1.25} for row in rows]
            else:
                grown = ctx["rows"]
                grown.append(f"{number:097}")
                ctx["rows"] = grown

        return handler

    return linear(steps + 1, append)


def iterating(steps, times):
    """Return a plan of states that each iterate their context, and note the processor time by `times`."""

    def iterate(number):
        async def handler(ctx, io, rec):
            ctx["number"] = number
            with times():
                for _ in ctx:
                    pass

        return handler

    return linear(steps, iterate)


def wide(width):
    """Return a plan of states that wait for nothing but one before them all; another waits for them all."""
    plan = Plan("bench")

    def one(number):
        async def handler(ctx, io, rec):
            ctx[f"result{number:05d}"] = result(number)

        return handler

    first = plan.state("fan.out")(nothing)
    middle = [plan.state(f"fan.n{number}", after=[first])(one(number)) for number in range(width)]
    plan.state("fan.join", after=middle)(nothing)
    assert plan.graph
    return plan


def asking(facts):
    """Return a plan of one state that asks for random bytes many times."""
    plan = Plan("bench")

    @plan.state("step.asks")
    async def handler(ctx, io, rec):
        for _ in range(facts):
            await io.random_bytes(16)

    return plan


def calling(calls, url):
    """Return a plan of one state that makes calls over HTTP, each to another address."""
    plan = Plan("bench")

    @plan.state("step.calls")
    async def handler(ctx, io, rec):
        for number in range(calls):
            ctx["last"] = (await io.http("GET", f"{url}/quotes/{number}")).json()

    return plan


async def ask(client, calls, url):
    """Make calls with a client of httpx, each to another address."""
    for number in range(calls):
        last = (await client.get(f"{url}/quotes/{number}")).json()
    return last


def with_client(calls, url):
    """Return a plan of one state that makes the same calls with an unmodified client of httpx."""
    plan = Plan("bench")

    @plan.state("step.calls")
    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            ctx["last"] = await ask(client, calls, url)

    return plan
