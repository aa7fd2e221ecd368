"""Forks processes that drive a run of the plan in a file, and kills each after the delay it is told.

A program of its own, started with `subprocess`: it imports everything once and has a single thread, so that a
fork is cheap and safe. It reads one JSON object a line (`store`, `run_id`, `input`, `config`, `delay` in seconds
or null, `after` how many effects have returned) and answers each with one (`killed`, `returned`, `result`,
`error`). It ends when its input does. A plan that has a variable NOTES is given a file descriptor there, on which
it writes a line for each effect that has returned.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import select
import signal
import sys
import time
import traceback
from pathlib import Path

import machine
from machine import RunConfig, open_store
from machine.errors import NotFoundError

LONGEST = 30.0
PR_SET_CHILD_SUBREAPER = 36


def plan_of(path):
    """Return the module at a path that holds the plan."""
    sys.path.insert(0, str(path.parent))
    return importlib.import_module(path.stem)


def drive(order):
    """Continue the run, or start it when nothing of it is there. This is what is killed."""
    with open_store(order["store"]) as store:
        try:
            result = machine.resume(order["run_id"], plan=driven.plan, store=store)
        except NotFoundError:
            if hasattr(driven, "start"):  # a plan that is not simply run
                result = driven.start(order, store)
                return {"status": result.status, "context": dict(result.context), "digest": result.digest}
            result = machine.run(
                driven.plan,
                store=store,
                run_id=order["run_id"],
                input=order["input"],
                config=RunConfig(**order["config"]),
            )
    return {"status": result.status, "context": dict(result.context), "digest": result.digest}


def live(order, channel):
    """Be the child: drive, say how it went, end."""
    try:
        answer = {"result": drive(order), "modules": list(sys.modules)}
    except BaseException:  # noqa: BLE001 - whatever it was is told
        answer = {"error": traceback.format_exc()}
    data = json.dumps(answer).encode()
    while data:
        data = data[os.write(channel, data) :]
    os._exit(0)


def one_life(order):
    """Fork a child, kill it after the delay if it still lives, and reap it."""
    ours, theirs = os.pipe()
    notes, writes = os.pipe()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        driven.NOTES = writes
        live(order, theirs)
    os.close(theirs)
    os.close(writes)
    returned = b""
    try:
        delay = LONGEST if order["delay"] is None else order["delay"]
        while returned.count(b"\n") < order["after"]:
            ready, _, _ = select.select([ours, notes], [], [], LONGEST)
            returned += os.read(notes, 65536) if notes in ready else b""
            if ours in ready:
                break
        ended, _, _ = select.select([ours], [], [], delay)
        if not ended:
            os.kill(pid, signal.SIGKILL)
        told = b"".join(iter(lambda: os.read(ours, 65536), b""))
        returned += b"".join(iter(lambda: os.read(notes, 65536), b""))
    finally:
        os.close(ours)
        os.close(notes)
        with contextlib.suppress(ProcessLookupError):
            if sys.exc_info()[0] is not None:
                os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    answer = {} if killed else json.loads(told or b"{}")
    if not killed and not answer:
        answer["error"] = f"ended with status {status} and said nothing"
    for name in answer.pop("modules", []):
        importlib.import_module(
            name
        )  # what is loaded late is loaded once, so that a life is spent on the run
    if killed and order["delay"] is None:
        answer["error"] = f"not done after {LONGEST} seconds"
    seconds, keys = time.monotonic() - began, returned.decode().split()
    return {"killed": killed, "seconds": seconds, "returned": keys, "result": None, "error": None, **answer}


def reap_orphans(options):
    """Reap the programs that killed children left behind: they are ours when nobody else has them."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, options)[0]:
            pass


def main():
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _ = driven.plan.graph  # built once, for all
    for line in sys.stdin:
        answer = one_life(json.loads(line))
        # where the next life asks what became of a program, that must have ended
        reap_orphans(0 if getattr(driven, "WAITS_FOR_PROGRAMS", False) else os.WNOHANG)
        print(json.dumps(answer), flush=True)
    reap_orphans(0)


if __name__ == "__main__":
    driven = plan_of(Path(sys.argv[1]))
    main()
