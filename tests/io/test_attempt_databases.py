"""The databases of an attempt, which are made when it first asks for one."""

from __future__ import annotations

import threading
from typing import Any

from machine import Plan, open_store, run
from machine.io import attempt_scope
from machine.io.attempt_scope import AttemptScope
from machine.io.databases import Databases


def scope():
    """Return a scope of which nothing is used but its databases."""
    unused: Any = None
    return AttemptScope(*[unused] * 6)


def test_an_attempt_that_asks_for_no_database_makes_nothing_for_one(monkeypatch):
    made = []
    monkeypatch.setattr(attempt_scope, "Databases", lambda: made.append(True))
    plan = Plan("clock")

    @plan.state("read.time")
    async def read(ctx, io):
        ctx["time"] = await io.now()

    with open_store("memory://") as store:
        assert run(plan, store=store).error is None
    assert made == []


def test_threads_that_ask_at_once_get_the_same_databases(monkeypatch):
    made, found = [], []
    together, other_waits = threading.Barrier(2), threading.Event()

    def make():
        made.append(Databases())
        other_waits.wait(0.2)  # so that the other thread would make its own, if it could
        return made[-1]

    monkeypatch.setattr(attempt_scope, "Databases", make)
    shared = scope()

    def ask():
        together.wait(20)
        found.append(shared.databases)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == made * 2
    assert len(made) == 1
