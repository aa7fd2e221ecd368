"""Runs of a plan whose calls a policy asks about, each process of which kills itself at some append to the store.

`python policy_kills.py DIRECTORY KILLS` forks the processes, approves or rejects between their lives, and prints
how many were killed. It fails as soon as a call has left that was not approved before.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

from machine import Plan, RunConfig, approve, new_run_id, reject, replay, resume, run, verify, waiting
from machine.config import Policy, Rule
from machine.errors import IoError
from machine.io.transport import BaseTransport
from machine.stores import SqliteStore

ASK = Policy(
    [Rule(name="ask", verdict="ask", namespace="pay"), Rule(name="no", verdict="deny", namespace="steal")]
)


class Outside(BaseTransport):
    """Notes in a file what has left, so that it is known after a kill."""

    one_effect_per_key = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def is_effect(self, namespace, request):
        return True

    async def perform(self, namespace, request):
        with self.path.open("a") as file:
            file.write(f"{namespace} {request}\n")
        return request


def plan_of(sent):
    plan = Plan("killed", transports={"pay": Outside(sent), "steal": Outside(sent)})
    before = None
    for number in range(3):

        @plan.state(
            f"step.s{number}",
            after=[before] if before else [],
            side_effects="apply_side_effect",
            idempotency=f"k{number}",
        )
        async def pays(ctx, io, number=number):
            for namespace, request in (("steal", number), ("pay", number)):
                try:
                    await io.call(namespace, request)
                except IoError as exc:
                    ctx[f"{namespace} {number}"] = exc.code

        before = pays
    return plan


class Mortal(SqliteStore):
    """A store that kills its process before or after the append of a number."""

    left = -1

    def append(self, *args, **kwargs):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        super().append(*args, **kwargs)
        if self.left == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def live(path, sent, run_id, left):
    """Drive a run in a process of its own, which kills itself; return whether it did."""
    child = os.fork()
    if child == 0:
        with Mortal(path) as store:
            store.left = left
            if store.run_exists(run_id):
                resume(run_id, plan=plan_of(sent), store=store)
            else:
                run(
                    plan_of(sent), store=store, run_id=run_id, config=RunConfig(policy=ASK, recoveries=10_000)
                )
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main(folder, kills):
    rng, killed, runs = random.Random(7), 0, 0
    while killed < kills:
        path, sent, run_id = folder / f"{runs}.db", folder / f"{runs}.txt", str(new_run_id())
        sent.touch()
        approved: set[str] = set()
        status = ""
        while status != "completed":
            killed += live(path, sent, run_id, rng.randrange(1, 9))
            left = sent.read_text().splitlines()
            assert set(left) <= approved, (left, approved)
            with SqliteStore(path) as store:
                status = store.run_row(run_id).status if store.run_exists(run_id) else ""
                for wait in waiting(store=store) if rng.random() < 0.5 else ():
                    if rng.random() < 0.8:
                        approve(run_id, wait.key, store=store)
                        approved.add(f"pay {wait.data['request']}")
                    else:
                        reject(run_id, wait.key, store=store)
        with SqliteStore(path) as store:
            assert replay(run_id, plan=plan_of(sent), store=store).identical
            assert verify(run_id, store=store).ok
        runs += 1
    print(f"{killed} killed in {runs} runs")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
