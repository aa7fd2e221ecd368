"""What all tests share: `tests/strategies.py` is importable (the tests are no package), and pytest tests itself."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]  # pytest wants it here, for the tests of the pytest plugin

_HERE = str(Path(__file__).parent)

if _HERE not in sys.path:
    sys.path.append(_HERE)

# a shell starts what it puts in the background deaf to these, and so is all that is started here in turn
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


_AT_EACH_CHANGE = frozenset({"agents", "clients", "engine", "io", "kernel", "stores", "torture"})
"""The folders of which slow tests too run at each change: what a crash, a kill or a race could lose."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        held = _AT_EACH_CHANGE & set(item.path.relative_to(_HERE).parts)
        if item.get_closest_marker("slow") and not held:
            item.add_marker("long")


@pytest.fixture
def pytester(pytester, monkeypatch):
    """Give a suite the same surroundings everywhere: where `CI` is set, pytest tells each failure twice."""
    for name in ("CI", "BUILD_NUMBER", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
        monkeypatch.delenv(name, raising=False)
    return pytester
