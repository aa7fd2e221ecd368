"""One child process, from its start to its end, and never beyond the deadline or the end of this process.

Whatever happens here (the deadline, too much output, cancellation, a bug), the child is killed with all that it
started, as far as that can be found, and reaped first. It must never leave a zombie or a file descriptor behind.
"""

# A scope may swallow a cancellation, so names bound in one seem unbound after it; the one here is shielded.
# pyright: reportPossiblyUnboundVariable=false

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from subprocess import DEVNULL
from typing import TYPE_CHECKING, Final

import anyio
import attrs

from machine.io.orphaned_programs import Left, end_all
from machine.io.running_programs import noted

if TYPE_CHECKING:
    from io import FileIO

    from anyio.abc import Process

_CHUNK: Final = 65536
_REAP_SECONDS: Final = 5.0


@attrs.frozen
class Finished:
    """The end of a child: it ended by itself, or was killed because it `timed_out` or an output `overflowed`."""

    returncode: int | None
    stdout: bytes
    stderr: bytes
    timed_out: bool
    overflowed: str | None


async def run_process(
    argv: Sequence[str],
    *,
    stdin: bytes,
    env: Mapping[str, str],
    cwd: str | None,
    timeout: float,  # noqa: ASYNC109 - the end of the child, not of the caller's wait, is what it is about
    max_output: int,
) -> Finished:
    """Run a program, feed it, read what it writes and wait until it ended and closed its outputs.

    `timeout` is in seconds, from before the start; `max_output` is in bytes, for each output. Raises
    `OSError` when the program cannot be started.
    """
    stdout, stderr = bytearray(), bytearray()
    with ExitStack() as ours, anyio.move_on_after(timeout) as deadline:
        # shielded: a process must not be lost between its start and the code that will kill it
        with anyio.CancelScope(shield=True):
            process, left, feed, taps = await _start(argv, env, cwd, ours, feed=bool(stdin))
        settled = False
        try:
            async with anyio.create_task_group() as tasks:
                if feed is not None:
                    tasks.start_soon(_feed, feed, stdin)
                async with anyio.create_task_group() as readers:
                    for tap, kept in zip(taps, (stdout, stderr), strict=True):
                        readers.start_soon(_drain, tap, kept, max_output, readers.cancel_scope)
                if max(len(stdout), len(stderr)) <= max_output:
                    await process.wait()
                    settled = True
                tasks.cancel_scope.cancel()  # a program that ended will not read the rest of its input
        finally:
            if not settled:
                await _kill(process, left)
    overflowed = "stdout" if len(stdout) > max_output else "stderr" if len(stderr) > max_output else None
    return Finished(process.returncode, bytes(stdout), bytes(stderr), deadline.cancelled_caught, overflowed)


async def _start(
    argv: Sequence[str], env: Mapping[str, str], cwd: str | None, ours: ExitStack, *, feed: bool
) -> tuple[Process, Left, FileIO | None, tuple[FileIO, FileIO]]:
    """Start the program; return its process, its note, and our ends of stdin and of (stdout, stderr).

    `ours` closes these ends. The pipes are our own, not the event loop's, which would keep them, and the wait
    for the child, open for as long as a grandchild holds the other end.
    """
    with ExitStack() as theirs:
        stdout, child_stdout = _pipe(ours, theirs)
        stderr, child_stderr = _pipe(ours, theirs)
        child_stdin, stdin = _pipe(theirs, ours) if feed else (None, None)
        started = ours.enter_context(noted(child_stdout.fileno(), child_stderr.fileno()))
        process = await anyio.open_process(
            argv,
            stdin=DEVNULL if child_stdin is None else child_stdin,
            stdout=child_stdout,
            stderr=child_stderr,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
        left = started(process.pid)
    return process, left, stdin, (stdout, stderr)


def _pipe(readers: ExitStack, writers: ExitStack) -> tuple[FileIO, FileIO]:
    read_end, write_end = os.pipe()
    reader = readers.enter_context(os.fdopen(read_end, "rb", buffering=0))
    writer = writers.enter_context(os.fdopen(write_end, "wb", buffering=0))
    return reader, writer


async def _feed(pipe: FileIO, data: bytes) -> None:
    """Write all of `data` and close the pipe. A program need not read it."""
    os.set_blocking(pipe.fileno(), False)
    rest = memoryview(data)
    with suppress(BrokenPipeError), pipe:
        while rest:
            await anyio.wait_writable(pipe)
            rest = rest[pipe.write(rest) or 0 :]


async def _drain(pipe: FileIO, kept: bytearray, most: int, everyone: anyio.CancelScope) -> None:
    """Read until the end of the pipe, or until more than `most` bytes arrived, which stops all tasks."""
    os.set_blocking(pipe.fileno(), False)
    while len(kept) <= most:
        await anyio.wait_readable(pipe)
        chunk = pipe.read(_CHUNK)
        if chunk == b"":
            return
        kept += chunk or b""
    everyone.cancel()


async def _kill(process: Process, left: Left) -> None:
    """Kill the child and all that it started, and reap it, however often we are cancelled meanwhile."""
    with anyio.move_on_after(_REAP_SECONDS, shield=True):  # it may sit in the kernel, where nothing kills it
        try:
            end = functools.partial(end_all, [left], at_once=True)
            await anyio.to_thread.run_sync(end, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))
        finally:
            # The child leads its own session, so its group has its pid. The group is signalled even when the
            # child has ended: what holds its pipes open is in it. The pid is not used anew while the group exists.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
        await process.wait()
