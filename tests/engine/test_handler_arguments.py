"""Handlers that take what they name of ctx, io and rec: live, in a replay, watched, and as reconcile functions."""

from __future__ import annotations

import time

import pytest

import machine
from machine import Plan
from machine.stores import MemoryStore


def named() -> Plan:
    plan = Plan("op")

    @plan.state
    async def fetch(io, ctx):
        ctx["at"] = await io.now()

    @plan.state(after=[fetch])
    def total(ctx, scale=2):
        ctx["total"] = ctx["at"] * scale

    @plan.state("say.it", after=[total])
    async def say(*, rec, ctx):
        await rec.emit(machine.DomainEvent("total_said", {"total": ctx["total"]}))

    @plan.state(after=[say])
    def idle():
        pass

    return plan


def test_a_run_of_such_handlers_replays():
    with MemoryStore() as store:
        result = machine.run(named(), store=store)
        assert result.error is None, result.error

        assert (result.status, result.context["total"]) == ("completed", 2 * result.context["at"])
        assert machine.replay(result.run_id, plan=named(), store=store).identical


@pytest.mark.parametrize("kind", ["async", "plain", "keyword"])
def test_what_they_do_without_io_is_found(kind):
    plan = Plan("op")
    if kind == "async":

        @plan.state
        async def look(io):
            time.time()
    elif kind == "plain":

        @plan.state
        def look(ctx):
            time.time()
    else:

        @plan.state
        def look(*, ctx):
            time.time()

    with MemoryStore() as store:
        result = machine.run(plan, store=store, config=machine.RunConfig(undeclared_io="error"))
        assert result.error.code == "undeclared_io"
