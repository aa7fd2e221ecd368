"""Fresh processes that run selected tests again: their environment, their jobs and their answers.

Each has a deadline, and is killed with all its children and reaped before anything else is done.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import anyio
import attrs
import pytest

from machine.io.child_process import Finished, run_process
from machine.testing import fresh_entry_point

_MOST_OUTPUT: Final = 64 * 1024 * 1024
_LINES: Final = 12
_ZONES: Final = {"AAA-13:45": 13.75, "BBB+09:30": -9.5}  # as POSIX writes them; no database is needed
_PLAIN: Final = (str, int, float, bool, type(None))

_NOT_THERE: Final[Mapping[str, Any]] = {
    "collectonly": False,
    "continue_on_collection_errors": True,
    "dist": "no",
    "distload": False,
    "failedfirst": False,
    "golden": "replay",
    "golden_allow_deletion": False,
    "golden_max_age": None,
    "golden_orphans": "ignore",
    "golden_review": False,
    "golden_update": False,
    "golden_accept": False,
    "golden_update_changed": False,
    "lf": False,
    "log_file": os.devnull,
    "looponfail": False,
    "maxfail": 0,
    "maxprocesses": None,
    "newfirst": False,
    "numprocesses": None,
    "plugins": [],
    "stepwise": False,
    "trace": False,
    "tx": [],
    "usepdb": False,
    "xmlpath": None,
}
"""Options that are not as the session has them: they choose tests, start processes, ask or write files."""


@attrs.frozen(kw_only=True)
class Surroundings:
    """The one property that differs in a fresh process, and its meaning when it alone causes a difference.

    Unless the clock is moved, by `seconds`, a replay sees the time at which it was recorded, or the real time.
    """

    real: bool = False
    seconds: int = 0
    seed: bool = False
    zone: bool = False
    cause: str = ""
    remedy: str = ""

    def variables(self) -> dict[str, str]:
        """Return the variables to set in the environment of the process."""
        said = os.environ.get("PYTHONHASHSEED", "")
        seed = (
            {"PYTHONHASHSEED": str((int(said) + 1) % 2**32 if said.isdecimal() else 1)} if self.seed else {}
        )
        here = time.localtime().tm_gmtoff / 3600
        other = next(zone for zone, hours in _ZONES.items() if hours != here)
        return {**seed, **({"TZ": other} if self.zone else {})}


AS_HERE: Final = Surroundings(real=True)


class Check(Protocol):
    """A check of a golden that a fresh process makes."""

    @property
    def test(self) -> str:
        """The test as it is named on the command line here."""

    @property
    def name(self) -> str | None:
        """The name of the check in the test, None for a check without one."""

    @property
    def path(self) -> str:
        """The file of the test."""

    @property
    def golden(self) -> str:
        """The path of the golden."""


@attrs.frozen
class Job:
    """A pytest session to run in a fresh process: its arguments and its working directory."""

    given: Mapping[str, Any]
    directory: str
    worker: Mapping[str, Any] = attrs.field(factory=dict)

    @classmethod
    def of(cls, config: pytest.Config, worker: Mapping[str, Any]) -> Job:
        """Return a session like that of `config`, or that of a pytest-xdist worker."""
        options = {name: value for name, value in vars(config.option).items() if _is_plain(value)}
        options.pop("file_or_dir", None)
        plugins = list(config.option.plugins or ())
        if "machine" not in plugins:  # the name of the entry point: pytest refuses one plugin under two names
            plugins.append("machine.testing.plugin")
        given = {
            "options": {
                **options,
                **_NOT_THERE,
                "rootdir": str(config.rootpath),
                "inifilename": str(config.inipath) if config.inipath else None,
            },
            "plugins": plugins,
            "args": list(map(str, config.args)),
            "argv": list(sys.argv),
            "path": list(sys.path),
            "worker": {
                "workerid": "master",
                "workercount": 1,
                "testrunuid": "fresh",
                "mainargv": list(sys.argv),
                **worker,
            },
        }
        return cls(given, str(config.invocation_params.dir), worker)

    @classmethod
    def of_files(cls, files: Sequence[str]) -> Job:
        """Return a session like one that `python -m pytest FILES` starts here."""
        here = os.getcwd()  # noqa: PTH109 - links stay
        given = {
            "options": dict(_NOT_THERE),
            "plugins": ["machine.testing.plugin"],
            "args": list(files),
            "argv": ["pytest", *files],
            "path": [here, *sys.path],
            "worker": None,
        }
        return cls(given, here)


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(each) for key, each in value.items())
    return all(map(_is_plain, value)) if type(value) is list else isinstance(value, _PLAIN)


@attrs.define
class Said:
    """The answers of a fresh process about its checks."""

    checks: dict[str, Mapping[str, Any]] = attrs.field(factory=dict)
    """By the path of the golden."""
    collected: list[str] | None = None
    uncollected: dict[str, list[str]] = attrs.field(factory=dict)
    begun: set[str] = attrs.field(factory=set)
    ended: set[str] = attrs.field(factory=set)
    failed: dict[str, list[str]] = attrs.field(factory=dict)
    problem: str = ""

    def take(self, output: bytes) -> None:
        """Parse what is on stdout; the last line may be incomplete if the process was killed."""
        for line in output.decode("utf-8", "replace").splitlines():
            try:
                said = json.loads(line)
            except ValueError:
                continue
            match said:
                case {"golden": golden}:
                    self.checks[golden] = said
                case {"collected": tests}:
                    self.collected = tests
                case {"uncollected": path, "why": why}:
                    self.uncollected[path] = why
                case {"begun": test}:
                    self.begun.add(test)
                case {"ended": test}:
                    self.ended.add(test)
                case {"failed": test, "why": why}:
                    self.failed.setdefault(test, why)
                case {"problem": text}:
                    self.problem = text

    def why_not(self, recorded: Check) -> list[str]:
        """Return the reason why a check was not made."""
        test = recorded.test
        if test in self.failed:
            return ["its test did not come to the check there:", *indented(self.failed[test])]
        if test in self.ended:
            return ["its test did not make this check there"]
        if test in self.begun:
            return ["during the test, its process there " + (self.problem or "ended")]
        if recorded.path in self.uncollected:
            return ["its file could not be collected there:", *indented(self.uncollected[recorded.path])]
        if self.collected is None or self.problem:
            return [f"pytest could not do its work there: {self.problem or 'it ended before it began'}"]
        return ["there is no test of this name there: does its name depend on the time, or on the hash seed?"]


def indented(lines: Iterable[str]) -> list[str]:
    """Return lines indented as a part of a longer text."""
    return [f"  {line}" for line in lines]


def asked_in_fresh_processes(
    jobs: Sequence[tuple[Job, Sequence[Check]]], surroundings: Surroundings, seconds: float
) -> dict[str, Said]:
    """Run the sessions of some jobs concurrently, each in a fresh process; return the answers by golden.

    If a test ends its process, only that test is lost: another process checks the rest.
    """
    answers: dict[str, Said] = {}

    async def asked(job: Job, ones: Sequence[Check]) -> None:
        until = time.monotonic() + seconds
        left = list(ones)
        while left:
            said = await _session(job, left, surroundings, max(until - time.monotonic(), 1.0))
            answers.update({one.golden: said for one in left})
            over = bool(said.begun - said.ended) and time.monotonic() < until
            left = [one for one in left if one.test not in said.begun] if over else []

    async def all_of_them() -> None:
        async with anyio.create_task_group() as tasks:
            for job, ones in jobs:
                tasks.start_soon(asked, job, ones)

    anyio.run(all_of_them)
    return answers


async def _session(job: Job, ones: Sequence[Check], surroundings: Surroundings, seconds: float) -> Said:
    with tempfile.TemporaryDirectory(prefix="machine-fresh-") as place:
        given = {
            **job.given,
            "options": {**job.given["options"], "basetemp": str(Path(place, "tmp"))},
            "files": _files(ones),
            "goldens": [{"test": one.test, "name": one.name, "golden": one.golden} for one in ones],
            "clock": "real" if surroundings.real else "moved" if surroundings.seconds else "recorded",
            "seconds": surroundings.seconds,
        }
        environment = {**os.environ, **surroundings.variables()}
        environment.pop("PYTEST_CURRENT_TEST", None)
        if job.worker:
            environment["PYTEST_XDIST_WORKER"] = str(job.worker.get("workerid"))
            environment["PYTEST_XDIST_WORKER_COUNT"] = str(job.worker.get("workercount"))
        said = Said()
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001 - as multiprocessing does
        try:
            finished = await run_process(
                [sys.executable, *flags, "-P", fresh_entry_point.__file__],
                stdin=json.dumps(given).encode(),
                env=environment,
                cwd=job.directory,
                timeout=seconds,
                max_output=_MOST_OUTPUT,
            )
        except OSError as exc:
            said.problem = f"it could not be started: {exc}"
            return said
        said.take(finished.stdout)
        said.problem = _how_it_ended(finished, said, seconds)
        return said


def _files(ones: Sequence[Check]) -> list[str]:
    """Return the files of some tests, or none when a name could be mistaken for a part of a node id."""
    files = sorted({one.path for one in ones})
    return [] if any("[" in file or "::" in file for file in files) else files


def _how_it_ended(finished: Finished, said: Said, seconds: float) -> str:
    if finished.timed_out:
        return f"took longer than {seconds:.0f} s and was ended"
    if finished.overflowed:
        return f"wrote more than {_MOST_OUTPUT} bytes and was ended"
    if said.problem or finished.returncode:
        last = finished.stderr.decode(errors="replace").strip().splitlines()[-_LINES:]
        told = "".join(f"\n  {line}" for line in last)
        return f"{said.problem or f'ended with exit code {finished.returncode}'}{told}"
    return ""
