"""The command line as a user has it: a directory with a plan in it, and a prompt."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import textwrap
from pathlib import Path

import attrs
import pytest
from crashes import left_after

from machine import open_store, run
from machine.cli import main
from machine.target import load

PLAN = """
from machine import Plan

plan = Plan("prices", version="1")


@plan.state("fetch.data", tags=["fetch_data"])
async def data(ctx, io, rec):
    out = await io.exec(["printf", "12"])
    ctx["n"] = int(out.stdout)
    ctx["home"] = await io.env("MACHINE_TEST_HOME")


@plan.state("compute.total", after=[data])
def total(ctx, io, rec):
    ctx["total"] = ctx["n"] * 2 + ctx.get("add", 0)


@plan.state("report.render", after=[total], tags=["report"], side_effects="apply_side_effect",
            idempotency="r")
async def render(ctx, io, rec):
    await io.write_file("out.txt", str(ctx["total"]))
"""


@attrs.frozen
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """The one JSON object on stdout."""
        return json.loads(self.out)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in an empty directory, with nothing of the outside that could matter."""
    monkeypatch.chdir(tmp_path)
    for name in ("MACHINE_STORE", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def write(here):
    """Write a file of this directory."""

    def write_it(name, text):
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return write_it


@pytest.fixture
def machine(here, capfd):
    """Run one command in this process."""

    def run_it(*argv):
        capfd.readouterr()
        code = main([str(arg) for arg in argv])
        out, err = capfd.readouterr()
        return Said(code, out, err)

    return run_it


@pytest.fixture
def process(here):
    """Run one command in a process of its own."""

    def run_it(*argv, **options):
        done = subprocess.run(
            [sys.executable, "-m", "machine", *map(str, argv)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **options,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    return run_it


@pytest.fixture
def plan_file(write):
    """Write a plan of three states: `prices.py`."""
    return write("prices.py", PLAN)


@pytest.fixture
def recorded(machine, plan_file):
    """Record a run of `prices.py` and give its id."""
    said = machine("run", "prices.py", "--json", "--input", '{"add": 1}')
    assert said.code == 0, said.err
    return said.json["run_id"]


@pytest.fixture(scope="session")
def one_run(tmp_path_factory):
    """Record one run of `prices.py` for all tests that only look at it."""
    place = tmp_path_factory.mktemp("one_run")
    (place / "prices.py").write_text(PLAN)
    url = f"sqlite:///{place}/runs.db"
    loaded = load("prices.py", place)
    with open_store(url) as store, contextlib.chdir(place):
        return url, run(loaded.plan, store=store, input={"add": 1}, target=loaded.target).run_id


@pytest.fixture
def kept(here, one_run, monkeypatch):
    """Give the id of a completed run of `prices.py` in a store that must not be written."""
    url, run_id = one_run
    monkeypatch.setenv("MACHINE_STORE", url)
    return run_id


@pytest.fixture
def crashed(recorded):
    """Make a run of `prices.py` that a crash has left behind after so many events."""

    def crash(after):
        with open_store("sqlite:///.machine/runs.db") as store:
            return left_after(store, recorded, after)

    return crash


@pytest.fixture
def environment():
    """Give the environment for a process that must not inherit a store or a wish for colour."""
    return {key: value for key, value in os.environ.items() if key not in {"MACHINE_STORE", "NO_COLOR"}}


@pytest.fixture
def on_terminal(environment):
    """Run a command with its output on a terminal of 80 columns; give its exit code and what the terminal got."""

    def run_it(*argv, **more):
        main, side = pty.openpty()
        child = subprocess.Popen(
            [sys.executable, "-m", "machine", *argv],
            stdin=subprocess.DEVNULL,
            stdout=side,
            stderr=side,
            env={**environment, "COLUMNS": "80", "TERM": "xterm", **more},
        )
        os.close(side)
        got = b""
        while True:
            try:
                chunk = os.read(main, 65536)
            except OSError:  # how Linux says that the other side has closed
                break
            if not chunk:
                break
            got += chunk
        os.close(main)
        return child.wait(timeout=20), got.decode().replace("\r\n", "\n")

    return run_it


@pytest.fixture
def docs():
    """Give the directory of the project's documents."""
    return Path(__file__).parents[2] / "docs"
