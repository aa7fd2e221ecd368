"""Plans drawn at random: graphs, states that fail and are tried again, branches; and a slow outside."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter

from machine import Plan, RetryPolicy, StateOutcome
from machine.errors import TransportError
from machine.io.transport import BaseTransport

VARIABLE = "MACHINE_TEST_KEY"
"""The secret that the states read."""

os.environ.setdefault(VARIABLE, "k-4f9a8e7d6c5b4a39")


class Slow(BaseTransport):
    """An outside that answers after a while, and fails the first times it is asked by some states.

    It gives several states the same token.
    """

    def __init__(self, shape, pace):
        self.shape = shape
        self.pace = pace
        self.asked = Counter()

    def is_effect(self, namespace, request):
        return False

    async def perform(self, namespace, request):
        number = request["n"]
        if "authorization" in request:
            key, token = (
                f"Bearer {text}" for text in (os.environ[VARIABLE], f"tok-{number % 8:04}-9f8e7d6c5b4a")
            )
            if request["authorization"] == key:
                return {"access_token": token.partition(" ")[2]}
            assert request["authorization"] == token
        await asyncio.sleep(self.pace.random() * 0.002)
        self.asked[number] += 1
        if self.asked[number] <= random.Random(f"{self.shape} {number}").choice([0, 0, 0, 1, 2]):
            raise TransportError("the outside is down", retryable=True)
        return {"value": number * 7}


def random_plan(shape, size, pace, *, plain=True, dawdles=True, secrets=False):
    """Return a plan: `shape` seeds what it is, `pace` how long each part of it takes.

    Every state reads what its parents wrote, and writes a key of its own and one that all write alike. One that is
    `plain` may block a thread; one that `dawdles` takes its time by itself, in a replay too.
    With `secrets` some states ask with a token that they get for a secret of the environment.
    """
    draw = random.Random(shape)
    plan = Plan("fan", version=str(shape))
    states = []

    def value(ctx, number, parents, answer):
        ctx["shared"] = "the same"
        ctx[f"k{number}"] = [answer, *(ctx.get(f"k{parent}", [0])[0] + 1 for parent in parents)]

    def later(number):
        return plan.graph.children[f"fan.s.n{number}"]

    for number in range(size):
        parents = sorted(
            draw.sample(range(max(0, number - 30), number), min(number, draw.choice([0, 1, 1, 2, 3])))
        )
        branches = draw.random() < 0.1
        blocking = plain and draw.random() < 0.2

        async def handler(ctx, io, rec, number=number, parents=parents, branches=branches):
            await asyncio.sleep(pace.random() * 0.002 * dawdles)
            asked = {"n": number}
            if secrets and number % 4 == 3:
                asked["authorization"] = f"Bearer {await io.secret(VARIABLE)}"
                token = (await io.call("world", asked)).response["access_token"]
                asked["authorization"] = f"Bearer {token}"
            answer = (await io.call("world", asked)).response["value"]
            await asyncio.sleep(pace.random() * 0.001 * dawdles)
            value(ctx, number, parents, answer)
            return StateOutcome(skip=later(number)[:1]) if branches else None

        def blocks(ctx, io, rec, number=number, parents=parents):
            time.sleep(pace.random() * 0.001)
            asked = {"n": number}
            if secrets and number % 4 == 3:
                asked["authorization"] = f"Bearer {io.secret(VARIABLE)}"
                token = io.call("world", asked).response["access_token"]
                asked["authorization"] = f"Bearer {token}"
            value(ctx, number, parents, io.call("world", asked).response["value"])

        states.append(
            plan.state(f"s.n{number}", after=[states[parent] for parent in parents], retry=RetryPolicy(5))(
                blocks if blocking else handler
            )
        )
    return plan
