"""The pytest plugin: hooks and the `golden` fixture.

Every pytest session that can see this package loads this module, so it may import nothing heavy: whatever a
golden run needs is imported when a test requests `golden`. State is in the stash of the config, never in this
module.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from machine.testing.golden_options import MARKER, Mode, add_options, options_of
from machine.testing.golden_paths import claimant_of, shown
from machine.testing.golden_session import FIRST, KEY, PASSED, Ending, Session

if TYPE_CHECKING:
    from machine.testing.golden import Golden

_KIT: Final = [
    f"machine.testing.store_{part}"
    for part in ("conformance", "inbox", "keys", "leases", "model", "samples", "sharing")
]
_NAMES: Final = ("machine", "machine.testing.plugin")
"""Names of this module: as an entry point, and for -p."""


def pytest_plugin_registered(plugin: object, plugin_name: str, manager: pytest.PytestPluginManager) -> None:
    """Block the other name of this module, so that it is not registered twice: as an entry point and by -p."""
    if plugin_name in _NAMES and getattr(plugin, "__name__", None) == __name__:
        for name in _NAMES:
            if name != plugin_name:
                manager.set_blocked(name)


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the options, and exclude this package from assertion rewriting.

    Pytest rewrites every module of a distribution that has a plugin, so that failed asserts explain themselves.
    Here that takes seconds in each session without a bytecode cache, and only asserts of the conformance kit
    for stores are meant for users.
    """
    add_options(parser)
    hook = pluginmanager.rewrite_hook
    marked: set[str] = getattr(hook, "_must_rewrite", set())  # there is no public way to take a mark back
    if "machine" in marked:
        marked.remove("machine")
        hook.mark_rewrite(*_KIT)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and refuse contradictory options."""
    config.addinivalue_line("markers", MARKER)
    options = options_of(config)
    config.stash[KEY] = session = Session(options)
    worker = getattr(config, "workerinput", None)
    if worker is None:
        config.pluginmanager.register(_Once(session), "machine-golden-once")
    if options.writes:
        session.recordings = Path(worker["golden"]) if worker is not None else _folder_of(config)


def _folder_of(config: pytest.Config) -> Path:
    from machine.testing.golden_dead_sessions import own_folder  # noqa: PLC0415 - see the docstring of the module

    folder, release = own_folder()
    config.add_cleanup(release)
    return folder


def pytest_report_header(config: pytest.Config) -> str | None:
    """Return what the session does with goldens, unless it only replays them."""
    options = config.stash[KEY].options
    if options.mode is not Mode.REPLAY:
        return f"golden: {options.mode}"
    return f"golden: {options.how}" if options.update else "golden: review" if options.review else None


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Iterator[Golden]:
    """Return the golden runs of this test; `golden.check(plan, input=...)` fails where today's code differs."""
    from machine.testing.golden import Golden  # noqa: PLC0415 - see the docstring of the module

    with Golden.of(request.node) as found:
        yield found


# -- collection ----------------------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note the tests and their files before any test is deselected."""
    config.stash[KEY].collected(items)


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Note the paths with deselected tests."""
    for item in items:
        item.config.stash[KEY].partial.add(str(item.path))


@pytest.hookimpl(wrapper=True)
def pytest_ignore_collect(
    collection_path: Path, config: pytest.Config
) -> Generator[None, bool | None, bool | None]:
    """Note a test file that is ignored."""
    ignored = yield
    if ignored and collection_path.suffix == ".py":
        config.stash[KEY].partial.add(str(collection_path))
    return ignored


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Note a file that could not be collected or was skipped as a whole."""
    report = yield
    if not report.passed:
        collector.config.stash[KEY].partial.add(str(collector.path))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note the tests that passed: they need no goldens that they did not use."""
    report = yield
    session = item.config.stash[KEY]
    told = getattr(call.excinfo.value, "golden", None) if call.excinfo is not None else None
    if told is not None and report.failed:
        vars(report)["golden"] = told  # it goes with the report, also to the controller of pytest-xdist
    if call.when == "call" and report.passed and session.tests:
        session.done.add(claimant_of(item))
        item.stash[PASSED] = True
    return report


class _Once:
    """The report of a cause that several tests share: once, at the first; the others refer to it.

    Only the process that hears of all tests can do so: this session without pytest-xdist, the controller with
    it.
    """

    def __init__(self, session: Session) -> None:
        self._told = session.told

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        told = getattr(report, "golden", None)
        if told is None:
            return
        first = self._told.setdefault(told["alike"], told["test"])
        if first != told["test"]:
            report.longrepr = told["text"].replace(FIRST, first)


# -- end of the session --------------------------------------------------------------------------------------


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a pytest-xdist worker where to leave its recordings."""
    node.workerinput["golden"] = str(node.config.stash[KEY].recordings)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Replay the recordings in a fresh process, and store those that are identical there.

    The session's resources are released by now, including the workers; a failure here counts among its
    failures.
    """
    known = session.config.stash[KEY]
    try:
        return (yield)
    finally:
        if known.recordings is not None and not hasattr(session.config, "workerinput"):
            from machine.testing.golden_recording_end import settle  # noqa: PLC0415 - see the docstring of the module

            settle(session.config, known)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Add the report of a pytest-xdist worker."""
    del error
    node.config.stash[KEY].add(getattr(node, "workeroutput", {}).get("golden"))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Report to the controller, or look for goldens that no test uses."""
    config = session.config
    known = config.stash[KEY]
    if hasattr(config, "workeroutput"):
        config.workeroutput["golden"] = known.to_json()
        return
    _remove_leftovers(config, known)
    complete = exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}
    stopped = session.shouldstop or session.shouldfail or not known.whole
    if known.options.orphans == "ignore" or not complete or stopped or config.option.collectonly:
        return
    for file in known.orphans(_directories(config)):
        if known.options.allow_deletion:
            with contextlib.suppress(OSError):
                file.unlink()
        gone = not os.path.lexists(file)
        ending = Ending.DELETED if gone else Ending.ORPHANED
        known.ended(ending, f"{ending} {shown(file, config)}{'' if gone else ': no test uses it'}")
    if known.counts[Ending.ORPHANED] and known.options.orphans == "fail":
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _remove_leftovers(config: pytest.Config, known: Session) -> None:
    """Remove files that a killed session left half written next to the goldens."""
    found = [file for folder in sorted(known.folders) for file in Path(folder).glob(".machine-*.tmp")]
    if found:
        from machine.testing.golden_dead_sessions import removed  # noqa: PLC0415 - see the docstring of the module

        known.notes += [
            f"removed {shown(file, config)}: left by a session that was killed" for file in removed(found)
        ]


def _directories(config: pytest.Config) -> Iterator[Path]:
    for argument in config.args:
        path = config.invocation_params.dir / argument
        if path.is_dir():
            yield path


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the summary of the goldens."""
    known = config.stash[KEY]
    for note in known.notes:
        terminalreporter.write_line(f"golden: {note}")
    if line := known.summary():
        terminalreporter.write_line(line, green=known.good, red=not known.good)
    for hint in known.hints():
        terminalreporter.write_line(f"  {hint}")
