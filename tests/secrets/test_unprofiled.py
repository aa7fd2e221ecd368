"""The look for secrets is not profiled, whatever a handler is watched for."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest

import machine
from machine import RunConfig
from machine.secrets.attempt_secrets import AttemptSecrets


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="nothing is profiled there")
def test_what_io_does_for_tasks_of_a_handler_is_not_profiled(monkeypatch):
    profiled = []
    for name in ("asked", "answer", "value"):
        inner = getattr(AttemptSecrets, name)

        def seen(self, *args, _inner=inner, **kwargs):
            profiled.append(sys.getprofile())
            return _inner(self, *args, **kwargs)

        monkeypatch.setattr(AttemptSecrets, name, seen)
    within = []
    plan = machine.Plan("watched", version="1")

    async def asks(io, name):
        await io.env(name)
        within.append(sys.getprofile())

    @plan.state
    async def gathers(ctx, io, rec):
        time.time()
        await asyncio.gather(asks(io, "A"), asks(io, "B"))

    with machine.open_store("memory://") as store:
        result = machine.run(plan, store=store, config=RunConfig(undeclared_io="warn"))
    assert result.status == "completed"
    assert within[-1] is not None
    assert profiled
    assert set(profiled) == {None}
