"""A suite of golden tests as a user has it: a plan, tests beside it, and pytest with the plugin."""

from __future__ import annotations

import sys
from pathlib import Path

import attrs
import pytest

import machine.testing.golden  # noqa: F401 - loaded once here, or every inner session would load it again

PLAN = """
from machine import Plan

plan = Plan("prices", version="1")


@plan.state("fetch.data", side_effects="read_only_io")
async def data(ctx, io, rec):
    ctx["text"] = (await io.read_file("world.txt")).text


@plan.state("compute.total", after=[data])
def total(ctx, io, rec):
    ctx["total"] = int(ctx["text"]) * 2 + ctx.get("add", 0)
"""

TEST = """
from prices import plan


def test_prices(golden):
    assert golden.check(plan, input={"add": 1}).context["total"] == 25
"""


WITHOUT = tuple(
    part for name in ("hypothesispytest", "benchmark", "timeout") for part in ("-p", f"no:{name}")
)
"""Not the plugins that only take time."""

PLUGINS = ("-p", "machine.testing.plugin", *WITHOUT)
"""Ours, and not those."""


@attrs.frozen
class Suite:
    """A directory with tests in it, and pytest."""

    pytester: pytest.Pytester

    @property
    def path(self) -> Path:
        return self.pytester.path

    @property
    def fixtures(self) -> list[str]:
        """The names of the goldens, sorted."""
        return sorted(path.name for path in self.path.rglob("fixtures/*"))

    def golden(self, name: str = "test_prices") -> Path:
        """Return the path of a golden."""
        return self.path / "fixtures" / f"{name}.run"

    def write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def change(self, old: str, new: str, name: str = "prices.py") -> None:
        """Change the code."""
        text = (self.path / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new))

    def unplug(self) -> None:
        """Take the outside away: what goes there fails from now on."""
        (self.path / "world.txt").unlink()

    def run(self, *args: str) -> pytest.RunResult:
        """Run pytest in this process, without what the suite around has."""
        return self.pytester.runpytest_inprocess(*PLUGINS, "-p", "no:cacheprovider", *args)

    def process(self, *args: str) -> pytest.RunResult:
        """Run pytest in a process of its own."""
        return self.pytester.runpytest_subprocess(*PLUGINS, *args, timeout=60)


def empty_suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """Return a suite without a test, in a directory of its own, with nothing of the suite around it."""
    # a changed plan may be as old and as long as before
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    made = Suite(pytester)
    made.write("pytest.ini", "[pytest]\npythonpath = .\naddopts = --strict-markers\n")
    return made


def said(result: pytest.RunResult) -> str:
    """Return everything that pytest printed."""
    return "\n".join((*result.outlines, *result.errlines))
