"""Plain-function handlers, each in a thread of its own that is abandoned when the attempt is interrupted.

The thread is a daemon, so that a handler that hangs for ever cannot keep the process alive.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

import anyio
from anyio import from_thread
from anyio.lowlevel import current_token

from machine.watch.watch import in_step


async def call_in_thread(name: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call `function` in a new thread named `name`, and return or raise its result.

    Cancelling abandons the thread.
    """
    token = current_token()
    done = anyio.Event()
    context = contextvars.copy_context()
    result: list[Any] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            result.append(in_step(context, context.run, function, *args))
        except BaseException as exc:  # noqa: BLE001 - raised again on the event loop's side
            failure.append(exc)
        try:
            from_thread.run_sync(done.set, token=token)
        except RuntimeError:  # the loop has gone: the attempt was abandoned and nobody waits
            return

    threading.Thread(target=work, name=f"machine {name}", daemon=True).start()
    await done.wait()
    if failure:
        raise failure[0]
    return result[0]
