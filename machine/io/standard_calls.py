"""The calls of a handler's `io` that go to the standard transports."""

from __future__ import annotations

import os
import random as random_module
import uuid as uuid_module
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from machine.ignore import Ignore
from machine.io import clock, entropy, env, exec, files, secret  # noqa: A004 - the namespaces' own names
from machine.io.call_identity import IoResult
from machine.io.http_message import HttpResponse, http_request
from machine.kernel.known_after_apply import is_known_later
from machine.secrets.secret_value import SECRET

T = TypeVar("T")


class StandardCalls(ABC):
    """The part of `io` for HTTP, programs, files, the time, randomness and the environment."""

    @abstractmethod
    async def call(
        self, namespace: str, request: Any, fact_key: str | None = None, *, ignore: Ignore | None = None
    ) -> IoResult:
        """Make a call; see `IoProvider`."""

    async def http(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        data: str | bytes | Mapping[str, Any] | None = None,
        timeout: float = 30.0,  # noqa: ASYNC109 - part of the recorded request, not of this coroutine
        fact_key: str | None = None,
        ignore: Ignore | None = None,
        **options: Any,
    ) -> HttpResponse:
        """Make an HTTP request. `timeout` is in seconds and covers the whole call; see `http_request`.

        `ignore` says which parts of this request are not compared. Any status is a response; `raise_for_status()`
        turns 4xx and 5xx into errors.
        """
        request = http_request(
            method, url, headers=headers, params=params, json=json, data=data, timeout=timeout, **options
        )
        result = await self.call("http", request, fact_key, ignore=ignore)
        return _read(HttpResponse.from_json, result)

    async def exec(
        self,
        argv: Sequence[str],
        *,
        stdin: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 60.0,  # noqa: ASYNC109 - part of the recorded request, not of this coroutine
        fact_key: str | None = None,
        **options: Any,
    ) -> exec.ExecResult:
        """Run a program without a shell and wait for it. `timeout` is in seconds; see `exec_request`.

        Any exit status is a result; `check()` turns a non-zero one into an error.
        """
        asked = exec.exec_request(argv, stdin=stdin, env=env, timeout=timeout, **options)
        return _read(exec.ExecResult.from_json, await self.call("exec", asked, fact_key))

    async def read_file(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = 64 * 1024 * 1024,
        fact_key: str | None = None,
    ) -> files.FileContent:
        """Read a regular file of at most `max_bytes`. The path is recorded as given."""
        request = files.read_request(path, max_bytes=max_bytes)
        return files.FileContent.from_json((await self.call("file.read", request, fact_key)).response)

    async def write_file(
        self, path: str | os.PathLike[str], data: str | bytes, *, fact_key: str | None = None
    ) -> int:
        """Replace a file atomically and return the bytes written. Needs `side_effects="apply_side_effect"`."""
        written = await self.call("file.write", files.write_request(path, data), fact_key)
        return _read(lambda response: int(response["bytes"]), written)

    async def now(self) -> int:
        """Return the time in whole milliseconds since the epoch."""
        now: int = (await self.call("clock.now", clock.now_request())).response
        return now

    async def random_bytes(self, n: int) -> bytes:
        """Return `n` bytes (1 to 65536) from the operating system's generator."""
        result = await self.call("random.bytes", entropy.random_bytes_request(n))
        return entropy.bytes_from(result.response)

    async def uuid(self) -> uuid_module.UUID:
        """Return a random UUID (version 4)."""
        return entropy.uuid_from(await self.random_bytes(16))

    async def random(self) -> random_module.Random:
        """Return a `random.Random` seeded from a recorded fact: its draws are the same in replay."""
        return entropy.random_from(await self.random_bytes(32))

    async def env(self, name: str) -> str | None:
        """Return an environment variable, or None when it is not set."""
        value: str | None = (await self.call("env", env.env_request(name))).response["value"]
        return value

    async def secret(self, name: str) -> str:
        """Read a secret by name (an environment variable) and return its value; its `repr` does not show it.

        The store holds a placeholder for it, which a replay without the key of the store receives. Raises
        `OtherIoError` (`secret_not_set`) when there is none.
        """
        return secret.secret_of(name, (await self.call(SECRET, secret.secret_request(name))).response)


def _read(decode: Callable[[Any], T], result: IoResult) -> T:
    """Return what a handler gets of a response: in a dry run, perhaps a substitute that has no view."""
    response: Any = result.response
    return response if is_known_later(response) else decode(response)
