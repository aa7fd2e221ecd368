"""The machine itself."""

from __future__ import annotations

import os
import statistics
import time
from contextlib import contextmanager
from pathlib import Path

from payload import result
from plans import appending, asking, calling, changing, counting, iterating, linear, wide, with_client
from plans_with_clock import clocked
from stage import WARM, forget_peak, main, memory_mb, server, stopwatch, stored

import machine
from machine import Reporter, RunConfig, canonical, open_store, replay, resume, run
from machine.config import FanOutJoin
from machine.events import StateEntered
from machine.stores import MemoryStore

DATABASE = "sqlite:///runs.db?synchronous={}"


def drive(plan, store, **more):
    """Run a plan to its end."""
    done = run(plan, store=store, **more)
    assert done.status == "completed", done.error
    return done


def warm(config=None):
    """Let everything be loaded that a run loads."""
    with MemoryStore() as store:
        plan = linear(WARM)
        replay(drive(plan, store, config=config).run_id, plan=plan, store=store)


def live(n, store="sqlite", synchronous="full", durability="effects"):
    """Run a fresh plan in a fresh store."""
    config, plan, told = RunConfig(durability=durability), linear(n), {}
    warm(config)
    with MemoryStore() if store == "memory" else open_store(DATABASE.format(synchronous)) as opened:
        drive(linear(WARM), opened, config=config)
        with stopwatch(n, told):
            drive(plan, opened, config=config)
    return {**told, "bytes": stored("runs.db", n)}


def replayed(n):
    """Replay a recorded run from its file, compared byte for byte."""
    plan, told = linear(n), {}
    warm()
    with open_store(DATABASE.format("normal")) as store:
        run_id = drive(plan, store).run_id
        replay(run_id, plan=plan, store=store)
        with stopwatch(n, told):
            assert replay(run_id, plan=plan, store=store).identical
    return told


class Weighed(MemoryStore):
    """A store that weighs what is appended to it."""

    def __init__(self):
        super().__init__()
        self.weight = 0

    def append(self, run_id, expected_seq, events, artifacts=(), **more):
        super().append(run_id, expected_seq, events, artifacts, **more)
        self.weight += sum(len(event.data) + len(event.chain) for event in events)
        self.weight += sum(len(item.data) for item in artifacts)


class Watch(Reporter):
    """Notes when the first state was entered, and when the last."""

    def __init__(self, weighed=None):
        self.first = self.last = self.weight = None
        self.weighed = weighed

    def entry(self, entry):
        if type(entry.event) is StateEntered:
            self.last = time.perf_counter()
            if self.first is None:
                self.first = self.last
                self.weight = self.weighed and self.weighed.weight

    def within(self, steps):
        """Return the microseconds a step between the two."""
        return (self.last - self.first) / (steps - 1) * 1e6


def context(n, keys, weigh=0):
    """Run a plan that is given a context of `keys` keys of 100 bytes, and changes one of them a step."""
    (plan, params), told = changing(n, keys), {}
    warm()
    with Weighed() if weigh else open_store(DATABASE.format("full")) as store:
        watch = Watch(store if weigh else None)
        with stopwatch(n, told):
            drive(plan, store, input=params, reporter=watch)
        if weigh:
            return {"weight": (store.weight - watch.weight) / n}
    return {**told, "within": watch.within(n)}


def appended(n, size):
    """Append 100 bytes to a list of `size` bytes, again and again, and encode it once for comparison."""
    warm()
    with Weighed() as alone, Weighed() as store:
        with stopwatch(1, first := {}):
            drive(appending(0, size), alone)
        with stopwatch(1, told := {}):
            done = drive(appending(n, size), store)
    with stopwatch(1, once := {}):
        canonical.encode(done.context["rows"])
    return {
        "cpu": (told["cpu"] - first["cpu"]) / n,
        "written": (store.weight - alone.weight) / n,
        "encode": once["cpu"],
    }


def iterated(n, keys):
    """Iterate a context of so many keys in each of `n` states, and a dict of as many."""
    spent = []

    @contextmanager
    def times():
        start = time.process_time()
        yield
        spent.append((time.process_time() - start) * 1e6)

    params = {f"key{number:07d}": number for number in range(keys)}
    warm()
    with MemoryStore() as store:
        drive(iterating(n, times), store, input=params, config=RunConfig(undeclared_io="allow"))
    with stopwatch(1, read := {}):
        for _ in params:
            pass
    return {"first": spent[0], "later": statistics.median(spent[1:]), "dict": read["cpu"]}


