"""A plan of effects of several kinds, each of which asks the outside what became of it after a crash.

Its outside is the server in `tests/receiver.py`, which deduplicates nothing that is counted here, and a ledger in
which programs write. As soon as an effect has returned, its key is written to NOTES.
"""

from __future__ import annotations

import os

from machine import Plan
from machine.errors import IoError

WAITS_FOR_PROGRAMS = True
NOTES: int | None = None
KINDS = [
    *("read", "post", "program", "plain_post", "file", "post"),
    *("post", "plain_program", "read", "plain_post", "post"),
]

plan = Plan("effects")


def returned(key):
    """Note that the answer to an effect is the handler's."""
    if NOTES is not None:
        os.write(NOTES, f"{key}\n".encode())


def key_of(name):
    return lambda ctx: f"{ctx['order']}:{name}"


async def ask_the_server(ctx, io, effect):
    seen = await io.http("GET", f"{ctx['url']}/seen/{effect.idempotency_key}")
    arrived = seen.raise_for_status().json()
    return effect.happened({"json": {"applied": arrived}}) if arrived else effect.not_done()


async def look_into_the_ledger(ctx, io, effect):
    try:
        lines = (await io.read_file(ctx["ledger"])).text.split()
    except IoError:  # nothing has been written yet
        lines = []
    return effect.happened({"stdout": "done\n"}) if effect.idempotency_key in lines else effect.not_done()


def add(number, kind, before):
    name, ident = f"{kind}.n{number}", f"n{number}"
    script = ["sh", "-c", 'echo "$MACHINE_IDEMPOTENCY_KEY" >> "$1"; echo done', "sh"]

    async def read(ctx, io, rec):
        ctx[name] = (await io.http("GET", f"{ctx['url']}/value/{ident}")).json()

    async def post(ctx, io, rec):
        answer = await io.http("POST", f"{ctx['url']}/effects", json={"of": ident})
        returned(f"{ctx['order']}:{ident}")
        answer.raise_for_status()

    def plain_post(ctx, io, rec):
        answer = io.http("POST", f"{ctx['url']}/effects", json={"of": ident})
        returned(f"{ctx['order']}:{ident}")
        answer.raise_for_status()

    async def program(ctx, io, rec):
        done = await io.exec([*script, ctx["ledger"]])
        returned(f"{ctx['order']}:{ident}")
        ctx[name] = done.check().stdout

    def plain_program(ctx, io, rec):
        done = io.exec([*script, ctx["ledger"]])
        returned(f"{ctx['order']}:{ident}")
        ctx[name] = done.check().stdout

    async def file(ctx, io, rec):
        await io.write_file(f"{ctx['ledger']}.{ident}", ident)
        returned(f"{ctx['order']}:{ident}")

    handlers = {
        "read": read,
        "post": post,
        "plain_post": plain_post,
        "program": program,
        "plain_program": plain_program,
        "file": file,
    }
    options = {"side_effects": "apply_side_effect", "idempotency": key_of(ident)}
    if kind == "read":
        options = {}
    elif kind != "file":  # which may be written again
        ask = look_into_the_ledger if kind.endswith("program") else ask_the_server
        options |= {"on_uncertain": "reconcile", "reconcile": ask}
    return plan.state(name, after=[before] if before else [], **options)(handlers[kind])


last = None
for position, sort in enumerate(KINDS):
    last = add(position, sort, last)


def idents(*kinds):
    """Return the names under which the states of some kinds send their effects."""
    return [f"n{number}" for number, kind in enumerate(KINDS) if kind in kinds]


POSTED = idents("post", "plain_post")
PROGRAMS = idents("program", "plain_program")
