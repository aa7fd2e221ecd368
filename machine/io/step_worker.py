"""The other process of steps with `on="process"`: `python -m machine.io.step_worker`.

It reads messages from standard input and writes answers to what was standard output; what functions print goes to
standard error. It ends when standard input does, even while a function runs.
"""

from __future__ import annotations

import functools
import os
import pickle
import queue
import sys
import threading
from typing import Any

from machine.errors import StepError
from machine.io.function_names import load_module, resolved_reference
from machine.io.step_errors import failure_of
from machine.io.step_function import Step
from machine.io.step_processes import receive, send
from machine.io.step_results import response_of


def main() -> None:
    """Answer messages until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    messages: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_read, args=(messages,), daemon=True).start()
    while True:
        failed = _import_failure(messages.get())
        send(answers, pickle.dumps(failed))
        message = messages.get()
        send(answers, pickle.dumps(_answered(message) if failed is None else (None, failed, False)))


def _read(messages: queue.Queue[bytes]) -> None:
    try:
        while True:
            messages.put(receive(sys.stdin.buffer))
    except (EOFError, OSError):
        os._exit(1)  # whoever waited for the function has gone


def _import_failure(message: bytes) -> StepError | None:
    """Import the module of a function; return the error when that fails."""
    try:
        load_module(*pickle.loads(message))  # noqa: S301 - of the process that started this one
    except BaseException as exc:  # noqa: BLE001 - importing the user's module may raise anything
        return failure_of(exc, main, ())
    return None


def _answered(message: bytes) -> tuple[Any, StepError | None, bool]:
    try:
        reference, given = pickle.loads(message)  # noqa: S301 - of the process that started this one
        call: functools.partial[Any] = resolved_reference(reference)
        step = Step.of(call.func, decorates=True, **given)
    except Exception as exc:  # noqa: BLE001 - reading classes of the user's may raise anything
        return None, failure_of(exc, main, ()), False
    try:
        value = call()
    except BaseException as exc:  # noqa: BLE001 - a function may raise anything
        return None, failure_of(exc, step.function, step.raises), isinstance(exc, step.retry_on)
    try:
        return response_of(step, value), None, False
    except StepError as exc:
        return None, exc, False


if __name__ == "__main__":
    main()
