"""A real server of Redis for tests, on a free port of this machine."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

_SETTING_UP = ("client|", "hello", "select", "ping", "config|", "info", "flushall", "auth", "script|flush")
"""The beginnings of the names of commands that set up a connection, or come from a test itself."""


@attrs.frozen
class RedisServer:
    """A server, which keeps nothing on disk."""

    port: int
    process: subprocess.Popen[bytes]

    def client(self, **options):
        """Return a client for the test itself, which nothing records."""
        import redis

        return redis.Redis(port=self.port, decode_responses=True, **options)

    def arrivals(self) -> Counter[str]:
        """Count the commands that have arrived, without those that set up a connection."""
        with self.client() as client:
            found = client.info("commandstats")
        return Counter(
            {
                name: stats["calls"]
                for key, stats in found.items()
                if not (name := key.removeprefix("cmdstat_")).startswith(_SETTING_UP)
            }
        )

    def stop(self) -> None:
        """Stop the server. May be called again."""
        self.process.terminate()
        self.process.wait(10)


def free_port() -> int:
    """Return a port of this machine on which nobody listens; a cluster also takes the one 10,000 above."""
    while True:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        if port + 10_000 < 2**16:
            return port


@contextlib.contextmanager
def redis_server(folder: Path, *more: str) -> Iterator[RedisServer]:
    """Start a server, with more of its options. Skips the test where none is installed."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("needs redis-server (in Debian: apt-get install redis-server)")
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen([program, *options, *more, "--dir", str(folder)], stdout=subprocess.DEVNULL)
    server = RedisServer(port, process)
    try:
        for _ in range(500):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.01)
        yield server
    finally:
        server.stop()
