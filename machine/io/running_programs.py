"""Notes of the programs that this process runs, so that none of them outlives it.

A program is recorded before it starts, in a file that the watcher of this process and the next driver of the run
find (`orphaned_programs`). The kernel's own signal for the death of a parent would not do: it follows the thread
that started the program, reaches no grandchild, and needs code of ours between fork and exec.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Final

import anyio

from machine import process_identity
from machine.errors import Code, RunError
from machine.io.orphaned_programs import Left, end_all, folder_at, folders, left_in

run_of_programs: ContextVar[str] = ContextVar("run_of_programs", default="none")
"""The id of the run for which programs are started in this context."""

_START_WATCHER: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from machine.io.program_watcher import main; main()"
)
# The shell ends at once, so the watcher is no child of ours: code that waits for any child must not get it.
_DETACHED: Final = ("/bin/sh", "-c", 'exec 3<&0; "$@" 0<&3 3<&- &', "sh")
_SECONDS_TO_START: Final = 10.0


@contextlib.contextmanager
def noted(*outputs: int) -> Iterator[Callable[[int], Left]]:
    """Record a program that is about to be started; the yielded function takes its pid immediately afterwards.

    `outputs` are the writing ends of the pipes that only the program will have. The context is left when the
    program has ended, and its note is removed then. Where no note can be written the program runs all the same.
    """
    pipes = tuple(os.fstat(each).st_ino for each in outputs)
    fd, file = _process.note(pipes) or (None, None)

    def started(pid: int) -> Left:
        start = process_identity.start_of(pid) or process_identity.UNKNOWN
        if fd is not None:
            with contextlib.suppress(OSError):
                os.write(fd, f"{pid} {start}\n".encode())
        return Left(None, os.getpid(), process_identity.UNKNOWN, pipes, pid, start)

    try:
        yield started
    finally:
        if fd is not None and file is not None:
            with contextlib.suppress(OSError):
                os.close(fd)
                file.unlink()


async def end_left(run_id: str) -> None:
    """End the programs that dead drivers of a run have left, and wait until they are gone.

    Raises `RunError` (`program_left`) when one of them does not end: another copy must not run concurrently.
    """
    left = left_in(run_id)
    if left and (staying := await anyio.to_thread.run_sync(end_all, left)):
        pids = [program.pid for program in staying if program.pid is not None]
        raise RunError(
            f"a program that the last driver of run {run_id} had started still runs, and cannot be ended"
            + (f": process {', '.join(map(str, pids))}" if pids else ""),
            code=Code.PROGRAM_LEFT,
            retryable=True,
            details={"run_id": run_id, "pids": pids},
            hint="nothing was written; end it, or wait until it has ended, and resume the run",
        )


class _Process:
    """This process as a driver of programs: the folder of its notes, and its watcher."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._folder: Path | None = None
        self._head: dict[str, object] = {}
        self._lifeline: int | None = None
        """Our end of the pipe to the watcher, closed when this process ends."""

    def note(self, pipes: tuple[int, ...]) -> tuple[int, Path] | None:
        """Create the file that notes a program about to start; return its descriptor and path.

        Return None where the file cannot be written.
        """
        try:
            with self._lock:
                if self._folder is None:
                    self._begin()
            assert self._folder is not None
            file = self._folder / f"{run_of_programs.get()}.{os.getpid()}.{next(self._numbers)}"
            text = json.dumps({**self._head, "outputs": pipes})
            fd = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except OSError:
            return None
        with contextlib.suppress(OSError):
            os.write(fd, text.encode() + b"\n")
        return fd, file

    def _begin(self) -> None:
        folder = next(folders(), None) or _made()
        start = process_identity.start_of(os.getpid()) if process_identity.sees_itself() else None
        self._head = {
            "here": [process_identity.boot_id(), process_identity.namespaces()],
            "driver": os.getpid(),
            "driver_start": start or process_identity.UNKNOWN,
        }
        self._folder = folder
        if sys.executable and not getattr(sys, "frozen", False):
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                self._watch(folder)

    def _watch(self, folder: Path) -> None:
        theirs, self._lifeline = os.pipe()
        root = str(Path(__file__).parents[2])
        named = [root, str(folder), str(self._head["driver"]), str(self._head["driver_start"])]
        try:
            subprocess.run(  # noqa: S603 - ours
                [*_DETACHED, sys.executable, "-I", "-S", "-c", _START_WATCHER, *named],
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
                check=False,
                timeout=_SECONDS_TO_START,
            )
        finally:
            os.close(theirs)

    def forget(self) -> None:
        """Reset the state in a forked process: it is another driver, and must not hold this one's lifeline."""
        if self._lifeline is not None:
            os.close(self._lifeline)
        self.__init__()  # type: ignore[misc]


def _made() -> Path:
    place = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    folder = folder_at(place)
    folder.mkdir(0o700)  # raises when the watcher is alive, because it is not our child
    return folder


_process = _Process()
os.register_at_fork(after_in_child=_process.forget)
