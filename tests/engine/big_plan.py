"""A plan of sixty states: reads, races, retries, clock, chance, effects, files, programs, joins.

Its outside is the server in `tests/receiver.py`. Whatever is written to the context is the same in every
run of one input; what differs from one run to the next (who wins a race, a nonce) goes into the log only.
"""

from __future__ import annotations

import anyio

from machine import DomainEvent, Plan, RetryPolicy

SIZE = 60
PATIENT = RetryPolicy(4)
EFFECT = {"side_effects": "apply_side_effect", "on_uncertain": "retry"}

plan = Plan("sixty")


def url(ctx, *parts):
    return "/".join([ctx["url"], *parts])


def key_of(name):
    return lambda ctx: f"{ctx['order']}:{name}"


def add(number, kind):
    name = f"{kind}.n{number}"
    effect = f"n{number}"
    before = earlier_of(number)

    async def read(ctx, io, rec):
        ctx[name] = (await io.http("GET", url(ctx, "value", effect))).json()
        await rec.emit(DomainEvent("was_read", {"number": number}))

    def plain_read(ctx, io, rec):
        ctx[name] = io.http("GET", url(ctx, "value", effect)).json()
        rec.emit(DomainEvent("was_read", {"number": number}))

    async def compute(ctx, io, rec):
        earlier = [key for key in ctx if key.rpartition(".n")[2].isdigit()]
        ctx[name] = {"earlier": sorted(earlier), "sum": sum(len(str(ctx[key])) for key in earlier)}
        await rec.emit_many([DomainEvent("was_computed", {"number": number, "part": n}) for n in range(3)])

    async def race(ctx, io, rec):
        won = []

        async def ask(lane):
            answer = (await io.http("GET", url(ctx, "same", effect, lane))).json()
            won.append(lane)
            ctx[name] = answer
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            for lane in ("left", "middle", "right"):
                tasks.start_soon(ask, lane)
        await rec.emit(DomainEvent("race_was_won", {"by": won}))

    async def retried(ctx, io, rec):
        answer = await io.http("GET", url(ctx, "flaky", ctx["order"], effect))
        answer.raise_for_status()
        ctx[name] = answer.json()

    async def effective(ctx, io, rec):
        answer = await io.http("POST", url(ctx, "effects"), json={"of": effect})
        ctx[name] = answer.raise_for_status().json()
        await rec.emit(DomainEvent("was_applied", {"number": number}))

    def plain_effective(ctx, io, rec):
        answer = io.http("POST", url(ctx, "effects"), json={"of": effect})
        ctx[name] = answer.raise_for_status().json()

    async def careful(ctx, io, rec):
        """Send what was read in the same attempt: sent again, it must be the same."""
        nonce = (await io.http("GET", url(ctx, "nonce"))).json()
        answer = await io.http("POST", url(ctx, "effects"), json={"of": effect, "nonce": nonce})
        ctx[name] = answer.raise_for_status().json()

    async def moody(ctx, io, rec):
        answer = await io.http("POST", url(ctx, "moody"), json={"of": effect})
        ctx[name] = answer.raise_for_status().json()

    async def clock(ctx, io, rec):
        await rec.emit(DomainEvent("time_was_told", {"at": await io.now()}))
        ctx[name] = number

    async def chance(ctx, io, rec):
        thrown = [(await io.random()).random(), str(await io.uuid()), (await io.random_bytes(8)).hex()]
        await rec.emit(DomainEvent("dice_were_thrown", {"thrown": [str(one) for one in thrown]}))
        ctx[name] = len(thrown)

    async def file(ctx, io, rec):
        await io.write_file(f"{ctx['ledger']}.{effect}", effect)
        ctx[name] = effect

    async def program(ctx, io, rec):
        script = 'echo "$MACHINE_IDEMPOTENCY_KEY" >> "$1"; echo done'
        ctx[name] = (await io.exec(["sh", "-c", script, "sh", ctx["ledger"]])).check().stdout

    effects = {
        "effective": effective,
        "plain_effective": plain_effective,
        "careful": careful,
        "moody": moody,
        "file": file,
        "program": program,
    }
    if kind in effects:
        retry = PATIENT if kind == "moody" else None
        plan.state(name, after=before, retry=retry, idempotency=key_of(effect), **EFFECT)(effects[kind])
    elif kind == "compute":
        plan.state(name, after=before, side_effects="pure")(compute)
    elif kind == "retried":
        plan.state(name, after=before, retry=PATIENT)(retried)
    else:
        others = {"read": read, "plain_read": plain_read, "race": race, "clock": clock, "chance": chance}
        plan.state(name, after=before)(others[kind])
    names.append(name)


def earlier_of(position):
    """Return what a state follows. Of every six, the third and fourth are branches that the fifth joins."""
    back = {3: [2], 4: [1, 2]}.get(position % 6, [1])
    return [names[position - steps] for steps in back if steps <= position]


names: list[str] = []
CYCLE = ["read", "effective", "compute", "plain_read", "careful", "race", "effective", "retried", "compute"]
SPECIAL = {
    8: "file",
    11: "plain_effective",
    17: "clock",
    20: "chance",
    24: "moody",
    29: "program",
    35: "plain_effective",
    44: "moody",
    47: "chance",
    51: "file",
    52: "program",
    53: "clock",
    59: "careful",
}

for position in range(SIZE):
    add(position, SPECIAL.get(position, CYCLE[position % len(CYCLE)]))


def effects_of(*kinds):
    """Return the names under which the states of some kinds send their effects, in the order of the plan."""
    return [name.rpartition(".")[2] for name in names if name.partition(".")[0] in kinds]


POSTED = effects_of("effective", "plain_effective", "careful", "moody")
PROGRAMS = effects_of("program")
FILES = effects_of("file")
