"""A plan whose handlers use aiohttp, and do not know that they are recorded."""

import asyncio

import aiohttp

from machine import Plan

plan = Plan("aiohttp_client", clients=["aiohttp"])


async def name_of(awaitable):
    """Return the name of the exception and what it says, without numbers of ports."""
    try:
        await awaitable
    except (aiohttp.ClientError, TimeoutError) as error:
        status = getattr(error, "status", None)
        return [type(error).__name__, status, isinstance(error, OSError)]
    return None


@plan.state("read.pages", side_effects="read_only_io")
async def read(ctx, io, rec):
    jar = aiohttp.CookieJar(unsafe=True)  # the server has an address and no name
    async with aiohttp.ClientSession(ctx["url"], cookie_jar=jar) as session:
        async with session.get("/gzip") as answer:
            ctx["gzip"] = [len(await answer.text()), answer.status, answer.reason]
        async with session.get("/redirect", params={"to": "/echo?a=1"}) as answer:
            ctx["moved"] = [(await answer.json())["path"], answer.url.path_qs, len(answer.history)]
        async with session.get("/login") as answer:
            ctx["cookies"] = {name: morsel.value for name, morsel in answer.cookies.items()}
        async with session.get("/echo", params={"of": "cookie"}) as answer:
            ctx["cookie"] = (await answer.json())["cookie"]
        async with session.get("/chunks") as answer:
            pieces = [len(piece) async for piece in answer.content.iter_chunked(4096)]
            small = max(pieces) <= 4096  # how many there are is up to the network
            ctx["chunks"] = [sum(pieces), small]
        async with session.get("/chunks") as answer:
            ctx["first_line"] = (await answer.content.readline()).decode()
            ctx["any"] = len(b"".join([piece async for piece in answer.content.iter_any()]))
        ctx["busy"] = []
        for _ in range(2):
            async with session.get("/busy") as answer:
                ctx["busy"] = [*ctx["busy"], answer.status]
        async with session.head("/echo?of=head") as answer:
            ctx["head"] = [answer.content_length, await answer.read() == b""]
        async with asyncio.TaskGroup() as group:
            racing = [group.create_task(text_of(session, f"/echo?of={n}")) for n in range(3)]
        ctx["racing"] = [task.result() for task in racing]


async def text_of(session, path):
    async with session.get(path) as answer:
        return (await answer.json())["path"]


@plan.state("read.errors", side_effects="read_only_io", after=[read])
async def errors(ctx, io, rec):
    nowhere = aiohttp.ClientTimeout(total=0.1)
    slow = aiohttp.ClientTimeout(sock_read=0.1)
    async with aiohttp.ClientSession(ctx["url"]) as session:
        ctx["errors"] = [
            await name_of(session.get("/hangup")),
            await name_of(session.get("/reset")),
            await name_of(session.get("/slow", timeout=nowhere)),
            await name_of(session.get("/slow", timeout=slow)),
            await name_of(session.get("/status?code=404", raise_for_status=True)),
            await name_of(session.get(ctx["closed"])),
            await name_of(session.get("/redirect", params={"to": "/redirect"}, max_redirects=2)),
        ]
        async with session.get("/cutoff") as answer:
            ctx["cutoff"] = await name_of(answer.read())


@plan.state("write.pages", side_effects="apply_side_effect", idempotency="pages", after=[errors])
async def write(ctx, io, rec):
    form = aiohttp.FormData()
    form.add_field("file", b"text", filename="a.txt")
    async with aiohttp.ClientSession(ctx["url"]) as session, session.post("/echo", data=form) as answer:
        ctx["form"] = "text" in (await answer.json())["body"]


async def pieces():
    yield b"one "
    yield b"two"


@plan.state("write.stream", side_effects="apply_side_effect", idempotency="stream", after=[write])
async def stream(ctx, io, rec):
    async with aiohttp.ClientSession(ctx["url"]) as session, session.put("/echo", data=pieces()) as answer:
        ctx["stream"] = (await answer.json())["body"]
