"""Plain functions of steps in other processes, which are killed when their step is interrupted.

A process is started when none is idle, and used again. It ends with this process, however that ends.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import subprocess
import sys
import threading
from functools import partial
from typing import Any, Final

from machine.errors import Code, StepError
from machine.io.function_names import reference_of
from machine.io.step_function import Step
from machine.io.step_threads import StepThread, call_in_thread

_MOST_IDLE: Final = 4
_LENGTH: Final = 8


class StepProcess:
    """One process that calls functions, one after another."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "machine.io.step_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def ask(self, message: bytes) -> Any:
        """Send a message and return the answer. Raises `EOFError` and `OSError` when the process dies."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        send(self._process.stdin, message)
        return pickle.loads(receive(self._process.stdout))  # noqa: S301 - of our own process

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()
        self._process.wait()


_idle: Final[list[StepProcess]] = []
_lock: Final = threading.Lock()


@atexit.register
def end_idle() -> None:
    """End the processes that wait for work."""
    with _lock:
        while _idle:
            _idle.pop().kill()


def send(stream: Any, data: bytes) -> None:
    """Write one message."""
    stream.write(len(data).to_bytes(_LENGTH, "big") + data)
    stream.flush()


def receive(stream: Any) -> bytes:
    """Read one message. Raises `EOFError` at the end."""
    size = stream.read(_LENGTH)
    data: bytes = stream.read(int.from_bytes(size, "big")) if len(size) == _LENGTH else b""
    if len(size) < _LENGTH or len(data) < int.from_bytes(size, "big"):
        raise EOFError
    return data


async def call_in_process(
    step: Step, call: partial[Any], place: tuple[str, str], *, waits: bool
) -> tuple[Any, StepError | None, bool]:
    """Call a function in another process; return its response or its failure, and whether that is one to retry.

    All three are None and False when it takes too long. Without `waits` this thread waits for it.
    """
    reference = reference_of(step.function, call)
    message = pickle.dumps((reference, {**step.given, "name": step.name}))
    with _lock:
        process = _idle.pop() if _idle else None
    process = process or StepProcess()
    ask = partial(process.ask, message)
    ended = False
    thread: StepThread | None
    try:
        # the time of the step does not count while its process starts and imports the module
        ready = partial(process.ask, pickle.dumps(reference[:2]))
        if waits:
            await call_in_thread(step.name, ready, place, None)
        else:
            StepThread(step.name, ready).ended.wait()
        if waits:
            thread = await call_in_thread(step.name, ask, place, step.timeout)
        else:
            thread = StepThread(step.name, ask)
            thread = thread if thread.ended.wait(step.timeout) else None
        ended = thread is not None and thread.raised is None
    finally:
        if not ended:
            process.kill()
    if thread is None:
        return None, None, False
    if isinstance(thread.raised, EOFError | OSError):
        died = StepError(f"the process that ran {step.name} died", code=Code.STEP_FAILED, retryable=True)
        return None, died, False
    if thread.raised is not None:
        raise thread.raised
    with _lock:
        kept = len(_idle) < _MOST_IDLE
        if kept:
            _idle.append(process)
    if not kept:
        process.kill()
    answer: tuple[Any, StepError | None, bool] = thread.value
    return answer
