"""Programs that a driver left behind when it died: how to find and end them.

A driver keeps a small file for each program that it runs, in a folder of the user's own on this machine, and
removes it when the program has ended. A file whose driver is dead names a program that was left. This module is
also loaded by the watcher of a driver, so it uses the standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from machine import process_identity

_SECONDS_TO_END: Final = 10.0
_FIRST_LOOK_SECONDS: Final = 0.01
_LOOK_SECONDS: Final = 0.2
"""The longest time between two looks: each reads every descriptor of every process."""


class Left(NamedTuple):
    """A program as its driver recorded it: `pid` and `start` are None when the driver died while starting it."""

    file: Path | None
    driver: int
    driver_start: str
    outputs: tuple[int, ...]
    """The pipes that it writes to, by their inodes: no other process holds their writing ends."""
    pid: int | None
    start: str | None


def folders() -> Iterator[Path]:
    """Yield the folders that may hold notes: they belong to this user, and nobody else may enter them."""
    places = [os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{os.getuid()}", tempfile.gettempdir(), "/tmp"]  # noqa: S108 - made and checked by us
    for place in dict.fromkeys(filter(None, places)):
        folder = folder_at(place)
        with contextlib.suppress(OSError):
            found = folder.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
                yield folder


def folder_at(place: str) -> Path:
    """Return the folder for notes within a folder that this user may write to."""
    return Path(place, f"machine-{os.getuid()}")


def left_in(run_id: str) -> list[Left]:
    """Return the programs of a run whose drivers are dead."""
    if not process_identity.sees_itself():
        return []
    noted = [
        left for folder in folders() for left in _noted(folder, lambda name: name.startswith(f"{run_id}."))
    ]
    return [left for left in noted if process_identity.has_ended(left.driver, left.driver_start)]


def left_by(folder: Path, driver: int, start: str) -> list[Left]:
    """Return the programs noted in a folder by the driver with this pid and start time."""
    noted = _noted(folder, lambda name: name.split(".")[1:2] == [str(driver)])
    return [left for left in noted if left.driver_start == start]


def _noted(folder: Path, wanted: Callable[[str], bool]) -> Iterator[Left]:
    here = [process_identity.boot_id(), process_identity.namespaces()]
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(folder)):  # noqa: PTH208 - the names alone
            if wanted(name):
                lines = process_identity.read(folder / name).split("\n")
                with contextlib.suppress(ValueError, KeyError, TypeError, IndexError):
                    note: dict[str, Any] = json.loads(lines[0])
                    pid, start = lines[1].split() if len(lines) > 1 else (None, None)
                    if note["here"] == here:
                        yield Left(
                            folder / name,
                            int(note["driver"]),
                            str(note["driver_start"]),
                            tuple(map(int, note["outputs"])),
                            None if pid is None else int(pid),
                            start,
                        )


def end_all(programs: list[Left], *, at_once: bool = False) -> list[Left]:
    """Kill programs with all that they started, wait until they are gone, and return those that do not end.

    `at_once` says that their driver was alive a moment ago, so that no pid can have been reused since.
    """
    deadline = time.monotonic() + _SECONDS_TO_END
    pause = _FIRST_LOOK_SECONDS
    while programs and time.monotonic() < deadline:
        programs = [left for left in programs if not _is_gone(left, at_once=at_once)]
        if programs:
            time.sleep(pause)
            pause = min(2 * pause, _LOOK_SECONDS)
    return programs


def _is_gone(left: Left, *, at_once: bool) -> bool:
    """Kill the rest of a program, and say whether nothing was left: its note is then removed."""
    group = left.pid if left.pid is not None and left.pid > 1 and _is_its_own(left, at_once=at_once) else None
    if group is not None and group in {os.getpgrp(), os.getsid(0)}:
        return False  # it is the process that runs this
    if not process_identity.sees_itself():
        if group is not None:
            _kill(os.killpg, group)
        members = []
    else:
        members = _members(group, left.outputs)
        if group is not None and members:
            _kill(os.killpg, group)
        for pid in members:
            _kill(os.kill, pid)
    if not members and left.file is not None:
        with contextlib.suppress(OSError):
            left.file.unlink()
    return not members


def _is_its_own(left: Left, *, at_once: bool) -> bool:
    """Say whether the program's pid still belongs to it, and so its group and its session."""
    assert left.pid is not None
    now = process_identity.stat_of(left.pid) if process_identity.sees_itself() else None
    # A number is not reused while a group has it. When the leader is gone, though, both may belong to others.
    return at_once if now is None else now.start == left.start


def _members(group: int | None, outputs: tuple[int, ...]) -> list[int]:
    """Return the processes of a group or session, those that write to one of the pipes, and all their children.

    What is in our own session is none of them, for no program can join it: it is a fork of this process that
    has got a pipe along.
    """
    links = {f"pipe:[{inode}]" for inode in outputs}
    ours = os.getsid(0)
    seen: dict[int, process_identity.Stat] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - the names alone
        if name.isdecimal() and int(name) not in {1, os.getpid()}:
            now = process_identity.stat_of(int(name))
            if now is not None and not now.ended and now.session != ours:
                seen[int(name)] = now
    found = [
        pid
        for pid, now in seen.items()
        if (group is not None and group in {now.group, now.session}) or _writes_to(pid, links)
    ]
    for pid in found:  # which grows
        found += [child for child, now in seen.items() if now.parent == pid and child not in found]
    return found


def _writes_to(pid: int, links: set[str]) -> bool:
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - the names alone
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{fd}") in links:  # noqa: PTH115 - the text, not a path
                    info = process_identity.read(Path(f"/proc/{pid}/fdinfo/{fd}"))
                    flags = next(line.split()[1] for line in info.splitlines() if line.startswith("flags:"))
                    if int(flags, 8) & os.O_ACCMODE != os.O_RDONLY:
                        return True
    return False


def _kill(how: Callable[[int, int], None], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        how(number, signal.SIGKILL)
