"""The crash matrix of states that are given one stand-in for several users' tokens."""

from __future__ import annotations

import pytest
from campaign import FULL

from machine import Plan, RunConfig, SecretPolicy
from machine.config import FanOutJoin, Sequential
from machine.errors import OtherIoError
from machine.testing import crash_matrix
from machine.torture import FAULTS, Fault

STAND_IN = "an-invented-token"


def token_of(user):
    return f"tok-5f1d7c0b9e4a{user}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode",
    [pytest.param(Sequential(), marks=pytest.mark.long), FanOutJoin(3)],
    ids=["one by one", "side by side"],
)
def test_several_users_behind_one_stand_in_are_told_apart_everywhere(outside, mode):
    class Shop(outside):
        async def perform(self, namespace, request):
            answer = await super().perform(namespace, request)
            if "login" in request:
                return {"access_token": token_of(request["login"])}
            return answer if "do" in request else request["headers"]["authorization"][-1]

    plan = Plan("users", version="1")

    async def asked(io, user):
        token = (await io.call("world", {"login": user})).response["access_token"]
        assert token == STAND_IN
        return {"authorization": f"Bearer {token}"}

    @plan.state("read.one", side_effects="read_only_io")
    async def one(ctx, io, rec):
        ctx["one"] = (await io.call("world", {"headers": await asked(io, 1)})).response

    @plan.state("read.two", side_effects="read_only_io")
    async def two(ctx, io, rec):
        ctx["two"] = (await io.call("world", {"headers": await asked(io, 2)})).response

    @plan.state("write.three", side_effects="apply_side_effect", idempotency="order/3")
    async def three(ctx, io, rec):
        ctx["three"] = (await io.call("world", {"do": 3, "headers": await asked(io, 3)})).response

    @plan.state("read.both", after=[one, two], side_effects="read_only_io")
    async def both(ctx, io, rec):
        await asked(io, 1)
        headers = await asked(io, 2)
        try:
            await io.call("world", {"headers": headers})
        except OtherIoError as refusal:
            ctx["both"] = refusal.code

    world = Shop()
    config = RunConfig(execution_mode=mode, secrets=SecretPolicy(stand_ins={"access_token": STAND_IN}))
    faults = FAULTS if FULL else [Fault.KILLED_BEFORE_APPEND]
    matrix = crash_matrix(plan, transports={"world": world}, config=config, faults=faults)
    assert matrix.safe, matrix.render()
    users = {request["headers"]["authorization"] for request in world.asked if "headers" in request}
    assert users == {f"Bearer {token_of(user)}" for user in (1, 2, 3)}
    assert [1 for request in world.asked if "do" in request] == [1]