def fanned(n, concurrency, durability="effects"):
    """Run a plan of states that wait for nothing but one before and one after them all."""
    told, config = {}, RunConfig(durability=durability, execution_mode=FanOutJoin(concurrency))
    plan = wide(n)
    with open_store(DATABASE.format("full")) as store:
        drive(wide(WARM), store, config=config)
        with stopwatch(n, told):
            drive(plan, store, config=config)
    return told


CALLS = {"io": calling, "client": with_client}


def record_calls(n, by="io"):
    """Record a run of many calls, by `io.http` or by an unmodified client on its transport."""
    with server() as url, open_store("sqlite:///calls.db") as store:
        Path("calls.txt").write_text(f"{drive(CALLS[by](n, url), store).run_id} {url}", encoding="ascii")


def replay_calls(n, by="io"):
    """Replay the run of many calls; there is no server any more."""
    run_id, url = Path("calls.txt").read_text(encoding="ascii").split()
    plan, told = CALLS[by](n, url), {}
    warm()
    with open_store("sqlite:///calls.db") as store, stopwatch(n, told):
        assert replay(run_id, plan=plan, store=store).identical
    return told


def watched(n, clock=0):
    """Tell what the watch on handlers costs a step, in pairs of runs with it and without."""
    plan, costs = (clocked if clock else linear)(n), []
    warm()
    for _ in range(7):
        told = {}
        for how in ("warn", "allow"):
            told[how] = {}
            with MemoryStore() as store, stopwatch(n, told[how]):
                drive(plan, store, config=RunConfig(undeclared_io=how))
        costs.append(told["warn"]["cpu"] - told["allow"]["cpu"])
    return {"cpu": statistics.median(costs)}


def asked(n):
    """Run a plan of one state that asks for many facts."""
    plan, told = asking(n), {}
    warm()
    with MemoryStore() as store, stopwatch(n, told):
        drive(plan, store)
    return told


def asked_again(n):
    """Replay it."""
    plan, told = asking(n), {}
    with MemoryStore() as store:
        run_id = drive(plan, store).run_id
        with stopwatch(n, told):
            assert replay(run_id, plan=plan, store=store).identical
    return told


def one_state(n, store):
    """Run a plan of one state `n` times, and tell what the first run of this process took."""
    plan, told, first = linear(1), {}, {}
    with MemoryStore() if store == "memory" else open_store(DATABASE.format("full")) as opened:
        with stopwatch(1, first):
            drive(plan, opened)
        for _ in range(WARM):
            drive(plan, opened)
        with stopwatch(n, told):
            for _ in range(n):
                drive(plan, opened)
    return {**told, "first": first["cpu"] / 1000}


def interrupted(n):
    """Run half of a plan and die."""

    def dying(number):
        async def handler(ctx, io, rec):
            if number == n // 2:
                os._exit(0)
            ctx["result"] = result(number)

        return handler

    run_id = str(machine.new_run_id())
    Path("run.txt").write_text(run_id, encoding="ascii")
    with open_store("sqlite:///runs.db") as store:
        run(linear(n, dying), store=store, run_id=run_id, config=RunConfig(durability="states"))


def resumed(n):
    """Resume the run that died, as far as the first state that had not been run."""
    plan, watch = linear(n), Watch()
    warm()
    run_id = Path("run.txt").read_text(encoding="ascii")
    start = time.perf_counter()
    with open_store("sqlite:///runs.db") as store:
        resume(run_id, plan=plan, store=store, reporter=watch)
    return {"ms": (watch.first - start) * 1e3}


def scaled(n):
    """Run `n` states, and say besides what a step costs between the first and the last."""
    plan, watch, told = linear(n), Watch(), {}
    warm()
    with open_store(DATABASE.format("full")) as store:
        drive(linear(100), store)
        with stopwatch(n, told):
            drive(plan, store, reporter=watch)
    return {**told, "within": watch.within(n)}


def held(n, concurrency=0):
    """Run `n` states of one handler in a row, and say what memory held before and at the most."""
    plan = linear(n, lambda number: counting)
    config = RunConfig(execution_mode=FanOutJoin(concurrency)) if concurrency else RunConfig()
    planned = memory_mb("VmRSS")
    forget_peak()
    with open_store(DATABASE.format("full")) as store:
        drive(plan, store, input={"result": result(0)}, config=config)
    return {"planned": planned, "peak": memory_mb("VmHWM")}


if __name__ == "__main__":
    main(
        live,
        replayed,
        context,
        appended,
        iterated,
        fanned,
        record_calls,
        replay_calls,
        watched,
        asked,
        asked_again,
        one_state,
        interrupted,
        resumed,
        scaled,
        held,
    )
