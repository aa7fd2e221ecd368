"""Forks eight processes that fight over the runs of one store, kills some at random, and replaces those that die.

A program of its own with a single thread, so that a fork is cheap and safe. Its argument is a JSON object: `store`,
`url` of the receiver, `reports` (a directory), `seed`, `seconds`. When the time is over nobody is killed any more,
and the fighters end when every run has. What a drive did is one line in the report of its process; the program's
own last words are one JSON object: how many it killed, how many dropped their work, and what went wrong.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import sys
import time
import traceback
import uuid
from pathlib import Path

import machine
from machine import DomainEvent, Plan, RunConfig, open_store
from machine.engine.reporter import Reporter
from machine.errors import Code, ConcurrencyError, NotFoundError, UsageError

FIGHTERS = 8
RUNS = 50
DROPPED = 17
PATIENCE = 60.0  # seconds after the fight until all must have ended
LOADED_LATE = ["machine.sync", "machine.stores.sqlite", "httpx", "httpcore", "anyio._backends._asyncio"]

plan = Plan("fight")
config = RunConfig(recoveries=1_000)  # so many die here that the default would end runs as failed


def run_id_of(place, round_):
    """Return the id of a run: when the run of a place has ended, that of the next round follows."""
    return str(uuid.UUID(int=(round_ << 16) | place, version=4))


async def sign(io, rec):
    """Leave something in the log that no other attempt leaves."""
    await rec.emit(DomainEvent("was_signed", {"mark": str(await io.uuid())}))


def add(number, *, effect):
    name = f"step.n{number}"
    after = [f"step.n{number - 1}"] if number else []

    async def read(ctx, io, rec):
        ctx[name] = (await io.http("GET", f"{ctx['url']}/value/n{number}")).json()
        await sign(io, rec)

    async def apply(ctx, io, rec):
        await sign(io, rec)
        answer = await io.http("POST", f"{ctx['url']}/effects", json={"of": f"n{number}"})
        ctx[name] = answer.raise_for_status().json()

    def key(ctx):
        return f"{ctx['run']}:n{number}"

    if effect:
        plan.state(
            name, after=after, side_effects="apply_side_effect", idempotency=key, on_uncertain="retry"
        )(apply)
    else:
        plan.state(name, after=after)(read)


EFFECTS = (1, 3, 4)
for position in range(6):
    add(position, effect=position in EFFECTS)


class Witness(Reporter):
    """Keeps which signatures a drive gave, at which seq; ends the process at the `drop`th entry."""

    def __init__(self, drop):
        self.drop = drop
        self.signed = []

    def entry(self, entry):
        if b'"mark"' in entry.body:
            self.signed.append((entry.seq, entry.body.decode()))
        if self.drop is not None:
            self.drop -= 1
            if self.drop <= 0:
                os._exit(DROPPED)


def drive(order, store, run_id, drop, report):
    """Continue a run, or start it when nothing of it is there; report and return how that ended."""
    witness = Witness(drop)
    try:
        try:
            result = machine.resume(run_id, plan=plan, store=store, reporter=witness)
        except NotFoundError:
            given = {"url": order["url"], "run": run_id}
            result = machine.run(
                plan, store=store, run_id=run_id, input=given, config=config, reporter=witness
            )
        ended = result.status
    except ConcurrencyError as exc:
        ended = exc.code
    except UsageError as exc:
        if exc.code != Code.RUN_ID_IN_USE:  # another has started it since
            raise
        ended = exc.code
    tell(report, {"run": run_id, "signed": witness.signed, "ended": ended})
    return ended


def fight(order, draw, report):
    """Drive runs drawn at random; after the end of the fight, until each has ended."""
    rounds = dict.fromkeys(range(RUNS), 0)
    with open_store(order["store"]) as store:
        while rounds:
            # half of the time all want one of the same few
            place = draw.choice(list(rounds)[: draw.choice([5, RUNS])])
            while store.run_exists(run_id_of(place, rounds[place] + 1)):
                rounds[place] += 1  # others have gone on
            over = time.time() > order["until"]
            drop = draw.randrange(1, 30) if not over and draw.random() < 0.1 else None
            ended = drive(order, store, run_id_of(place, rounds[place]), drop, report)
            if ended == "completed" and not over:
                rounds[place] += 1
            elif ended == "completed" and not store.run_exists(run_id_of(place, rounds[place] + 1)):
                del rounds[place]


def tell(report, line):
    os.write(report, json.dumps(line).encode() + b"\n")


def fork(order, number):
    pid = os.fork()
    if pid:
        return pid
    report = os.open(Path(order["reports"]) / str(number), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        fight(order, random.Random(f"{order['seed']}:{number}"), report)
    except BaseException:  # noqa: BLE001 - whatever it was is told
        tell(report, {"error": traceback.format_exc()})
        os._exit(1)
    os._exit(0)


def referee(order, alive):
    """Keep eight processes fighting until the time is over, then wait for them. Returns what happened."""
    draw = random.Random(order["seed"])
    told = {"killed": 0, "dropped": 0, "problems": []}
    count, swept = 0, False
    kill_at = time.time() + draw.uniform(0, 0.3)
    order["until"] = time.time() + order["seconds"]
    while True:
        over = time.time() > order["until"] or told["problems"]
        while not over and len(alive) < FIGHTERS:
            alive.append(fork(order, count))
            count += 1
        if not over and time.time() > kill_at:
            os.kill(draw.choice(alive), signal.SIGKILL)
            kill_at = time.time() + draw.uniform(0, 0.3)
        pid, status = os.waitpid(-1, os.WNOHANG) if alive else (0, 0)
        if pid:
            alive.remove(pid)
            code = os.waitstatus_to_exitcode(status)
            told["killed"] += code == -signal.SIGKILL
            told["dropped"] += code == DROPPED
            if code not in {0, DROPPED, -signal.SIGKILL}:
                told["problems"].append(f"process {pid} ended with {code}")
        elif over and not alive:
            if told["problems"] or swept:
                return told
            swept = True  # what a fighter left that died in the last instant
            alive.append(fork(order, count))
        elif time.time() > order["until"] + PATIENCE:
            told["problems"].append(f"{len(alive)} processes have not ended")
            return told
        else:
            time.sleep(0.005)


def main():
    order = json.loads(sys.argv[1])
    for name in LOADED_LATE:
        importlib.import_module(name)
    _ = plan.graph  # built once, for all
    alive = []
    try:
        told = referee(order, alive)
    finally:
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
