"""A worker of a store in which runs wait."""

from __future__ import annotations

from stage import main, stopwatch

from machine import open_store
from machine.engine.plan_loader import PlanLoader
from machine.engine.work import Worker
from machine.stores.lease import wall_clock
from machine.target import load
from machine.testing.store_samples import run_id_of, suspend

DATABASE = "sqlite:///runs.db?synchronous=normal"
LOOKS = 200
HOUR = 3_600_000


def suspended(n):
    """Store so many runs that wait, half for a time and half for a person."""
    with open_store(DATABASE) as store:
        for number in range(n):
            suspend(store, run_id_of(number), wall_clock() + 10 * HOUR if number % 2 else None)


def looked(n):
    """Look for something to do, as an idle worker does once a second."""
    told = {}
    with open_store(DATABASE) as store:
        worker = Worker(store, PlanLoader(load))
        assert worker.look(store.clock()) == 0
        asked = []
        store._session.conn.set_trace_callback(asked.append)
        worker.look(store.clock())
        store._session.conn.set_trace_callback(None)
        with stopwatch(LOOKS, told):
            for _ in range(LOOKS):
                worker.look(store.clock())
    return {**told, "queries": len(asked)}


if __name__ == "__main__":
    main(suspended, looked)
