"""A plan of six effects, each of which needs what the one before returned; `start` applies its dry run."""

from __future__ import annotations

import machine
from machine import Plan

KEYS = [f"k{number}" for number in range(6)]
plan = Plan("applied")


def preview(ctx, request):
    """Return what the receiver answers."""
    return {"json": {"applied": request["json"]["of"]}}


@plan.state("a.read")
async def read(ctx, io):
    ctx["last"] = str(await io.uuid())
    ctx["at"] = await io.now()


def add(number, before):
    """Add a state with an effect."""

    async def send(ctx, io):
        asked = {"of": f"{number} after {ctx['last'][:60]}", "at": ctx["at"]}
        answer = await io.http("POST", f"{ctx['url']}/effects", json=asked)
        ctx["last"] = answer.raise_for_status().json()["applied"]

    return plan.state(
        f"b.send{number}",
        after=[before],
        side_effects="apply_side_effect",
        idempotency=lambda ctx: f"{ctx['order']}:{KEYS[number]}",
        preview=preview,
    )(send)


last = read
for at in range(len(KEYS)):
    last = add(at, last)


def start(order, store):
    """Apply the one dry run in the store."""
    (dry_run,) = store.list_runs().rows
    return machine.apply(dry_run.run_id, plan=plan, store=store, run_id=order["run_id"])
