"""One life of a run full of effects: `effect_lives.py STORE RUN_ID URL FOLDER FD MODE`.

The key of each effect is written to the file descriptor as soon as its call has returned, and `end STATUS` when the
run has come to its end.
"""

from __future__ import annotations

import os
import sys

import anyio
import httpx

from machine import FanOutJoin, NotFound, Plan, RunConfig, open_store, resume, run

plan = Plan("lives")
ROUNDS = 4
EFFECT = {"side_effects": "apply_side_effect", "on_uncertain": "retry"}
TOLD = int(sys.argv[5]) if len(sys.argv) > 5 else -1


def told(key):
    """Say that the call of an effect has returned."""
    if TOLD >= 0:
        os.write(TOLD, f"{key}\n".encode())


def body(name):
    return {"of": name}


def add(number, before):
    def options(kind):
        name = f"{kind}.n{number}"
        return {"after": before, "idempotency": lambda ctx: f"{ctx['run']}:{name}", **EFFECT}

    @plan.state(f"post.n{number}", **options("post"))
    async def post(ctx, io, rec):
        await io.http("POST", f"{ctx['url']}/effects", json=body("post"))
        told(f"post.n{number}")
        ctx[f"at{number}"] = number

    @plan.state(f"plain.n{number}", **options("plain"))
    def plain(ctx, io, rec):
        io.http("POST", f"{ctx['url']}/effects", json=body("plain"))
        told(f"plain.n{number}")
        io.now()

    @plan.state(f"client.n{number}", **options("client"))
    async def client(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport()) as http:
            await http.post(f"{ctx['url']}/effects", json=body("client"))
        told(f"client.n{number}")

    @plan.state(f"race.n{number}", **options("race"))
    async def race(ctx, io, rec):
        async def one(lane):
            name = f"race.n{number}.{lane}"
            headers = {"idempotency-key": f"{ctx['run']}:{name}"}
            await io.http("POST", f"{ctx['url']}/effects", json=body(lane), headers=headers)
            told(name)

        async with anyio.create_task_group() as tasks:
            for lane in ("a", "b", "c"):
                tasks.start_soon(one, lane)

    @plan.state(f"write.n{number}", **options("write"))
    async def write(ctx, io, rec):
        await io.write_file(f"{ctx['folder']}/n{number}", "written")
        told(f"write.n{number}")

    @plan.state(f"join.n{number}", after=[post, plain, client, race, write])
    async def join(ctx, io, rec):
        ctx[f"joined{number}"] = await io.now() > 0

    return [join]


last: list[object] = []
for at in range(ROUNDS):
    last = add(at, last)

KINDS = ("post.n{}", "plain.n{}", "client.n{}", "race.n{}.a", "race.n{}.b", "race.n{}.c")
POSTED = [kind.format(at) for at in range(ROUNDS) for kind in KINDS]
WRITTEN = [f"write.n{at}" for at in range(ROUNDS)]


def drive(path, run_id, url, folder, mode):
    """Continue the run, or start it when nothing of it is there."""
    config = {"undeclared_io": "allow", "durability": mode.partition("-")[0]}
    if mode.endswith("concurrent"):
        config["execution_mode"] = FanOutJoin(4)
    with open_store(path) as store:
        try:
            return resume(run_id, plan=plan, store=store)
        except NotFound:
            given = {"run": run_id, "url": url, "folder": folder}
            return run(plan, store=store, run_id=run_id, input=given, config=RunConfig(**config))


if __name__ == "__main__":
    path, run_id, url, folder, _, mode = sys.argv[1:]
    told(f"end {drive(path, run_id, url, folder, mode).status}")
