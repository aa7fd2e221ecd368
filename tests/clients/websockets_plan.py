"""A plan whose handlers use websockets, and do not know that they are recorded."""

import asyncio

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as connect_blocking
from websockets.sync.client import reconnect

from machine import Plan
from machine.clients import record

plan = Plan("websockets_client", clients=[record("websockets", reads=["*/feed"])])


async def end_of(connection):
    """Return what came, and how the connection ended."""
    came = []
    try:
        while True:
            came.append(str(await connection.recv()))
    except ConnectionClosed as error:
        said = error.rcvd and [error.rcvd.code, error.rcvd.reason]
        return [came, type(error).__name__, said, connection.close_code]


@plan.state("read.async", side_effects="read_only_io")
async def read(ctx, io, rec):
    async with connect(f"{ctx['url']}/feed") as feed:
        await feed.send("tea")
        ctx["feed"] = [await feed.recv(), await feed.recv(decode=False) == b"tea 1"]
        await (await feed.ping())
    ctx["closed"] = [feed.close_code, feed.state.name]
    async with connect(f"{ctx['url']}/count") as counting:
        ctx["count"] = [message async for message in counting]
    for name in ("count", "failing", "dropping"):
        async with connect(f"{ctx['url']}/{name}") as ending:
            ctx[name + "_end"] = await end_of(ending)
    async with connect(f"{ctx['url']}/binary") as binary:
        ctx["binary"] = list(await binary.recv())
        ctx["parts"] = [len(part) async for part in binary.recv_streaming()]
    async with connect(f"{ctx['url']}/moved", subprotocols=["tea"]) as moved:
        ctx["moved"] = [await moved.recv(), moved.subprotocol, moved.response.status_code]
    try:
        await connect(f"{ctx['url']}/forbidden")
    except InvalidStatus as error:
        ctx["forbidden"] = [error.response.status_code, error.response.body.decode()]
    try:
        await connect(ctx["closed_url"])
    except OSError as error:
        ctx["refused"] = type(error).__name__
    try:
        await connect(f"{ctx['url']}/slow", open_timeout=0.1)
    except TimeoutError as error:
        ctx["slow"] = type(error).__name__


@plan.state("read.blocking", side_effects="read_only_io", after=[read])
def blocking(ctx, io, rec):
    with connect_blocking(f"{ctx['url']}/feed") as feed:
        feed.send(b"salt")
        ctx["blocking_feed"] = [feed.recv(), feed.recv(decode=False) == b"salt 1"]
        feed.ping().wait()
        try:
            feed.recv(timeout=0.05)
        except TimeoutError as error:
            ctx["late"] = type(error).__name__
    ctx["blocking_closed"] = [feed.close_code, feed.state.name]
    with reconnect(f"{ctx['url']}/count") as counting:
        ctx["blocking_count"] = list(counting)
    with connect_blocking(f"{ctx['url']}/failing") as failing:
        try:
            failing.recv()
            failing.recv()
        except ConnectionClosed as error:
            ctx["blocking_failing"] = [type(error).__name__, error.rcvd.code, failing.close_reason]
    try:
        connect_blocking(f"{ctx['url']}/forbidden", legacy=True)
    except InvalidStatus as error:
        ctx["blocking_forbidden"] = error.response.status_code


@plan.state("write.async", side_effects="apply_side_effect", idempotency="one", after=[blocking])
async def write(ctx, io, rec):
    async with connect(f"{ctx['url']}/echo") as echo:
        receiving = asyncio.create_task(echo.recv())
        await echo.send("one")
        ctx["one"] = await receiving


@plan.state("write.blocking", side_effects="apply_side_effect", idempotency="two", after=[write])
def write_blocking(ctx, io, rec):
    with connect_blocking(f"{ctx['url']}/echo") as echo:
        echo.send(["tw", "o"])
        ctx["two"] = echo.recv()
