"""What every contender's program shares: it does one task in the current directory and prints one JSON line.

A contender runs in a process of its own, so that its imports, its memory and its calls of fdatasync are its own.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from payload import result

WARM = 20
"""Steps that a contender runs before those that are timed, in the same store."""

BODY = json.dumps(result(0)).encode()


def main(*tasks):
    """Do the task that the command line names, with its `name=value` arguments, and print what it returns."""
    name, *pairs = sys.argv[1:]
    options = {
        key: int(value) if value.isdigit() else value for key, _, value in (p.partition("=") for p in pairs)
    }
    told = {task.__name__: task for task in tasks}[name](**options)
    print(json.dumps(told or {}), flush=True)
    os._exit(0)  # what a peer does in its last moments is not asked


@contextmanager
def stopwatch(steps, into):
    """Put the microseconds, those of the processor, and the calls of fdatasync a step into a dictionary."""
    gc.collect()
    synced = syncs()
    start, busy = time.perf_counter(), time.process_time()
    yield
    into["us"] = (time.perf_counter() - start) / steps * 1e6
    into["cpu"] = (time.process_time() - busy) / steps * 1e6
    if synced is not None:
        into["syncs"] = (syncs() - synced) / steps


def syncs():
    """Return how often this process has called fsync or fdatasync, None when nobody counts."""
    counter = getattr(ctypes.CDLL(None), "benchmark_syncs", None)
    return None if counter is None else counter()


def stored(name, steps):
    """Return the bytes a step of a closed database, of a timed run and the one before it."""
    return sum(path.stat().st_size for path in Path().glob(f"{name}*")) / (steps + WARM)


def memory_mb(what):
    """Return what memory this process holds (`VmRSS`) or has held at the most (`VmHWM`), in MB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition(f"{what}:")[2].split()[0]) / 1024


def forget_peak():
    """Let `VmHWM` begin again from what is held now."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
        self.wfile.write(
            head.encode() + BODY
        )  # in one write: two would wait for each other's acknowledgement

    def log_message(self, *_):
        pass


@contextmanager
def server():
    """Run a server on the loopback for as long as the block lasts; its address."""
    answering = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=answering.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{answering.server_address[1]}"
    finally:
        answering.shutdown()
