"""A pool of workers is left within a time that does not grow with their number."""

from __future__ import annotations

import multiprocessing
import time
from collections import deque

from machine.cli import worker_pool
from machine.cli.resume_all import Resuming

WORKERS = 4


class Stubborn:
    """A process that does not stop before it is killed."""

    pid = None
    killed = False

    def __init__(self, waited):
        self.waited = waited

    def join(self, seconds=None):
        if not self.killed:
            self.waited.append(seconds)
            time.sleep(seconds)

    def kill(self):
        self.killed = True


def test_all_workers_together_have_the_time_to_stop_that_one_has(monkeypatch):
    monkeypatch.setattr(worker_pool, "_SECONDS_TO_STOP", 0.2)
    waited = []
    look = Resuming.__new__(Resuming)
    assert look.drives
    workers = worker_pool._Pool(look, [], WORKERS, {None: deque()})
    for _ in range(WORKERS):
        ours, theirs = multiprocessing.Pipe()
        theirs.close()
        workers.workers.append(worker_pool._Worker(Stubborn(waited), ours, None))
    workers.stop()
    assert len(waited) == WORKERS
    assert sum(waited) <= 0.2
    assert all(worker.process.killed for worker in workers.workers)
