"""Replays of goldens whose plans are in tests: pytest runs those tests, one session for each folder of tests.

A session runs only the tests that recorded them, each check on its golden, and no external call is made.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from machine import codec
from machine.cli import recorded_run_item
from machine.cli.error_report import Exit
from machine.cli.recorded_run_item import Item, Outcome
from machine.errors import Code, PlanError
from machine.recordings.golden_origin import test_of
from machine.recordings.replay import ReplayResult

_SECONDS_EACH = 10.0
_LEAST_SECONDS = 120.0


@attrs.frozen
class Golden:
    """A golden, and the test that recorded it: its name on the command line here, and its file."""

    golden: str
    test: str
    path: str
    name: None = None


def of_tests(items: Sequence[Item]) -> dict[int, Golden]:
    """Return which of some items are goldens of tests, by position."""
    found = {}
    for index, item in enumerate(items):
        made_by = test_of(item.path) if item.path is not None else None
        if item.path is not None and made_by is not None:
            path, name = made_by
            file = Path(os.path.abspath(path))  # noqa: PTH100 - links stay
            here = Path(os.getcwd())  # noqa: PTH109 - the same
            shown = file.relative_to(here).as_posix() if file.is_relative_to(here) else str(file)
            golden = os.path.abspath(item.path)  # noqa: PTH100 - the same
            found[index] = Golden(golden, f"{shown}::{name}", str(file))
    return found


def outcomes(goldens: Mapping[int, Golden], jobs: int) -> Generator[tuple[int, Outcome], None, None]:
    """Yield the outcome of each golden, by position; `jobs` sessions of pytest replay them."""
    folders: dict[str, dict[int, Golden]] = {}
    for index, golden in goldens.items():
        folders.setdefault(str(Path(golden.path).parent), {})[index] = golden
    left = list(folders.values())
    while left:
        now, left = left[:jobs], left[jobs:]
        yield from _of_folders(now)


def _of_folders(folders: Sequence[Mapping[int, Golden]]) -> Iterator[tuple[int, Outcome]]:
    from machine.testing.fresh_process import (  # noqa: PLC0415 - nobody else needs pytest
        AS_HERE,
        Job,
        asked_in_fresh_processes,
    )

    asked = []
    for goldens in folders:
        files = sorted({golden.path for golden in goldens.values() if Path(golden.path).exists()})
        there = [golden for golden in goldens.values() if golden.path in files]
        if there:
            asked.append((Job.of_files(files), there))
    most = max((len(there) for _, there in asked), default=0)
    said = asked_in_fresh_processes(asked, AS_HERE, max(_LEAST_SECONDS, _SECONDS_EACH * most))
    for goldens in folders:
        for index, golden in goldens.items():
            if golden.golden not in said:
                yield index, _lost(golden, "its file no longer exists")
                continue
            check = said[golden.golden].checks.get(golden.golden)
            if check is None:
                yield index, _lost(golden, " ".join(map(str.strip, said[golden.golden].why_not(golden))))
            elif check["result"] is not None:
                result = codec.from_json(check["result"], ReplayResult)
                verdict, code = recorded_run_item.verdict_on(result)
                yield index, Outcome(verdict, int(code), result)
            elif check["unlike"] is not None:
                text = ": ".join([check["unlike"]["title"], *map(str.strip, check["unlike"]["lines"])])
                failed = Outcome.failed(PlanError(text, code=Code.PLAN_CHANGED))
                yield index, attrs.evolve(failed, verdict="diverged", exit=int(Exit.FAILED))


def _lost(golden: Golden, why: str) -> Outcome:
    return Outcome.failed(
        PlanError(
            f"it was recorded by {golden.test}, which does not replay it: {why}",
            code=Code.TARGET_NOT_FOUND,
            hint=f"pytest {golden.test} shows more; for a plan elsewhere: --target TARGET",
        )
    )
