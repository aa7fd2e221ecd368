"""The golden runs of a pytest session: the file of each test, the results of checks, and unused goldens.

Under pytest-xdist every worker has a `Session`, and the controller adds them up; only it looks for unused
goldens. This module is light and never touches a golden: it only names what is to be deleted.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import pytest

from machine.testing.golden_options import Mode, Options, asked_of
from machine.testing.golden_paths import FOLDER, SUFFIX, bases_of, belongs, claimant_of

FIRST: Final = "<the first test>"
"""Stands in a text for the first test of a cause, until it is known which that is."""


class Ending(StrEnum):
    """The result of a golden's check, or the fate of a golden that no test uses."""

    IDENTICAL = "identical"
    UPDATED = "updated"
    NEW = "new"
    UNCHANGED = "unchanged"
    DIVERGED = "diverged"
    MISSING = "missing"
    EXPIRED = "expired"
    BROKEN = "broken"
    FAILED = "failed"
    ORPHANED = "orphaned"
    DELETED = "deleted"
    UNWRITTEN = "not written"


_GOOD = frozenset({Ending.IDENTICAL, Ending.UPDATED, Ending.UNCHANGED, Ending.NEW})

_REPORTED: Final = ("counts", "notes", "tests", "used", "done", "folders", "partial", "differing")
"""The fields in which a worker reports to the controller."""


def _sent(value: Any) -> Any:
    """Return a collection in a form that can be sent."""
    if isinstance(value, dict):
        return {str(key): item for key, item in value.items()}
    return sorted(value) if isinstance(value, set) else list(value)


