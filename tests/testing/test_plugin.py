"""The plugin in a pytest session: what it costs, how it is loaded, which options it refuses, and how it asks."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from golden_suite import WITHOUT, said

ROOT = Path(__file__).parents[2]
HEAVY = {
    "anyio",
    "asyncio",
    "httpx",
    "attrs",
    "attr",
    "cattrs",
    "blake3",
    "orjson",
    "rich",
    "cyclopts",
    "hypothesis",
}


LIGHT = {f"machine.testing.{name}" for name in ("plugin", "golden_paths", "golden_options", "golden_session")}
LIGHT |= {"machine.lazy_loading"}


# -- what it costs -------------------------------------------------------------------------------------------


def test_loading_the_plugin_loads_nothing_that_a_golden_run_needs():
    probe = (
        "import sys, json, pytest; before = set(sys.modules)\n"
        "import machine.testing.plugin\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(json.loads(done.stdout))
    assert "machine.testing.plugin" in loaded
    assert sorted(HEAVY & {name.split(".")[0] for name in loaded}) == []
    assert {name for name in loaded if name.startswith("machine.")} == {"machine.testing", *LIGHT}


@pytest.mark.parametrize("args", [["--collect-only"], []], ids=["collect", "run"])
def test_a_suite_without_golden_tests_never_loads_what_they_need(suite, args):
    suite.write("test_prices.py", "def test_nothing():\n    pass\n")
    suite.write(
        "conftest.py",
        "import sys\n\n\ndef pytest_unconfigure(config):\n"
        "    print('loaded', sorted(name for name in sys.modules if name.startswith(('machine.', 'cattrs'))))\n",
    )
    result = suite.process("-p", "no:anyio", *args)
    assert result.ret == 0
    (line,) = [line for line in result.outlines if line.startswith("loaded")]
    assert "machine.testing.golden_session" in line
    assert "cattrs" not in line
    assert "machine.engine" not in line
    assert "'machine.testing.golden'" not in line
    assert "golden:" not in said(result)


@pytest.mark.parametrize("args", [[], ["-n", "1"]], ids=["alone", "xdist"])
@pytest.mark.long
def test_pytest_compiles_none_of_the_package_anew_but_the_kit_whose_asserts_it_is_to_explain(installed, args):
    """Pytest rewrites all of a distribution that has a plugin, which takes seconds, in each worker too."""
    record = installed.path / "site" / "golden_probe-1.dist-info" / "RECORD"
    record.write_text("machine/__init__.py,,\n")
    before = {"machine.testing", *LIGHT}
    installed.write(
        "test_prices.py",
        f"BEFORE = {before}\n"
        """
import sys
import machine.testing.golden
from machine.testing import StoreConformance
from _pytest.assertion.rewrite import AssertionRewritingHook


def test_which_are_rewritten():
    found = {
        name
        for name, module in sys.modules.items()
        if name.startswith("machine.") and isinstance(module.__loader__, AssertionRewritingHook)
    }
    kit = {name for name in sys.modules if name.startswith("machine.testing.store_")}
    assert kit and kit <= found
    assert found - kit <= BEFORE  # by the plugin itself
