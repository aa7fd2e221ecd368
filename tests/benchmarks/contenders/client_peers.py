"""The same unmodified httpx client for all: on a mock transport, and on cassettes of vcrpy and of cassetter."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
from plans import ask
from stage import BODY, WARM, main, server, stopwatch


def cassette(kind, mode):
    """Return the context in which a library records or replays what a client does."""
    if kind == "vcrpy":
        import vcr

        return vcr.VCR(record_mode=mode).use_cassette("calls.yaml")
    import cassetter

    return cassetter.use_cassette("calls.yaml", record_mode=mode)


async def asked(calls, url, **options):
    """Make calls with a client of this name."""
    async with httpx.AsyncClient(**options) as client:
        await ask(client, calls, url)


def record_calls(n, kind):
    """Record many calls."""
    with server() as url, cassette(kind, "once"):
        asyncio.run(asked(n, url))
    Path("url.txt").write_text(url, encoding="ascii")


def replay_calls(n, kind):
    """Replay them; reading the cassette counts, as reading the run does."""
    url, told = Path("url.txt").read_text(encoding="ascii"), {}
    with stopwatch(n, told), cassette(kind, "none"):
        asyncio.run(asked(n, url))
    return told


def mocked_calls(n):
    """Make the calls on the mock transport of httpx, which gives the same answer to all."""
    told = {}
    transport = httpx.MockTransport(
        lambda _: httpx.Response(200, content=BODY, headers={"content-type": "application/json"})
    )
    asyncio.run(asked(WARM, "http://127.0.0.1:8000", transport=transport))
    with stopwatch(n, told):
        asyncio.run(asked(n, "http://127.0.0.1:8000", transport=transport))
    return told


if __name__ == "__main__":
    main(record_calls, replay_calls, mocked_calls)