@dataclass
class Session:
    """One session, or one worker's part of it.

    `tests` maps every collected test that may have goldens to its bases; those in `golden` requested the
    fixture, and those in `done` passed, so that they used all the goldens they need. `used` maps a golden to
    its test. `folders` are searched for goldens that no test uses, `partial` are the paths of which not every
    test was collected, and `whole` is False when a worker did not report. `accepted` are the causes the user
    accepted in a review, and `asks` is False once the user wants no more questions.

    `differing` are the tests with differing goldens, each with its cause, the key of related reports, and
    whether it can be accepted; `told` are the first tests of those causes.

    `recordings` is the folder of recordings that wait to be replayed in a fresh process, None when nothing is
    recorded; in such a process, `fresh` answers the checks.
    """

    options: Options
    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    tests: dict[str, tuple[str, ...]] = field(default_factory=dict)
    golden: set[str] = field(default_factory=set)
    used: dict[str, str] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    partial: set[str] = field(default_factory=set)
    whole: bool = True
    accepted: set[str] = field(default_factory=set)
    asks: bool = True
    began: float = field(default_factory=time.monotonic)
    differing: list[tuple[str, str, str, bool]] = field(default_factory=list)
    told: dict[str, str] = field(default_factory=dict)
    recordings: Path | None = None
    fresh: Callable[..., Coroutine[Any, Any, Any]] | None = None

    # -- events of a worker ------------------------------------------------------------------------------

    def collected(self, items: Iterable[pytest.Item]) -> None:
        """Note the collected tests before any of them is deselected."""
        known: dict[Path, bool] = {}
        for item in items:
            is_golden = "golden" in getattr(item, "fixturenames", ())
            folder = item.path.parent / FOLDER
            if folder not in known:
                known[folder] = folder.is_dir()
            if not is_golden and not known[folder]:
                continue
            with contextlib.suppress(ValueError):  # the test itself reports it when it runs
                self._take(item, is_golden=is_golden)

    def _take(self, item: pytest.Item, *, is_golden: bool) -> None:
        test = claimant_of(item)
        self.tests[test] = tuple(map(str, bases_of(item, asked_of(item))))
        if is_golden:
            self.golden.add(test)
            self.folders.add(str(item.path.parent / FOLDER))

    def others(self, test: str, bases: Sequence[Path]) -> list[str]:
        """Return the other golden tests whose markers name the same files."""
        return [other for other in self._alike(test, bases) if 1 in {len(bases), len(self.tests[other])}]

    def contested(self, test: str, bases: Sequence[Path]) -> bool:
        """Return whether another file of the folder has a golden test of the same name."""
        return bool(self._alike(test, bases))

    def _alike(self, test: str, bases: Sequence[Path]) -> list[str]:
        first = str(bases[0])
        return sorted(other for other in self.golden if other != test and self.tests[other][0] == first)

    def uses(self, test: str, file: Path, folder: Path) -> str | None:
        """Note that a test uses a golden; return the test that already uses it, or None."""
        self.folders.add(str(folder))
        other = self.used.setdefault(str(file), test)
        return other if other != test else None

    def ended(self, ending: Ending, note: str | None = None) -> None:
        """Count the result of a check; `note` is its line at the end of the session."""
        self.counts[ending] += 1
        if note is not None:
            self.notes.append(note)

    # -- between worker and controller -------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Return a worker's report to the controller, in values that can be sent."""
        return {name: _sent(getattr(self, name)) for name in _REPORTED}

    def add(self, told: dict[str, Any] | None) -> None:
        """Add a worker's report, None when the worker ended without one."""
        if told is None:
            self.whole = False
            return
        for name in _REPORTED:
            known = getattr(self, name)
            if isinstance(known, list):
                known.extend(told[name])
            else:
                known.update(told[name])

    # -- unused goldens ----------------------------------------------------------------------------------

    def orphans(self, arguments: Iterable[Path]) -> list[Path]:
        """Return the unused goldens in folders whose tests were all collected.

        `arguments` are the directories given on the command line.
        """
        asked, found = list(arguments), []
        for folder in map(Path, sorted(self.folders)):
            tests = folder.parent
            if any(tests.is_relative_to(path) for path in asked) and not self._is_partial(tests):
                found += [file for file in sorted(folder.glob(f"*{SUFFIX}")) if not self._is_claimed(file)]
        return found

    def _is_partial(self, folder: Path) -> bool:
        return any(path.parent == folder or folder.is_relative_to(path) for path in map(Path, self.partial))

    def _is_claimed(self, file: Path) -> bool:
        # a test that did not pass may not have reached all of its checks
        return str(file) in self.used or any(
            belongs(file, Path(base))
            for test, bases in self.tests.items()
            if test not in self.done
            for base in bases
        )

    # -- the summary -------------------------------------------------------------------------------------

    def summary(self) -> str:
        """Return a line about all goldens, empty when there were none."""
        said = ", ".join(f"{self.counts[ending]} {ending}" for ending in Ending if self.counts[ending])
        return f"golden: {said}" if said else ""

    def hints(self) -> Iterator[str]:
        """Yield advice on what is wrong, and the tests that share a cause."""
        if not (self.options.update or self.options.review):
            if self.counts[Ending.MISSING]:
                yield "to record what is missing: pytest --golden=record-missing"
            yield from self._accepting()
        if self.counts[Ending.ORPHANED]:
            yield "to delete what no test uses: pytest --golden-allow-deletion"
        for cause, tests in self._causes():
            yield f"{len(tests)} tests, one cause: {cause}"
            yield from (f"  {test}" for test in tests)

    def _accepting(self) -> Iterator[str]:
        tests = list(dict.fromkeys(test for test, _, _, acceptable in self.differing if acceptable))
        if not tests:
            return
        # an update records what no longer replays, and this replays
        if self.options.mode is Mode.VERIFY_LIVE:
            yield f"to record what is otherwise now: pytest {shlex.join(tests)} --golden=record"
            return
        if self.counts[Ending.DIVERGED]:
            yield "to accept what changed: pytest --golden-accept (no call is made), --golden-update-changed (only"
            yield "  calls that changed) or --golden-update (all); with --golden-review you are asked first"
        if self.counts[Ending.EXPIRED]:
            age = "" if self.options.max_age is None else f" --golden-max-age={self.options.max_age}s"
            yield f"to record what is too old: pytest --golden-update{age}, or --golden-review{age} to be asked"

    def _causes(self) -> Iterator[tuple[str, list[str]]]:
        found: dict[str, tuple[str, list[str]]] = {}
        for test, cause, alike, _ in self.differing:
            if alike:
                found.setdefault(alike, (cause, []))[1].append(test)
        for cause, tests in found.values():
            if len(once := list(dict.fromkeys(tests))) > 1:
                yield cause, sorted(once)

    @property
    def good(self) -> bool:
        """True when nothing is wrong."""
        return not any(number for ending, number in self.counts.items() if ending not in _GOOD)


KEY = pytest.StashKey[Session]()
"""The stash key of a config's session."""

PASSED = pytest.StashKey[bool]()
"""The stash key of a test's success, set before its fixtures are torn down."""
