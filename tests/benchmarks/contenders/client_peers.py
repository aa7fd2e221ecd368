"""vcrpy: recorded calls of httpx, replayed from a cassette."""

from __future__ import annotations

from pathlib import Path

import httpx
import vcr
from stage import main, server, stopwatch


def cassette(mode):
    return vcr.VCR(record_mode=mode).use_cassette("calls.yaml")


def record_calls(n):
    """Record many calls."""
    with server() as url, cassette("once"), httpx.Client() as client:
        for number in range(n):
            client.get(f"{url}/quotes/{number}").json()
    Path("url.txt").write_text(url, encoding="ascii")


def replay_calls(n):
    """Replay them; reading the cassette counts, as reading the run does."""
    url, told = Path("url.txt").read_text(encoding="ascii"), {}
    with httpx.Client() as client, stopwatch(n, told), cassette("none"):
        for number in range(n):
            client.get(f"{url}/quotes/{number}").json()
    return told


if __name__ == "__main__":
    main(record_calls, replay_calls)
