"""Worker processes: many items processed on several cores; a worker that dies fails a single item.

A worker is given a few items and answers each separately, so the item it was processing is known.
Only this process receives Ctrl-C and kills its workers: they write nothing, so nothing is left half done.
Workers that drive runs are notified instead, and have time to stop.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final

import attrs

from machine.cli.recorded_run_item import Elsewhere, Item, Look, Outcome
from machine.errors import Code, RunError

_MOST_AT_ONCE: Final = 32
_SECONDS_TO_LEAVE: Final = 2.0
_SECONDS_TO_STOP: Final = 20.0
_READY: Final = None
_ENDED: Final = "its handlers, or the modules they import, end their process"
_SPARED: Final = "it can be resumed as often as the `recoveries` of its state allow"


def cores() -> int:
    """Return the number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def in_this_process(look: Look, items: Sequence[Item]) -> Generator[tuple[int, Outcome], None, None]:
    """Yield the outcome of each item with its index; those that need another process get one, at the end."""
    elsewhere: dict[str | None, deque[int]] = {}
    try:
        for index, item in enumerate(items):
            outcome = look.at(item)
            if isinstance(outcome, Elsewhere):
                elsewhere.setdefault(outcome.place, deque()).append(index)
            else:
                yield index, outcome
    finally:
        look.close()
    if elsewhere:
        yield from _Pool(attrs.evolve(look), items, 1, elsewhere).outcomes()


def in_processes(look: Look, items: Sequence[Item], jobs: int) -> Generator[tuple[int, Outcome], None, None]:
    """Yield the outcome of each item with its index as it comes; `jobs` processes work on them."""
    longest_first = sorted(range(len(items)), key=lambda index: not items[index].is_store)
    return _Pool(look, items, jobs, {None: deque(longest_first)}).outcomes()


@attrs.define(eq=False)
class _Worker:
    process: BaseProcess
    connection: Connection
    place: str | None
    """The place of its plan, or None before it has loaded one."""
    given: deque[int] = attrs.field(factory=deque)
    """Its unanswered items, in order."""
    ready: bool = False


class _Pool:
    def __init__(
        self, look: Look, items: Sequence[Item], jobs: int, waiting: dict[str | None, deque[int]]
    ) -> None:
        self.look = look
        self.items = items
        self.jobs = jobs
        self.waiting = waiting  # by place; the key None is for items of unknown place
        self.workers: list[_Worker] = []

    def outcomes(self) -> Generator[tuple[int, Outcome], None, None]:
        try:
            self.hand_out()
            while self.workers:
                for worker in self.heard():
                    yield from self.answers(worker)
                self.hand_out()
        finally:
            self.stop()

    def stop(self) -> None:
        """End all remaining workers; those that drive runs are asked to stop first."""
        try:
            if self.look.drives:
                for worker in self.workers:
                    if worker.process.pid is not None:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(worker.process.pid, signal.SIGINT)
                deadline = time.monotonic() + _SECONDS_TO_STOP  # for all of them: they stop at the same time
                for worker in self.workers:
                    worker.process.join(max(deadline - time.monotonic(), 0))
        finally:
            for worker in self.workers:
                worker.process.kill()
            for worker in self.workers:
                self.end(worker)

    def heard(self) -> list[_Worker]:
        """Wait until a worker answers or dies, and return those that did."""
        found = set(wait([end for one in self.workers for end in (one.connection, one.process.sentinel)]))
        return [one for one in self.workers if {one.connection, one.process.sentinel} & found]

    def answers(self, worker: _Worker) -> Generator[tuple[int, Outcome], None, None]:
        try:
            answer: Outcome | Elsewhere | None
            answer = worker.connection.recv() if worker.connection.poll() else self.dead(worker)
        except (EOFError, OSError):
            answer = self.dead(worker)
        if answer is _READY:
            worker.ready = True
            return
        index = worker.given.popleft()
        if isinstance(answer, Elsewhere):
            self.waiting.setdefault(answer.place, deque()).append(index)
            return
        worker.place = worker.place or answer.place
        if worker not in self.workers:  # it died, and leaves its remaining items to another
            self.waiting.setdefault(worker.place, deque()).extendleft(reversed(worker.given))
        yield index, answer

    def dead(self, worker: _Worker) -> Outcome:
        """Return the outcome of the item that a worker was processing when it died."""
        self.workers.remove(worker)
        self.end(worker)
        code = worker.process.exitcode
        killed = code is not None and code < 0
        how = f"was killed by signal {-(code or 0)}" if killed else f"ended with exit code {code}"
        if not worker.ready:
            raise RunError(
                f"a worker process {how} before it began",
                code=Code.WORKER_DIED,
                hint="a script that calls the command line must do so under `if __name__ == '__main__':`",
            )
        name = self.items[worker.given[0]].name
        did, hint = (
            ("drove", f"{self.look.session.command('show', name)} says how far it came; {_SPARED}")
            if self.look.drives
            else ("looked at", _ENDED)
        )
        return Outcome.failed(
            RunError(
                f"the process that {did} {name} {how}",
                code=Code.WORKER_DIED,
                details={"run": name, "exit_code": code},
                hint=hint,
            ),
            worker.place,
        )

    def hand_out(self) -> None:
        """Give work to idle workers, stop those without work, and start new ones up to `jobs`."""
        for worker in [one for one in self.workers if not one.given]:
            if not self.give(worker):
                self.workers.remove(worker)
                self.end(worker)
        while len(self.workers) < self.jobs and (
            left := [place for place in self.waiting if self.waiting[place]]
        ):
            busy = {worker.place for worker in self.workers}
            self.give(self.hire(next((place for place in left if place not in busy), left[0])))

    def give(self, worker: _Worker) -> bool:
        queue = self.waiting.get(worker.place) or self.waiting.get(None)
        if not queue:
            return False
        alone = self.look.drives or self.items[queue[0]].is_store  # which takes long
        few = 1 if alone else max(1, min(_MOST_AT_ONCE, len(queue) // (4 * self.jobs)))
        worker.given = deque(queue.popleft() for _ in range(few))
        with contextlib.suppress(OSError):  # it is dead, which is noticed next
            worker.connection.send([self.items[index] for index in worker.given])
        return True

    def hire(self, place: str | None) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self.look))
        # Workers ignore Ctrl-C. A new worker inherits the signal mask, since one that is still starting would die
        # of Ctrl-C with a traceback. The resource tracker, started with the first worker, would clear the mask.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
            worker = _Worker(process, ours, place)
            self.workers.append(worker)  # a Ctrl-C in the meantime is delivered after this, and kills it too
        finally:
            theirs.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return worker

    def end(self, worker: _Worker) -> None:
        """Wait for an idle worker to end; one whose threads do not end is killed."""
        worker.connection.close()
        worker.process.join(_SECONDS_TO_LEAVE)
        worker.process.kill()
        worker.process.join()


def _work(connection: Connection, look: Look) -> None:
    """Process items until there are no more, or the parent is gone."""
    threading.Thread(target=_end_with_parent, name="machine worker's parent", daemon=True).start()
    try:
        if look.drives:
            os.setpgid(0, 0)  # the terminal's Ctrl-C reaches a worker through its parent, once
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        else:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        connection.send(_READY)
        while True:
            for item in connection.recv():
                connection.send(look.at(item))
    except (EOFError, OSError, KeyboardInterrupt):
        pass
    finally:
        look.close()


def _end_with_parent() -> None:
    """End this process when its parent dies, whatever a handler is doing."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
