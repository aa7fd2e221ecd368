"""Processes that drive runs and are killed: the program that forks them, and what they did to the outside."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import attrs
from receiver import receiving

from machine import new_run_id
from machine.codec import decode_entry
from machine.stores import SqliteStore

__all__ = ["Undertaker", "entries", "loaded", "undertaker"]

SIGKILL_DRIVER = Path(__file__).parent / "engine" / "sigkill_driver.py"


def loaded(path):
    """Return a module of tests by its path: the tests are no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@attrs.define
class Undertaker:
    """The program that forks and kills, and what its children did to the outside."""

    directory: Path
    process: subprocess.Popen[str]
    server: object
    turn: threading.Lock  # held while a store is looked at from this process
    config: dict[str, str] = attrs.field(factory=dict)
    options: str = ""
    stores: dict[str, Path] = attrs.field(factory=dict)

    def begin(self):
        """Name a run, and the store file of its own that it will have."""
        run_id = str(new_run_id())
        self.stores[run_id] = self.directory / f"{run_id}.db"
        return run_id

    def one_life(self, run_id, delay, *, after=0):
        """Let one process drive the run, killed after `delay` seconds; None lets it be.

        The seconds count from when so many effects have returned in this life.
        """
        order = {
            "store": f"sqlite:///{self.stores[run_id]}{self.options}",
            "run_id": run_id,
            "input": {"url": self.server.url, "order": run_id, "ledger": str(self.ledger(run_id))},
            "config": self.config,
            "delay": delay,
            "after": after,
        }
        print(json.dumps(order), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        assert answer["error"] is None, answer["error"]
        return answer

    def ledger(self, run_id):
        """Return the file in which the programs of a run write."""
        return self.directory / f"{run_id}.ledger"

    def left(self, run_id):
        """Return the log as a kill left it, read from a copy: the next process must find what the kill left."""
        copy = self.directory / "copy"
        copy.mkdir()
        try:
            with self.turn:
                for path in self.directory.glob(f"{run_id}.db*"):
                    if not path.name.endswith("-shm"):
                        shutil.copy(path, copy)
            if not (copy / f"{run_id}.db").exists():
                return []
            with SqliteStore(copy / f"{run_id}.db") as store:
                return entries(store, run_id)
        finally:
            shutil.rmtree(copy)


def entries(store, run_id):
    return [decode_entry(event.seq, event.data) for event in store.read_range(run_id)]


@contextlib.contextmanager
def undertaker(directory, plan, **more):
    """Start the program that forks and kills, for the plan in a file, and a server that counts."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(receiving())
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, str(SIGKILL_DRIVER), str(plan)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(process.kill)  # when all went well it has ended already
        started = Undertaker(directory, process, server, threading.Lock(), **more)
        yield started
        process.stdin.close()
        assert process.wait(60) == 0, "it has reaped all its children and theirs"
