"""A pytest session in a fresh process, which runs selected tests again and replays each of their checks.

It is set up as pytest-xdist sets up a worker, with the options of the calling session. Plugins treat it as a
worker, so none of them overwrites a report, a cache or coverage of the calling session.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, Final, TextIO

import pytest
from _pytest.config import Config, _prepareconfig

from machine import codec
from machine.errors import MachineError
from machine.testing import golden_check
from machine.testing.golden_check import Wanted
from machine.testing.golden_options import Asked
from machine.testing.golden_paths import claimant_of
from machine.testing.golden_session import KEY
from machine.testing.golden_unlike import Unlike

_WITHOUT: Final = ("terminal", "pytest_cov")
"""Plugins that are disabled there: one only prints, and one would measure coverage even in a worker."""

_IMPORTED_BEFORE: Final = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
"""A warning that projects may treat as an error: this module's imports precede pytest's rewriting."""

_LINES: Final = 12


def check(job: Mapping[str, Any], out: TextIO, set_date: Callable[[int], None] | None) -> None:
    """Run the tests of a job, and write the findings as lines of JSON.

    With `set_date`, each replay begins at the instant at which its recording began.
    """
    found = _Found(job, out, set_date)
    plugins = [*_IMPORTED_BEFORE, *(part for name in job["plugins"] for part in ("-p", name))]
    without = [part for name in _WITHOUT for part in ("-p", f"no:{name}")]
    try:
        if job["worker"] is None:
            config = _prepareconfig([*plugins, *job["args"]])
            vars(config.option).update(job["options"])
        else:
            config = Config.fromdictargs(job["options"], [*plugins, *without, *job["args"]])
            config.args = job["files"] or config.args
            config.workerinput = job["worker"]  # type: ignore[attr-defined]
            config.workeroutput = {}  # type: ignore[attr-defined]
        config.pluginmanager.register(found, "machine-fresh-session")
        code = config.hook.pytest_cmdline_main(config=config)
    except BaseException as exc:
        found.say(problem=f"{type(exc).__qualname__}: {exc}".rstrip(": "))
        raise
    if code not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED}:
        found.say(problem=f"pytest ended there with exit code {int(code or 0)}")


class _Found:
    """The plugin that selects the tests, answers their checks, and reports the result of each."""

    def __init__(self, job: Mapping[str, Any], out: TextIO, set_date: Callable[[int], None] | None) -> None:
        self._chosen = {one["test"] for one in job["goldens"]}
        self._recorded = {(one["test"], one["name"]): one for one in job["goldens"]}
        self._files = {one["golden"]: one for one in job["goldens"]}
        self._tests: dict[str, str] = {}  # by node id
        self._out = out
        self._set_date = set_date

    def say(self, **what: Any) -> None:
        """Write one line and flush it, since a test may end the process."""
        self._out.write(json.dumps(what) + "\n")
        self._out.flush()

    # -- session -----------------------------------------------------------------------------------------

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        session.config.stash[KEY].fresh = self.checked

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self._tests = {item.nodeid: test for item in items if (test := claimant_of(item)) in self._chosen}
        items[:] = [item for item in items if item.nodeid in self._tests]
        self.say(collected=sorted(self._tests.values()))

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        report = yield
        if not report.passed:
            self.say(uncollected=str(collector.path), why=_last_lines(report.longreprtext))
        return report

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.say(begun=self._tests[nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            why = ["it was skipped there"] if report.skipped else _last_lines(report.longreprtext)
            self.say(failed=self._tests[report.nodeid], why=why)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.say(ended=self._tests[nodeid])

    # -- checks ------------------------------------------------------------------------------------------

    async def checked(
        self, test: str, name: str | None, file: Path, wanted: Wanted, asked: Asked
    ) -> golden_check.Recording:
        """Replay what a check recorded, report the result, and give the test the recorded outcome."""
        chosen = self._files.get(str(file)) or self._recorded.get((test, name))
        with golden_check.opened(Path(chosen["golden"]) if chosen else file) as golden:
            if chosen is not None:
                await self._tell(chosen, golden, wanted, asked)
            return golden

    async def _tell(
        self, chosen: Mapping[str, Any], golden: golden_check.Recording, wanted: Wanted, asked: Asked
    ) -> None:
        result = None
        try:
            found = golden_check.unfinished(golden) or golden_check.manifest_difference(golden, wanted)
            if found is None:
                if self._set_date is not None:
                    self._set_date((golden.past.history.started_ms or 0) * 10**6)
                result = await golden_check.replayed(golden, wanted)
                found = golden_check.difference_of(result, asked)
        except (MachineError, OSError) as exc:
            found = golden_check.problem_of(exc)
        self.say(
            golden=chosen["golden"],
            unlike=_as_json(found),
            result=None if result is None else codec.to_json(result),
        )


def _as_json(unlike: Unlike | None) -> dict[str, Any] | None:
    return None if unlike is None else {"title": unlike.title, "lines": list(unlike.lines)}


def _last_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()][-_LINES:]
