"""A plan whose handlers use clients of httpx that nobody can give a transport."""

import asyncio

import httpx

from machine import Plan

plan = Plan("hidden_httpx", clients=["httpx"])


@plan.state("read.plainly", side_effects="read_only_io")
def plainly(ctx, io, rec):
    with httpx.Client(base_url=ctx["url"], follow_redirects=True) as client:
        ctx["gzip"] = len(client.get("/gzip").text)
        ctx["moved"] = client.get("/redirect").json()["path"]
        client.get("/login")
        ctx["cookie"] = client.get("/echo").json()["cookie"]
        with client.stream("GET", "/chunks") as answer:
            ctx["chunks"] = sum(len(piece) for piece in answer.iter_text())
        try:
            client.get("/hangup")
        except httpx.RemoteProtocolError as error:
            ctx["hangup"] = type(error).__name__


@plan.state("read.at_once", side_effects="read_only_io", after=[plainly])
async def at_once(ctx, io, rec):
    async with httpx.AsyncClient(base_url=ctx["url"]) as client:
        several = await asyncio.gather(*(client.get(f"/echo?n={number}") for number in range(3)))
    ctx["paths"] = [answer.json()["path"] for answer in several]
    ctx["in_thread"] = (await asyncio.to_thread(httpx.get, f"{ctx['url']}/gzip")).status_code
    ctx["on_the_loop"] = httpx.get(f"{ctx['url']}/status?code=404").status_code  # noqa: ASYNC210 - it is what is tried


@plan.state("write.page", side_effects="apply_side_effect", idempotency="page", after=[at_once])
async def write(ctx, io, rec):
    async with httpx.AsyncClient(base_url=ctx["url"]) as client:
        ctx["written"] = (await client.post("/echo", json={"a": 1})).json()["body"]
