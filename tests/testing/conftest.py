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
def first_recording():
    """Keep the golden that was recorded first: each recording is replayed in another process, which takes time."""
    return {}


@pytest.fixture
def recorded(suite, first_recording):
    """Give a suite of one golden test whose golden is recorded, with the outside unplugged."""
    if "golden" not in first_recording:
        suite.run("--golden=record-missing").assert_outcomes(passed=1)
        first_recording["golden"] = suite.golden().read_bytes()
    suite.golden().parent.mkdir(exist_ok=True)
    suite.golden().write_bytes(first_recording["golden"])
    suite.unplug()
    return suite