""",
    )
    result = installed.pytester.runpytest_subprocess("-p", "no:cacheprovider", *args, timeout=60)
    result.assert_outcomes(passed=1)


# -- how it is loaded ----------------------------------------------------------------------------------------


@pytest.fixture
def installed(suite, monkeypatch):
    """Make the plugin an entry point, as an installed package has it."""
    info = suite.path / "site" / "golden_probe-1.dist-info"
    suite.write(f"site/{info.name}/METADATA", "Metadata-Version: 2.1\nName: golden-probe\nVersion: 1\n")
    suite.write(f"site/{info.name}/entry_points.txt", "[pytest11]\nmachine = machine.testing.plugin\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), str(info.parent))))
    suite.write(
        "pytest.ini", "[pytest]\npythonpath = .\nfilterwarnings = error\naddopts = --strict-markers -ra\n"
    )
    return suite


@pytest.mark.slow
@pytest.mark.parametrize(
    "args",
    [
        [],
        ["-p", "machine.testing.plugin"],
        ["-p", "machine"],
        ["-n", "2"],
        ["-n", "2", "-p", "machine.testing.plugin"],
    ],
    ids=" ".join,
)
def test_an_entry_point_and_an_option_load_it_once(installed, args):
    result = installed.pytester.runpytest_subprocess(*WITHOUT, "--golden=record-missing", *args, timeout=60)
    result.assert_outcomes(passed=1)
    assert said(result).count("golden: 1 new") == 1
    assert installed.fixtures == ["test_prices.run"]


@pytest.mark.slow
def test_a_conftest_that_names_it_loads_it_once(installed):
    installed.write("conftest.py", "pytest_plugins = ['machine.testing.plugin']\n")
    result = installed.pytester.runpytest_subprocess(*WITHOUT, "--golden=record-missing", timeout=60)
    result.assert_outcomes(passed=1)


def test_it_can_be_left_out(installed):
    result = installed.pytester.runpytest_subprocess(*WITHOUT, "-p", "no:machine", timeout=60)
    result.assert_outcomes(errors=1)
    assert "fixture 'golden' not found" in said(result)


def test_this_package_names_it_as_an_entry_point():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"] == {"pytest11": {"machine": "machine.testing.plugin"}}


def test_the_marker_and_the_options_are_listed(suite):
    assert "@pytest.mark.golden(path=None, max_age=None" in said(suite.run("--markers"))
    text = said(suite.run("--help"))
    for option in (
        "--golden=MODE",
        "--golden-update",
        "--golden-review",
        "--golden-max-age",
        "--golden-orphans",
    ):
        assert option in text
    assert "golden -- " in said(suite.run("--fixtures"))


# -- options that contradict each other ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--golden=once"], "invalid choice"),
        (["--golden-update", "--golden-review"], "give one of them"),
        (["--golden-update", "--golden=record"], "it does not go with --golden=record"),
        (["--golden-update", "--golden=verify-live"], "it does not go with --golden=verify-live"),
        (["--golden-review", "--golden=record-missing"], "it does not go with --golden=record-missing"),
        (["--golden-allow-deletion", "--golden-orphans=ignore"], "needs orphans to be looked for"),
        (["--golden-review", "-n", "2"], "which workers do not have"),
        (["--golden-review"], "stdin is none"),
        (["--golden-review", "-s"], "stdin is none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_cannot_be_are_usage_errors(suite, args, words):
    result = suite.run(*args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert words in said(result)
    assert suite.fixtures == []


# -- asking --------------------------------------------------------------------------------------------------


class Terminal:
    """A pytest session on a terminal, with somebody who answers."""

    def __init__(self, suite, *args):
        self.text = ""
        master, slave = pty.openpty()
        self.master = master
        self.heard = 0
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "machine.testing.plugin",
            "-p",
            "no:cacheprovider",
            *WITHOUT,
            *args,
        ]
        self.child = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=suite.path)
        os.close(slave)

    def expect(self, words):
        """Read until the words were said, after those that were expected the last time."""
        deadline = time.monotonic() + 60
        while (found := self.text.find(words, self.heard)) < 0:
            assert time.monotonic() < deadline, self.text
            assert self._read(), self.text
        self.heard = found + len(words)

    def _read(self):
        ready, _, _ = select.select([self.master], [], [], 1)
        if ready:
            try:
                data = os.read(self.master, 65536)
            except OSError:  # the session has closed its end
                data = b""
            self.text += data.decode().replace("\r\n", "\n")
            return bool(data)
        return True

    def answer(self, text):
        os.write(self.master, f"{text}\n".encode())

    def end(self):
        while self._read():
            pass
        os.close(self.master)
        return self.child.wait(60)


TWO = """
from prices import plan


