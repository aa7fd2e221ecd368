"""What a handler sets in context variables reaches its own tasks and threads, and no other attempt."""

from __future__ import annotations

import asyncio
import decimal
from contextvars import ContextVar

import pytest

from machine import FixedBackoff, Plan, RetryPolicy, RunConfig, replay, run
from machine.config import FanOutJoin
from machine.stores import MemoryStore

VARIABLE = ContextVar("variable", default="unset")
CONFIGS = [
    RunConfig(undeclared_io=undeclared, **mode)
    for mode in ({}, {"execution_mode": FanOutJoin(1)}, {"execution_mode": FanOutJoin(4)})
    for undeclared in ("error", "allow")
]
each_config = pytest.mark.parametrize(
    "config", CONFIGS, ids=lambda config: f"{config.execution_mode.max_concurrency}-{config.undeclared_io}"
)


def seen():
    return [VARIABLE.get(), decimal.getcontext().prec]


def leave(number):
    VARIABLE.set(f"left by {number}")
    decimal.setcontext(decimal.Context(prec=40 + number))


def plan_of(size=4):
    plan = Plan("op")

    def state(number, *, plain):
        def work(ctx):
            ctx[f"n{number}"] = seen()
            leave(number)

        async def handler(ctx, io, rec):
            work(ctx)
            await asyncio.sleep(0)
            assert VARIABLE.get() == f"left by {number}"  # in the next of its own steps too

        def blocking(ctx, io, rec):
            work(ctx)

        plan.state(f"step.n{number}")(blocking if plain else handler)

    for number in range(size):
        state(number, plain=number % 4 == 3)
    return plan


@each_config
def test_no_state_sees_what_another_left_in_context_variables(config):
    plan = plan_of()
    prec = decimal.getcontext().prec
    with MemoryStore() as store:
        result = run(plan, store=store, config=config)
        assert dict(result.context) == {f"n{number}": ["unset", prec] for number in range(4)}
        assert replay(result.run_id, plan=plan, store=store).identical
    assert seen() == ["unset", prec]


@each_config
def test_nor_does_the_next_attempt_of_the_same_state(config):
    plan, told = Plan("op"), []

    @plan.state("step.flaky", retry=RetryPolicy(3, FixedBackoff(0)))
    async def flaky(ctx, io, rec):
        told.append(VARIABLE.get())
        VARIABLE.set("left by the first attempt")
        if len(told) == 1:
            raise ValueError("not yet")

    with MemoryStore() as store:
        assert run(plan, store=store, config=config).status == "completed"
    assert told == ["unset", "unset"]


@each_config
def test_what_the_caller_has_set_is_seen_and_so_is_what_a_handler_sets_in_its_own_tasks(config):
    plan = Plan("op")

    @plan.state("step.only")
    async def only(ctx, io, rec):
        ctx["before"] = VARIABLE.get()
        VARIABLE.set("by the handler")

        async def task():
            return VARIABLE.get()

        ctx["in a task"] = await asyncio.create_task(task())
        ctx["in a thread"] = await asyncio.to_thread(VARIABLE.get)
        await io.now()
        ctx["after a call"] = VARIABLE.get()

    token = VARIABLE.set("by the caller")
    try:
        with MemoryStore() as store:
            result = run(plan, store=store, config=config)
    finally:
        VARIABLE.reset(token)
    assert dict(result.context) == {
        "before": "by the caller",
        **dict.fromkeys(["in a task", "in a thread", "after a call"], "by the handler"),
    }
