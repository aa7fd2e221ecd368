"""What the torture tests share: a plan small enough to be struck everywhere, and an outside for it."""

from __future__ import annotations

import pytest

from machine import DomainEvent, Plan, RetryPolicy
from machine.errors import OtherIoError
from machine.io.transport import BaseTransport


class Outside(BaseTransport):
    """An outside that answers what it was asked, is busy the first time for some, and takes effects."""

    one_effect_per_key = True

    def __init__(self, *, keyed: bool = True) -> None:
        self.keyed = keyed
        self.asked = []
        self.busy = {"flaky", "after"}

    def is_effect(self, namespace, request):
        return "do" in request

    def with_idempotency_key(self, namespace, request, key):
        return {"key": key, **request} if self.keyed else request

    async def perform(self, namespace, request):
        self.asked.append(request)
        busy = self.busy & request.keys()
        self.busy -= busy
        if busy:
            raise OtherIoError("busy", code="busy", retryable=True)
        return {"answer": len(self.asked)}


def small_plan():
    """Return a plan with reads, a retry, an effect before a call that fails, events, and a plain function."""
    plan = Plan("small", version="1")

    @plan.state("read.first")
    async def first(ctx, io, rec):
        ctx["first"] = (await io.call("world", {"n": 1})).response
        ctx["named"] = (await io.call("world", {"n": 2}, fact_key="named")).response
        await rec.emit_many([DomainEvent("seen", {"n": 1}), DomainEvent("seen", {"n": 2})])

    @plan.state("read.flaky", after=[first], retry=RetryPolicy(3))
    async def flaky(ctx, io, rec):
        ctx["steady"] = (await io.call("world", {"n": 3})).response
        ctx["flaky"] = (await io.call("world", {"flaky": True})).response

    @plan.state(
        "write.effect",
        after=[flaky],
        side_effects="apply_side_effect",
        idempotency=lambda ctx: f"order/{ctx['first']['answer']}",
        retry=RetryPolicy(2),
    )
    async def effect(ctx, io, rec):
        ctx["effect"] = (await io.call("world", {"do": ctx["flaky"]})).response
        ctx["after"] = (await io.call("world", {"after": 1})).response

    @plan.state("write.done", after=[effect])
    def done(ctx, io, rec):
        ctx["done"] = [ctx["effect"], io.call("world", {"n": 4}).response]

    return plan


@pytest.fixture
def small():
    return small_plan()


@pytest.fixture
def outside():
    return Outside


@pytest.fixture
def world():
    return {"world": Outside()}