def test_prices(golden):
    print("not to be seen")
    golden.check(plan, input={"add": 1})


def test_second(golden):
    golden.check(plan, input={"add": 2})


def test_third(golden):
    golden.check(plan, input={"add": 3}, name="new")
"""


@pytest.fixture
def changed(suite, as_recorded):
    """Give a suite of three golden tests: two whose plan has changed, and a new one."""
    suite.write("test_prices.py", TWO)
    as_recorded(suite, passed=3)
    suite.golden("test_third.new").unlink()
    suite.change("* 2", "* 3")
    return suite


QUESTION = "a(ll of this cause), q(uit asking): "


@pytest.mark.slow
def test_a_review_shows_each_change_and_records_what_is_accepted(changed):
    before = changed.golden("test_second").read_bytes()
    session = Terminal(changed, "--golden-review")
    session.expect(QUESTION)
    assert "NOW       37" in session.text
    assert "golden run diverged: fixtures/test_prices.run" in session.text
    session.answer("what?")
    session.expect(QUESTION)
    session.answer("y")
    session.expect(QUESTION)
    session.answer("n")
    session.expect(QUESTION)
    assert "golden run missing: fixtures/test_third.new.run" in session.text
    session.answer("yes")
    assert session.end() == 1
    assert "golden: 1 updated, 1 new, 1 diverged" in session.text
    assert "not to be seen" not in session.text
    assert changed.golden("test_second").read_bytes() == before
    changed.unplug()
    changed.run().assert_outcomes(passed=2, failed=1)


@pytest.mark.slow
def test_one_answer_serves_for_all_of_one_cause(changed):
    session = Terminal(changed, "--golden-review")
    session.expect(QUESTION)
    session.answer("a")
    session.expect("there is no golden run yet")  # another cause: asked again
    session.expect(QUESTION)
    session.answer("q")
    assert session.end() == 1
    assert session.text.count(QUESTION) == 2
    assert "golden: 2 updated, 1 missing" in session.text
    assert "golden run diverged: fixtures/test_second.run" in session.text  # shown, although nobody was asked
    assert "accepted with all of this cause" in session.text


@pytest.mark.slow
def test_who_quits_is_asked_no_more_and_nothing_is_recorded(changed):
    before = {path: path.read_bytes() for path in changed.path.glob("fixtures/*")}
    session = Terminal(changed, "--golden-review", "-s")
    session.expect(QUESTION)
    session.answer("q")
    assert session.end() == 1
    assert session.text.count(QUESTION) == 1
    assert {path: path.read_bytes() for path in changed.path.glob("fixtures/*")} == before


@pytest.mark.slow
def test_a_review_shows_all_that_differs_before_it_asks(suite):
    suite.write(
        "prices.py",
        """
from machine import Plan

plan = Plan("prices")


@plan.state("a.first")
def first(ctx, io, rec):
    ctx["rows"] = {f"row-{number:02}": "x" * 80 + str(number * 1) for number in range(20)}


@plan.state("b.second", after=[first])
def second(ctx, io, rec):
    ctx["word"] = "before"
""",
    )
    suite.write(
        "test_prices.py", "from prices import plan\n\n\ndef test_prices(golden):\n    golden.check(plan)\n"
    )
    suite.run("--golden=record-missing").assert_outcomes(passed=1)
    suite.change("number * 1", "number * 2")
    suite.change("before", "after")
    text = said(suite.run())
    assert "... and" in text
    session = Terminal(suite, "--golden-review")
    session.expect(QUESTION)
    for number in range(1, 20):
        assert f"/rows/row-{number:02}" in session.text
        assert "x" * 80 + f'{number * 2}"' in session.text
    assert 'NOW       "after"' in session.text
    titles = re.findall(r"^snapshot differs at .*$", session.text, re.MULTILINE)
    assert titles
    assert len(titles) == len(set(titles))
    session.answer("n")
    assert session.end() == 1
