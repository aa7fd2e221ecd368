"""Contests: contenders measured round by round, each in a process of its own, so that noise meets all alike."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

HERE: Final = Path(__file__).parent
LONGEST_SECONDS: Final = 1200


@attrs.frozen
class Contender:
    """A task of a program in `contenders/`; `prepare` is another, done once before the first round.

    Each round finds a copy of the directory that was prepared. `rounds` says in how many of them it takes part.
    """

    program: str
    task: str
    options: Mapping[str, Any] = attrs.field(factory=dict)
    prepare: str | None = None
    rounds: int | None = None
    env: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class Found:
    """What a contest found: by contender, what it told in each round, or why it told nothing."""

    told: Mapping[str, list[dict[str, float]]]
    absent: Mapping[str, str]

    def samples(self, name: str, key: str) -> list[float]:
        """Return what a contender told of a key, round by round."""
        return [told[key] for told in self.told[name]]

    def median(self, name: str, key: str) -> float:
        """Return the median of what a contender told of a key."""
        return statistics.median(self.samples(name, key))

    def ratio(self, name: str, key: str, base: str, base_key: str) -> float:
        """Return the median of the ratios of two contenders, each pair of one round."""
        pairs = zip(self.samples(name, key), self.samples(base, base_key), strict=False)
        return statistics.median(one / other for one, other in pairs)


class NothingToldError(Exception):
    """A contender's process ended without a word; the message is the last it wrote to stderr."""


def contest(contenders: Mapping[str, Contender], *, rounds: int) -> Found:
    """Let every contender take its turn in each round. One that fails is absent from then on."""
    told: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    absent: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as directory:
        prepared = {name: Path(directory, str(number)) for number, name in enumerate(contenders)}
        for number in range(rounds):
            for name, contender in contenders.items():
                if name in absent or number >= (contender.rounds or rounds):
                    continue
                try:
                    if number == 0:
                        prepared[name].mkdir()
                        if contender.prepare:
                            _progress(f"{name}: {contender.prepare}")
                            _perform(contender, contender.prepare, prepared[name])
                    _progress(f"{name}: round {number + 1}")
                    told[name].append(_round(contender, prepared[name]))
                except NothingToldError as exc:
                    absent[name] = str(exc)
    _progress("")
    return Found({name: samples for name, samples in told.items() if name not in absent}, absent)


def _round(contender: Contender, prepared: Path) -> dict[str, float]:
    work = prepared.with_name("now")
    shutil.copytree(prepared, work)
    try:
        lines = _perform(contender, contender.task, work).splitlines()
    finally:
        shutil.rmtree(work)
    try:
        found: dict[str, float] = json.loads(lines[-1])
    except (IndexError, ValueError):
        raise NothingToldError(f"{contender.program} {contender.task} told nothing") from None
    if "absent" in found:
        raise NothingToldError(found["absent"])
    return found


def _perform(contender: Contender, task: str, work: Path) -> str:
    options = [f"{key}={value}" for key, value in contender.options.items()]
    command = [sys.executable, str(HERE / "contenders" / f"{contender.program}.py"), task, *options]
    try:
        done = subprocess.run(
            command,
            cwd=work,
            env={**os.environ, **contender.env},
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise NothingToldError(f"took longer than {LONGEST_SECONDS} s") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise NothingToldError(last)
    return done.stdout


def _progress(text: str) -> None:
    """Tell on stderr what goes on: over the last line on a terminal, a line each elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
