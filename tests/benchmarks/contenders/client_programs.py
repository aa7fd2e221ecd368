"""Unmodified programs, one a client, and the plan that records one of them.

Nothing here asks for the time: on Python 3.11 the code of handlers that may do so is watched at a price.
"""

from __future__ import annotations

import inspect

from machine import Plan, clients


def with_requests(ports, calls):
    """Get a page with one session of requests."""
    import requests

    with requests.Session() as session:
        session.trust_env = False
        for number in range(calls):
            session.get(f"http://127.0.0.1:{ports['http']}/{number}").json()


def with_urllib3(ports, calls):
    """Get a page with one pool of urllib3."""
    import urllib3

    with urllib3.PoolManager() as pool:
        for number in range(calls):
            pool.request("GET", f"http://127.0.0.1:{ports['http']}/{number}").json()


def with_httpx(ports, calls):
    """Get a page with one client of httpx."""
    import httpx

    with httpx.Client(trust_env=False) as client:
        for number in range(calls):
            client.get(f"http://127.0.0.1:{ports['http']}/{number}").json()


async def with_httpx_async(ports, calls):
    """Get a page with one asynchronous client of httpx."""
    import httpx

    async with httpx.AsyncClient(trust_env=False) as client:
        for number in range(calls):
            (await client.get(f"http://127.0.0.1:{ports['http']}/{number}")).json()


async def with_aiohttp(ports, calls):
    """Get a page with one session of aiohttp."""
    import aiohttp

    async with aiohttp.ClientSession() as session:
        for number in range(calls):
            async with session.get(f"http://127.0.0.1:{ports['http']}/{number}") as answer:
                await answer.json()


def with_redis(ports, calls):
    """Get a value with a client of redis-py."""
    import redis

    with redis.Redis(port=ports["redis"], protocol=2) as client:
        for number in range(calls):
            client.get(f"key-{number}")


async def with_redis_async(ports, calls):
    """Get a value with an asynchronous client of redis-py."""
    import redis.asyncio

    async with redis.asyncio.Redis(port=ports["redis"], protocol=2) as client:
        for number in range(calls):
            await client.get(f"key-{number}")


def with_grpc(ports, calls):
    """Call a method of gRPC."""
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{ports['grpc']}") as channel:
        method = channel.unary_unary("/a.B/Get")
        for number in range(calls):
            method(b"key-%d" % number)


async def with_grpc_async(ports, calls):
    """Call a method of gRPC on an event loop."""
    import grpc.aio

    async with grpc.aio.insecure_channel(f"127.0.0.1:{ports['grpc']}") as channel:
        method = channel.unary_unary("/a.B/Get")
        for number in range(calls):
            await method(b"key-%d" % number)


def agent(ports, calls):
    """Ask a model again and again, as the loop of an agent does."""
    import openai

    said = [{"role": "user", "content": "When?"}]
    with openai.OpenAI(base_url=f"http://127.0.0.1:{ports['http']}/v1", api_key="none") as client:
        for _ in range(calls):
            answer = client.chat.completions.create(model="small", messages=said[-10:])
            said += [{"role": "assistant", "content": answer.choices[0].message.content}, said[0]]


PROGRAMS = {
    "requests": (with_requests, "requests"),
    "urllib3": (with_urllib3, "urllib3"),
    "httpx": (with_httpx, "httpx"),
    "httpx_async": (with_httpx_async, "httpx"),
    "aiohttp": (with_aiohttp, "aiohttp"),
    "redis": (with_redis, "redis"),
    "redis_async": (with_redis_async, "redis"),
    "grpc": (with_grpc, "grpc"),
    "grpc_async": (with_grpc_async, "grpc"),
    "agent": (agent, "httpx"),
}
"""By name, the program and the library that records it."""
READS = {"grpc": {"reads": ["/a.B/Get"]}}


def plan_of(name, ports, calls):
    """Return a plan whose only handler is a program."""
    program, library = PROGRAMS[name]
    plan = Plan("bench_clients", version="1", clients=[clients.record(library, **READS.get(library, {}))])

    async def asynchronous(ctx, io, rec):
        await program(ports, calls)

    def plain(ctx, io, rec):
        program(ports, calls)

    handler = asynchronous if inspect.iscoroutinefunction(program) else plain
    plan.state("call.all", side_effects="read_only_io")(handler)
    return plan
