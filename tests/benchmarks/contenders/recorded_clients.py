"""Unmodified programs, one a client: as they are, recorded in a run, and replayed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from client_programs import PROGRAMS, plan_of
from stage import main, stopwatch

from machine import open_store, replay, run

SLOW_SERVER = Path(__file__).with_name("slow_server.py")
WARM = 5


@contextmanager
def slow_server(milliseconds):
    """Run the server for as long as the block lasts; its ports."""
    command = [sys.executable, str(SLOW_SERVER), str(milliseconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield json.loads(process.stdout.readline())
        process.stdin.close()


def bare(name, calls):
    """Run a program as it is."""
    program, _ = PROGRAMS[name]
    told = {}

    def go(count):
        running = program(ports, count)
        if running is not None:
            asyncio.run(running)

    with slow_server(5) as ports:
        go(WARM)
        with stopwatch(calls, told):
            go(calls)
    return told


def recorded(name, calls):
    """Run a program in a recorded run, with a store on disk; what begins and ends the run counts."""
    told = {}
    with slow_server(5) as ports, open_store("calls.db") as store:
        run(plan_of(name, ports, WARM), store=store)
        plan = plan_of(name, ports, calls)
        with stopwatch(calls, told):
            result = run(plan, store=store)
        assert result.error is None, result.error
    return told


def imported(name):
    """Run a program that makes no call: it imports its library."""
    with open_store("memory://") as store:
        run(plan_of(name, {"http": 1, "redis": 1, "grpc": 1}, 0), store=store)


def record_calls(name, calls):
    """Record a program whose server answers at once."""
    with slow_server(0) as ports, open_store("calls.db") as store:
        result = run(plan_of(name, ports, calls), store=store)
        assert result.error is None, result.error
    Path("run.json").write_text(json.dumps([result.run_id, ports]), encoding="ascii")


def replay_calls(name, calls):
    """Replay it, without a server, when all it needs is imported."""
    run_id, ports = json.loads(Path("run.json").read_text(encoding="ascii"))
    told = {}
    with open_store("calls.db") as store:
        plan = plan_of(name, ports, calls)
        imported(name)
        with stopwatch(calls, told):
            assert replay(run_id, plan=plan, store=store).identical
    return told


if __name__ == "__main__":
    main(bare, recorded, record_calls, replay_calls)
