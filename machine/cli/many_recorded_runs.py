"""Commands on many runs: the list of runs, the progress display, and the report at the end.

The report is in the order in which the runs were named, and is the same for any number of processes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Self, TypeAlias

import attrs
from cyclopts import Parameter

from machine.cli import replay_test_goldens, worker_pool
from machine.cli.command_session import Session, names_bundle, names_directory
from machine.cli.error_report import Exit
from machine.cli.output import STYLES, Cell, clean, duration, on_terminal
from machine.cli.recorded_run_item import DAMAGED, ERROR, Item, Look, Outcome
from machine.cli.replay_test_goldens import Golden
from machine.errors import BundleError, Code, NotFoundError, UsageError
from machine.recordings.bundle_line_reader import is_bundle
from machine.recordings.replay import ReplayResult
from machine.recordings.verify import VerifyResult

_ALL: Final = 2**31
_REDRAWN_AFTER: Final = 0.1
_BAR: Final = 24
_STYLES: Final = {
    **STYLES,
    "sound": "green",
    DAMAGED: "bold red",
    ERROR: "bold red",
}

Name: TypeAlias = Annotated[
    str,
    Parameter(
        help="The runs, each by its id, the beginning of it, @last, the path of a bundle, or a directory: the "
        "bundles in it and below."
    ),
]
"""The annotation of the names of runs."""

Every: TypeAlias = Annotated[
    bool, Parameter(name="--all", negative="", show_default=False, help="Every run of the store.")
]
"""The annotation of the option for every run of the store."""


def is_one(names: Sequence[str], *, every: bool) -> bool:
    """Return whether a single run is meant, and not a list that may contain only one."""
    return len(names) == 1 and not every and not names_directory(names[0])


def items_of(session: Session, names: Sequence[str], *, every: bool) -> list[Item]:
    """Return the items that the names mean, each once, in order; a directory means all bundles below it.

    Raises `UsageError` when there is no name, and `NotFoundError` or `BundleError` for a name that means
    nothing, so that a typo is reported before the work begins.
    """
    if not names and not every:
        raise UsageError(
            "name a run, a bundle or a directory of bundles", hint="--all takes every run of the store"
        )
    found: dict[str, Item] = {}  # the first of each, however it was written
    with session.store_when_needed() as store:
        for name in names:
            if names_directory(name):
                for path in bundles_in(name):
                    found.setdefault(path, Item(path, path=path))
            elif names_bundle(name):
                if not os.path.exists(name):  # noqa: PTH110 - False for what cannot be a path
                    raise BundleError("there is no such file", path=name, code=Code.BUNDLE_NOT_FOUND)
                found.setdefault(os.path.normpath(name), Item(name, path=name))
            else:
                run_id = session.run_id(store(), name)
                found.setdefault(run_id, Item(run_id, run_id))
        if every:
            for run_id in store().find_runs("", limit=_ALL):
                found.setdefault(run_id, Item(run_id, run_id))
            if not found:
                raise NotFoundError(f"there is no run in {store().url}", code=Code.RUN_NOT_FOUND)
    return list(found.values())


def bundles_in(directory: str) -> list[str]:
    """Return the bundles in a directory and below, sorted. Raises `BundleError` when there is none."""
    found = []
    for folder, _, names in os.walk(directory):
        for name in names:
            path = os.path.normpath(os.path.join(folder, name))  # noqa: PTH118 - as it was typed
            if name.endswith((".run", ".run.gz")) or (name.endswith(".jsonl") and is_bundle(path)):
                found.append(path)
    if not found:
        raise BundleError("there is no bundle in it or below", path=directory, code=Code.BUNDLE_NOT_FOUND)
    return sorted(found)


@attrs.frozen
class Report:
    """The report of one command on many runs: the word for a good run, and the others in full."""

    session: Session
    good: str
    bad: tuple[str, ...]
    """The words for others, in the order of the summary."""
    tell: Callable[[Session, Any], None]
    """Prints a result."""
    quiet: bool

    def of(
        self, look: Look, items: Sequence[Item], jobs: int | None, tests: Mapping[int, Golden] | None = None
    ) -> int:
        """Process all items, print the findings, and return the highest of their exit codes.

        Those in `tests`, by position, are replayed by the tests that recorded them.
        """
        began = time.monotonic()
        jobs = min(jobs or worker_pool.cores(), len(items))
        came = looked_at(look, items, jobs, tests or {})
        told: list[dict[str, Any]] = []
        counts: Counter[str] = Counter()
        code = int(Exit.OK)
        warned: set[str] = set()
        store = self.good
        total = sum(not item.is_store for item in items)
        bar = _Bar(total, self.good, silent=self.quiet or self.session.as_json)
        with contextlib.closing(came), bar:
            for item, outcome in _in_order(items, came, bar.step):
                code = max(code, outcome.exit)
                if item.is_store:
                    store = outcome.verdict
                else:
                    counts[outcome.verdict] += 1
                if self.session.as_json:
                    told.append(_as_json(item, outcome))
                    continue
                news = [] if self.quiet else [text for text in outcome.warnings if text not in warned]
                if news or self._is_told(outcome):
                    with bar.aside():
                        self._print(item, outcome, news)
                    warned.update(news)  # a line shared by all runs of a plan
        if self.session.as_json:
            self.session.out.json(self._json(items, told, counts))
        else:
            self._sum_up(counts, store, time.monotonic() - began)
        return code

    def _json(
        self, items: Sequence[Item], told: list[dict[str, Any]], counts: Counter[str]
    ) -> dict[str, Any]:
        """Return the whole report, without times and processes, so that it is the same each time."""
        runs = [one for item, one in zip(items, told, strict=True) if not item.is_store]
        store = [one for item, one in zip(items, told, strict=True) if item.is_store]
        return {
            "total": len(runs),
            "counts": {word: counts[word] for word in (self.good, *self.bad)},
            **({"store": store[0]} if store else {}),
            "runs": runs,
        }

    def _print(self, item: Item, outcome: Outcome, warnings: Sequence[str]) -> None:
        for text in warnings:
            self.session.out.line(("warning: ", "yellow"), clean(text), err=True)
        if self._is_told(outcome):
            self._tell_one(item, outcome)

    def _is_told(self, outcome: Outcome) -> bool:
        """Return whether a run is reported individually, and not only counted."""
        return outcome.verdict != self.good

    def _tell_one(self, item: Item, outcome: Outcome) -> None:
        out = self.session.out
        out.line((clean(item.name), "bold"))
        if outcome.error is None:
            self.tell(self.session, outcome.result)
        else:
            code, message, hint = (outcome.error[key] for key in ("code", "message", "hint"))
            out.line((outcome.verdict, "bold red"), f"  error[{code}]: {clean(message)}")
            if hint:
                out.line(f"  hint: {clean(hint)}")
        out.line()

    def _sum_up(self, counts: Counter[str], store: str, seconds: float) -> None:
        total = counts.total()
        cells: list[Cell] = [f"{total:,} run{'s' * (total != 1)}: "]
        for word in (self.good, *self.bad):
            if counts[word] or word == self.good:
                plural = "s" * (word == ERROR and counts[word] != 1)
                cells += [", "] * (len(cells) > 1) + [(f"{counts[word]:,} {word}{plural}", _STYLES[word])]
        if store != self.good:
            cells += [", ", (f"the store {store}", _STYLES[store])]
        self.session.out.line(*cells, f" in {duration(seconds * 1000)}")


def looked_at(
    look: Look, items: Sequence[Item], jobs: int, tests: Mapping[int, Golden]
) -> Generator[tuple[int, Outcome], None, None]:
    """Yield the outcome of each item, by position, in any order; those in `tests` are replayed by their tests."""
    if tests:
        yield from replay_test_goldens.outcomes(tests, jobs)
    rest = [index for index in range(len(items)) if index not in tests]
    if rest:
        left = [items[index] for index in rest]
        here = jobs == 1 and not look.drives
        came = worker_pool.in_this_process(look, left) if here else worker_pool.in_processes(look, left, jobs)
        with contextlib.closing(came):
            for index, outcome in came:
                yield rest[index], outcome


def _in_order(
    items: Sequence[Item],
    came: Generator[tuple[int, Outcome], None, None],
    note: Callable[[Item, Outcome], None],
) -> Iterator[tuple[Item, Outcome]]:
    """Yield the outcome of each item in their order, as soon as possible; `note` each as it comes."""
    early: dict[int, Outcome] = {}
    due = 0
    for index, outcome in came:
        note(items[index], outcome)
        early[index] = outcome
        while due in early:
            yield items[due], early.pop(due)
            due += 1


def _as_json(item: Item, outcome: Outcome) -> dict[str, Any]:
    if item.is_store and isinstance(outcome.result, VerifyResult):
        problems = [problem.to_json() for problem in outcome.result.problems]
        return {"url": item.name, "ok": outcome.result.ok, "problems": problems}
    told: dict[str, Any] = {"name": item.name, "verdict": outcome.verdict}
    if outcome.result is not None:
        told.update(outcome.result.to_json())
    if isinstance(outcome.result, ReplayResult):
        told["undeclared_io"] = list(outcome.undeclared)
    if outcome.error is not None:
        told["error"] = outcome.error
    return told


class _Bar:
    """The progress line on a terminal; nothing when stderr is no terminal."""

    def __init__(self, total: int, good: str, *, silent: bool) -> None:
        self._total = total
        self._good = good
        self._shown = not silent and on_terminal(sys.stderr)
        self._done: Counter[str] = Counter()
        self._drawn = 0.0

    def __enter__(self) -> Self:
        self._draw()
        return self

    def __exit__(self, *exc: object) -> None:
        self._write("\r\x1b[K")

    def step(self, item: Item, outcome: Outcome) -> None:
        """Count one more."""
        if not item.is_store:
            self._done[outcome.verdict] += 1
        if time.monotonic() - self._drawn >= _REDRAWN_AFTER:
            self._draw()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Remove the progress line while something else is printed."""
        self._write("\r\x1b[K")
        yield
        sys.stdout.flush()
        self._draw()

    def _draw(self) -> None:
        done = self._done.total()
        filled = _BAR * done // self._total
        found = "".join(
            f"  {count:,} {verdict}" for verdict, count in sorted(self._done.items()) if verdict != self._good
        )
        bar = "#" * filled + "." * (_BAR - filled)
        self._write(f"\r[{bar}] {done:,}/{self._total:,}{found}\x1b[K")
        self._drawn = time.monotonic()

    def _write(self, text: str) -> None:
        if not self._shown:
            return
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:  # nobody reads the output any more, which must not stop the work
            self._shown = False
