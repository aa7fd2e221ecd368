"""The kernel is pure: it imports and runs where clock, randomness, network and files are forbidden."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import machine.kernel

MODULES = sorted(module.name for module in pkgutil.iter_modules(machine.kernel.__path__, "machine.kernel."))

PROBE = """
import builtins, sys

# the standard library and the packages the kernel rests on may do as they like while they are loaded
import asyncio, base64, datetime, decimal, difflib, enum, functools, heapq, inspect, json, marshal, uuid
import attrs, blake3, cattrs, cattrs.gen, orjson, rfc8785

"".encode("utf-16-be"), "".encode("utf-16be")  # codecs are modules, loaded when first used

FORBIDDEN = {"time", "random", "socket", "secrets", "os", "io", "subprocess", "threading", "tempfile", "asyncio",
             "anyio", "httpx", "sqlite3", "pathlib"}
really_import = builtins.__import__


def guarded_import(name, globals=None, locals=None, fromlist=(), level=0):
    who = (globals or {}).get("__name__", "")
    if who.partition(".")[0] == "machine" and name.partition(".")[0] in FORBIDDEN:
        raise AssertionError(f"{who} imports {name}")
    return really_import(name, globals, locals, fromlist, level)


def refuse(*arguments, **keywords):
    raise AssertionError(f"opened {arguments}")


builtins.__import__ = guarded_import
builtins.open = refuse
for name in ("time", "random", "socket"):
    sys.modules[name] = None  # whoever imports it now gets an ImportError

import importlib

for name in sys.argv[1:]:
    importlib.import_module(name)

outside = [
    name
    for name in sys.modules
    if name.startswith(("machine.io", "machine.engine", "machine.stores", "machine.replay", "machine.cli"))
]
assert not outside, outside
if SABOTAGE:
    SABOTAGE()

from machine.canonical import artifact_id
from machine.codec import decode_entry, encode_event
from machine.config import ExponentialBackoff, RetryPolicy, RunConfig
from machine.errors import ErrorCategory, ErrorInfo
from machine.events import RetryScheduled, RunCompleted, RunStarted, StateCompleted, StateEntered, StateFailed, seal
from machine.kernel import decide as deciding, decisions as kernel
from machine.kernel.context import Context
from machine.kernel.history import History
from machine.kernel.snapshot import Snapshot
from machine.plan import Plan

events = []


def audit(event, arguments):
    if event.startswith(("open", "socket.", "os.", "subprocess.", "shutil.", "time.")):
        events.append((event, arguments))


sys.addaudithook(audit)


async def handler(ctx, io, rec):
    raise AssertionError("the kernel ran a handler")


plan = Plan("op")
first = plan.state("step.first")(handler)
plan.state("step.second", after=[first])(handler)
config = RunConfig(retry_policy=RetryPolicy(2, ExponentialBackoff(1, 2)))
artifacts = {}


def kept(update):
    snapshot, made = update
    artifacts.update((new.id, new.data) for new in made.values())
    return snapshot


snapshot = kept(Snapshot.empty(artifacts.__getitem__).update({"input": b"1", "large": b'"' + b"x" * 999 + b'"'}))
history = History()
failures = iter([True])


def emit(event):
    seq = history.head_seq + 1
    history.advance(decode_entry(seq, seal(seq, encode_event(event), "run", 7)))


while not isinstance(decision := deciding.decide(plan.graph, config, history), kernel.Done):
    match decision:
        case kernel.StartRun():
            emit(RunStarted("op", artifact_id(b"m"), plan.graph.plan_id, snapshot.id))
        case kernel.EnterState(state_id, attempt, base):
            emit(StateEntered(state_id, attempt, base))
            if next(failures, False):
                emit(StateFailed(state_id, ErrorInfo("mine", ErrorCategory.UNKNOWN, True, "it failed")))
                continue
            ctx = Context(Snapshot.open(base, artifacts.__getitem__))
            ctx[state_id] = {"seen": sorted(ctx)}
            ctx.write_typed("when", datetime.date(2024, 2, 29))
            ctx.check_copies()
            snapshot = kept(snapshot.update(ctx.staged))
            emit(StateCompleted(state_id, snapshot.id))
        case kernel.ScheduleRetry(state_id, attempt, delay_ms):
            emit(RetryScheduled(state_id, attempt, delay_ms))
        case kernel.CompleteRun(status, final):
            emit(RunCompleted(status.value, final))

assert not events, events
print(history.status, history.head_seq, history.digest(plan.graph.order))
"""


def probe(*, sabotage="None", hash_seed="0"):
    return subprocess.run(
        [sys.executable, "-P", "-c", f"SABOTAGE = {sabotage}\n{PROBE}", *MODULES],
        env={
            "PYTHONPATH": str(Path(machine.__file__).parent.parent),
            "PYTHONHASHSEED": hash_seed,
            "PATH": "",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_kernel_imports_and_drives_a_run_without_clock_randomness_network_and_files():
    done = probe()

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("completed 9 ")


def test_the_kernel_says_the_same_under_another_hash_seed():
    assert probe(hash_seed="1").stdout == probe(hash_seed="2").stdout != ""


@pytest.mark.parametrize(
    "sabotage",
    [
        "lambda: open('x')",
        "lambda: really_import('time')",
        "lambda: exec('import socket', {'__name__': 'machine.kernel.decide'})",
        "lambda: exec('from random import random', {'__name__': 'machine.plan'})",
    ],
)
def test_the_guards_of_this_test_hold(sabotage):
    assert probe(sabotage=sabotage).returncode != 0


def test_every_module_of_the_kernel_is_looked_at():
    names = {name.rpartition(".")[2] for name in MODULES}

    assert names >= {"context", "decide", "history", "snapshot", "run_status"}
