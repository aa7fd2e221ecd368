"""A plan whose handlers use httpx."""

import httpx

from machine import Plan

plan = Plan("httpx_client")


@plan.state("read.pages", side_effects="read_only_io")
async def read(ctx, io, rec):
    async with httpx.AsyncClient(
        transport=io.httpx_transport(), base_url=ctx["url"], follow_redirects=True
    ) as client:
        ctx["gzip"] = len((await client.get("/gzip")).text)
        ctx["moved"] = (await client.get("/redirect")).json()["path"]
        await client.get("/login")
        ctx["cookie"] = (await client.get("/echo")).json()["cookie"]
        ctx["busy"] = [(await client.get("/busy")).status_code for _ in range(2)]
        try:
            await client.get("/hangup")
        except httpx.RemoteProtocolError as error:
            ctx["hangup"] = type(error).__name__
        ctx["chunks"] = len((await client.get("/chunks")).text)


@plan.state("write.page", side_effects="apply_side_effect", idempotency="page", after=[read])
async def write(ctx, io, rec):
    async with httpx.AsyncClient(transport=io.httpx_transport(), base_url=ctx["url"]) as client:
        ctx["written"] = (await client.post("/echo", json={"a": 1})).json()["body"]
