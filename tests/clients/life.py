"""Forks processes that run, kill, resume, replay and test the plan in a file; a program of its own.

It imports everything once, before any thread exists, so a fork is cheap and safe. It reads one JSON object a line
and answers each with one; what `kit.Program` asks for is listed there. It ends when its input does.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import signal
import sys
import traceback
from collections import Counter
from pathlib import Path

import pytest

import machine
import machine.testing.golden
from machine import open_store
from machine.cli import main as command
from machine.codec import decode_entry
from machine.stores import SqliteStore

PLUGINS = (
    *("-p", "machine.testing.plugin", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # loaded before, on purpose
)
LONGEST = 60


def killing(kill):
    """Let this process be killed as soon as the store has that many entries of these kinds."""
    seen, append = Counter(), SqliteStore.append

    def counted(store, run_id, expected_seq, events, *args, **options):
        append(store, run_id, expected_seq, events, *args, **options)
        seen.update(type(decode_entry(event.seq, event.data).event).__name__ for event in events)
        if all(seen[kind] >= count for kind, count in kill.items()):
            os.kill(os.getpid(), signal.SIGKILL)

    SqliteStore.append = counted


def drive(order, plan):
    """Run a plan, or resume its run."""
    if order.get("kill"):
        killing(order["kill"])
    with open_store(order["store"]) as store:
        if order["do"] == "resume":
            result = machine.resume(order["run_id"], plan=plan, store=store)
        else:
            # what was handed out is durable, so a kill at an outcome is before the next request
            config = machine.RunConfig(durability="facts")
            result = machine.run(
                plan, store=store, run_id=order["run_id"], input=order["input"], config=config
            )
        error = None if result.error is None else repr(result.error)
        return {"status": result.status, "context": dict(result.context), "error": error}


def said(function):
    """Call a function that prints and ends with an exit code."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            code = function()
        except SystemExit as end:
            code = end.code
    return {"code": int(code or 0), "said": output.getvalue()}


def obey(order, plan):
    match order["do"]:
        case "run" | "resume":
            return drive(order, plan)
        case "machine":
            return said(lambda: command(order["args"]))
        case "pytest":
            return said(lambda: pytest.main([*PLUGINS, *order["args"]]))


def child(order, channel, plan):
    """Obey, answer, end."""
    signal.alarm(LONGEST)
    try:
        answer = obey(order, plan)
    except BaseException:  # noqa: BLE001 - whatever it was is told
        answer = {"failed": traceback.format_exc()}
    data = json.dumps({**answer, "modules": list(sys.modules)}).encode()
    while data:
        data = data[os.write(channel, data) :]
    os._exit(0)


def one_life(order, plan):
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        child(order, theirs, plan)
    os.close(theirs)
    with open(ours, "rb") as channel:  # noqa: PTH123 - it is no path
        answer = channel.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return {"killed": os.WTERMSIG(status)}
    found = json.loads(answer)
    for name in found.pop("modules"):
        if name.partition(".")[0] in PRELOADED:  # what is loaded late is loaded once
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    return found


PRELOADED = {"machine", "_pytest", "anyio", "httpx", "httpcore", "rich", "cyclopts"}


def main():
    path = Path(sys.argv[1])
    sys.path.insert(0, str(path.parent))
    plan = importlib.import_module(path.stem).plan
    for line in sys.stdin:
        print(json.dumps(one_life(json.loads(line), plan)), flush=True)


if __name__ == "__main__":
    main()
