"""A plan whose handlers use the API of a daemon on a Unix socket, with several clients."""

import aiohttp
import docker
import httpx

from machine import Plan
from machine.errors import TransportError

plan = Plan("unix_sockets", clients=["aiohttp", "httpx", "requests"])


@plan.state("read.api", side_effects="read_only_io")
async def read(ctx, io, rec):
    path, url = ctx["path"], "http://docker/containers/json"
    ctx["io"] = (await io.http("GET", url, unix_socket=path)).json()
    async with io.http_stream("GET", "http://docker/chunks", unix_socket=path) as answer:
        ctx["stream"] = sum([len(piece) async for piece in answer])
    async with httpx.AsyncClient(transport=io.httpx_transport(uds=path)) as client:
        ctx["transport"] = (await client.get(url)).json()
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=path)) as client:
        ctx["httpx"] = (await client.get(url)).json()
    connector = aiohttp.UnixConnector(path)
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as answer:
        ctx["aiohttp"] = await answer.json()
    try:
        await io.http("GET", url, unix_socket=path + ".nothing")
    except TransportError as error:
        ctx["nothing"] = error.code


@plan.state("read.blocking", side_effects="read_only_io", after=[read])
def blocking(ctx, io, rec):
    with httpx.Client(transport=httpx.HTTPTransport(uds=ctx["path"])) as client:
        ctx["blocking"] = client.get("http://docker/containers/json").json()
    daemon = docker.DockerClient(base_url=f"unix://{ctx['path']}", version="1.44")
    ctx["docker"] = [daemon.ping(), [container.name for container in daemon.containers.list()]]
    ctx["logs"] = len(daemon.api.logs("a"))


@plan.state("write.container", side_effects="apply_side_effect", idempotency="one", after=[blocking])
async def write(ctx, io, rec):
    connector, url = aiohttp.UnixConnector(ctx["path"]), "http://docker/containers/create"
    async with aiohttp.ClientSession(connector=connector) as session:
        answer = await session.post(url, json={"Image": "a"})
        ctx["created"] = await answer.json()
