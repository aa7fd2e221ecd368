"""Checks of a plan: it runs once, and processes in other environments replay the recording.

External calls are made only by the recorded run. Every process has a deadline, and is killed with all its
children and reaped before anything else is done.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import anyio
import attrs

from machine import canonical, codec
from machine.config import RunConfig, Target, UndeclaredIo
from machine.doctor.findings import Diagnosis, Difference, Environment, Finding
from machine.errors import CodecError
from machine.io.child_process import Finished, run_process
from machine.recordings.fork_server import where_this_package_is

REPLAYS: Final = 3
"""Default number of replays of a recording."""

_ZONES: Final = ("AAA-13:45", "BBB+09:30", "UTC0")  # as POSIX writes them, for which no database is needed
_MOST_OUTPUT: Final = 64 * 1024 * 1024
_LINES: Final = 5


def examine_plan(
    target: Target,
    *,
    inputs: Sequence[Mapping[str, Any]] = ({},),
    config: RunConfig | None = None,
    replays: int = REPLAYS,
    timeout: float = 300.0,
    progress: Callable[[str], None] = lambda _: None,
) -> Diagnosis:
    """Run the plan of `target` for real, once for each input, and check the recordings.

    `timeout` is in seconds and applies to each process. `progress` is called with a description of each step.
    """
    config = attrs.evolve(config or RunConfig(), undeclared_io=UndeclaredIo.WARN)
    with tempfile.TemporaryDirectory(prefix="machine-doctor-") as place:
        examination = _Examination(target, Path(place), timeout, progress)
        for number, given in enumerate(inputs, 1):
            bundle = Path(place, f"{number}.run")
            job = {"record": str(bundle), "input": given, "config": codec.to_json(config)}
            if examination.records(number, job):
                examination.replays(bundle, replays)
        return examination.diagnosis()


def examine_recording(
    bundle: Path,
    target: Target,
    *,
    replays: int = REPLAYS,
    timeout: float = 300.0,
    progress: Callable[[str], None] = lambda _: None,
) -> Diagnosis:
    """Check the run in a bundle against the plan of `target`, without making any external call."""
    with tempfile.TemporaryDirectory(prefix="machine-doctor-") as place:
        examination = _Examination(target, Path(place), timeout, progress)
        examination.replays(bundle, replays)
        return examination.diagnosis()


class _Examination:
    """One examination in progress, with its findings so far."""

    def __init__(self, target: Target, place: Path, timeout: float, progress: Callable[[str], None]) -> None:
        self._target = {"spec": target.spec, "directory": target.directory}
        self._place = place
        self._timeout = timeout
        self._progress = progress
        self._runs: dict[str, str] = {}
        self._replays = 0
        self._findings: dict[tuple[str, str, int, str], Finding] = {}
        self._differences: list[Difference] = []
        self._problems: list[str] = []

    def diagnosis(self) -> Diagnosis:
        """Return the diagnosis so far."""
        return Diagnosis(
            self._runs,
            self._replays,
            tuple(self._findings.values()),
            tuple(self._differences),
            tuple(self._problems),
        )

    def records(self, number: int, job: Mapping[str, Any]) -> bool:
        """Run the plan on one input in a process of its own; return whether it wrote the recording `job` names."""
        self._progress(f"runs input {number}")
        end = self._examined(
            job, Environment({"PYTHONHASHSEED": "1"}, elsewhere=False), f"the run of input {number}"
        )
        if end is not None:
            self._runs[end["run_id"]] = end["status"]
        return end is not None

    def replays(self, bundle: Path, times: int) -> None:
        """Replay a recording repeatedly, each time in another environment, until one replay differs."""
        for number in range(times):
            environment = Environment(
                {
                    "PYTHONHASHSEED": str(number + 2),
                    "TZ": _ZONES[number % len(_ZONES)],
                    "LC_ALL": "C",
                },
                elsewhere=True,
            )
            self._progress(f"replays with {environment}")
            end = self._examined({"replay": str(bundle)}, environment, f"the replay with {environment}")
            if end is None:
                return
            self._replays += 1
            self._runs.setdefault(end["run_id"], end["status"])
            if end["divergence"] is not None:
                self._differences.append(
                    Difference(end["run_id"], environment, end["divergence"], tuple(end["lines"]))
                )
                return

    def _examined(self, job: Mapping[str, Any], environment: Environment, what: str) -> dict[str, Any] | None:
        """Have a process do a job, add its findings, and return its final answer, or None when it failed.

        `what` names the job in the text of a problem.
        """
        data = canonical.encode({**job, "target": self._target})
        finished = anyio.run(self._process, data, environment)
        end: dict[str, Any] | None = None
        for said in _said(finished.stdout):
            match said:
                case {"undeclared": found}:
                    finding = Finding(**found)
                    place = (finding.state_id, finding.file, finding.line, finding.remedy)
                    self._findings.setdefault(place, finding)
                case {"problem": text}:
                    self._problems.append(f"{what}: {text}")
                    return None
                case _:
                    end = said
        if end is None:
            self._problems.append(f"{what} {self._how(finished)}")
        return end

    async def _process(self, job: bytes, environment: Environment) -> Finished:
        elsewhere = self._place / f"directory-{environment.variables['PYTHONHASHSEED']}"
        elsewhere.mkdir(exist_ok=True)
        return await run_process(
            [sys.executable, "-m", "machine.doctor.worker"],
            stdin=job,
            env={**os.environ, **environment.variables, **where_this_package_is()},
            cwd=str(elsewhere) if environment.elsewhere else None,
            timeout=self._timeout,
            max_output=_MOST_OUTPUT,
        )

    def _how(self, finished: Finished) -> str:
        if finished.timed_out:
            return f"took longer than {self._timeout:g} s and was ended"
        last = finished.stderr.decode(errors="replace").strip().splitlines()[-_LINES:]
        told = f": {' / '.join(last)}" if last else ""
        return f"did not come to its end, exit code {finished.returncode}{told}"


def _said(output: bytes) -> Iterator[dict[str, Any]]:
    lines: Iterable[bytes] = output.split(b"\n")
    for line in lines:
        try:
            value = canonical.decode(line)
        except CodecError:  # a killed process may leave its last line incomplete
            continue
        if isinstance(value, dict):
            yield value
