"""Suites of golden tests, in a directory of their own and with nothing of the suite around them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from golden_suite import PLAN, TEST, Suite


@pytest.fixture
def suite(pytester, monkeypatch):
    """Give a suite of one golden test that has no golden yet."""
    for name in ("CI", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        sys, "dont_write_bytecode", True
    )  # a changed plan may be as old and as long as before
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    made = Suite(pytester)
    made.write("pytest.ini", "[pytest]\npythonpath = .\naddopts = --strict-markers\n")
    made.write("world.txt", "12")
    made.write("prices.py", PLAN)
    made.write("test_prices.py", TEST)
    return made


@pytest.fixture(scope="session")
def recordings():
    """Keep the goldens of each file of tests: a recording is replayed in another process, which takes time."""
    return {}


@pytest.fixture
def as_recorded(recordings):
    """Give a function that records a suite whose tests pass, or brings what was recorded of the same tests."""

    def record(suite, **outcomes):
        tests = (suite.path / "test_prices.py").read_text()
        if tests not in recordings:
            suite.run("--golden=record-missing").assert_outcomes(**outcomes)
            recordings[tests] = {
                name: (suite.path / "fixtures" / name).read_bytes() for name in suite.fixtures
            }
        for name, data in recordings[tests].items():
            suite.write(f"fixtures/{name}", "")
            (suite.path / "fixtures" / name).write_bytes(data)

    return record


@pytest.fixture
def recorded(suite, as_recorded):
    """Give a suite of one golden test whose golden is recorded, with the outside unplugged."""
    as_recorded(suite, passed=1)
    suite.unplug()
    return suite
