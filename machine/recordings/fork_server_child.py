"""The process that is copied: it loads a plan, and a copy of it replays each requested order.

What the plan prints goes to stderr: stdout holds only the answers.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import anyio

from machine import canonical, codec
from machine.engine.transports_and_catalogue import Provided
from machine.errors import MachineError
from machine.plan import Plan
from machine.recordings.bundle import Bundle, open_bundle
from machine.recordings.replay import replay_in
from machine.target import load

_THREADS = Path("/proc/self/task")


def main() -> None:
    """Read the job and then one order after another from stdin, and answer each with a line."""
    with os.fdopen(os.dup(0), "rb") as questions, os.fdopen(os.dup(1), "wb") as answers:
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - not a user's file
            os.dup2(nothing.fileno(), 0)
        os.dup2(2, 1)
        try:
            job: dict[str, Any] = canonical.decode(questions.readline())
            plan = load(job["target"]["spec"], job["target"]["directory"]).plan
            bundle = open_bundle(job["bundle"])
        except MachineError as exc:
            _say(answers, {"problem": exc.message})
            return
        # a copy has a single thread: if the plan started others, this process itself replays, and only once
        copied = _threads() == 1
        for line in questions:
            order = tuple(canonical.decode(line)["order"])
            if not copied:
                _say(answers, {**_replayed(plan, bundle, job, order), "last": True})
                return
            _copy(answers, plan, bundle, job, order)


def _threads() -> int:
    """Return the number of threads, including those unknown to Python where the system counts them."""
    return len(list(_THREADS.iterdir())) if _THREADS.exists() else threading.active_count()


def _copy(
    answers: BinaryIO, plan: Plan, bundle: Bundle, job: Mapping[str, Any], order: tuple[int, ...]
) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        if status:
            code = os.waitstatus_to_exitcode(status)
            _say(answers, {"problem": f"the replay ended its process (exit code {code})"})
        return
    code = 1
    try:
        _say(answers, {**_replayed(plan, bundle, job, order), "last": False})
        code = 0
    finally:
        os._exit(code)  # clean-up of the copied process must not run here


def _replayed(
    plan: Plan, bundle: Bundle, job: Mapping[str, Any], order: tuple[int, ...]
) -> Mapping[str, Any]:
    async def replayed() -> Any:
        return await replay_in(
            order,
            bundle.run_id,
            plan.graph,
            bundle.store,
            provided=Provided.of(plan, None, None),
            undeclared_io=job["undeclared_io"],
        )

    try:
        return {"result": codec.to_json(anyio.run(replayed))}
    except MachineError as exc:
        return {"problem": exc.message}
    except BaseException as exc:  # noqa: BLE001 - a handler may end its process in any way
        return {"problem": f"{type(exc).__qualname__}: {exc}".rstrip(": ")}


def _say(answers: BinaryIO, value: Mapping[str, Any]) -> None:
    answers.write(canonical.encode(value) + b"\n")
    answers.flush()


if __name__ == "__main__":
    main()
