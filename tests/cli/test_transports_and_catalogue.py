"""The transports and the catalogue of a plan on the command line, and what is done where they are missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import machine as library
from machine import open_store

OWNED = """
import anyio, attrs, os, signal, sys
from machine import DomainEvent, Plan
from machine.catalogue import STANDARD
from machine.io.transport import BaseTransport


@attrs.frozen
class Sold:
    rows: int


class Database(BaseTransport):
    one_effect_per_key = True

    def is_effect(self, namespace, request):
        return namespace == "db.insert"

    def with_idempotency_key(self, namespace, request, key):
        return {**request, "key": key}

    async def perform(self, namespace, request):
        if os.path.exists("killed"):
            os.remove("killed")
            os.kill(os.getpid(), signal.SIGKILL)
        return {"rows": 3}


def plan_of(**owned):
    plan = Plan("sales", **owned)

    @plan.state
    async def query(ctx, io, rec):
        ctx["at"] = await io.now()
        ctx["rows"] = (await io.call("db.query", {})).response["rows"]

    @plan.state(after=[query], side_effects="apply_side_effect", idempotency="sale")
    async def insert(ctx, io, rec):
        ctx["rows"] = (await io.call("db.insert", {"rows": ctx["rows"]})).response["rows"]
        await rec.emit(DomainEvent("sold", Sold(ctx["rows"])))

    return plan


lent = {"transports": {"db": Database()}, "catalogue": STANDARD.register("sold", Sold)}
made = {"transports": {"db": lambda: Database()}, "catalogue": lent["catalogue"]}
owning, making, bare = plan_of(**lent), plan_of(**made), plan_of()
"""

DRIVER = """
import sys
from jobs import bare, lent
from machine import open_store, resume, run

with open_store("sqlite:///.machine/runs.db") as store:
    if sys.argv[1:]:
        print(resume(sys.argv[1], plan=bare, store=store, **lent).status)
    else:
        run(bare, store=store, **lent)
"""


@pytest.fixture
def jobs(write):
    return write("jobs.py", OWNED)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["owning", "making"])
def test_every_command_has_what_the_plan_owns(machine, here, jobs, name):
    target = f"jobs.py:{name}"
    assert machine("run", target).code == 0
    slow = (("torture", target, "--fault", "torn_write"), ("doctor", target))
    for command in (
        ("replay", "@last"),
        ("compare", "@last"),
        ("resume", "@last"),
        ("run", target, "--dry-run"),
        ("run", target, "--paranoid"),
        ("run", target, "--concurrency", "2"),
        ("replay", "@last", "--schedules", "2"),
        ("fork", "@last", "--at", "1"),
        *(slow if name == "making" else ()),
    ):
        said = machine(*command)
        assert said.code == 0, (command, said.err, said.out)


@pytest.fixture
def killed(write, jobs):
    """Give the id of a run that was started from Python with what it was lent, and killed in its first call."""
    write("prog.py", DRIVER)
    write("killed", "")
    assert driven().returncode == -signal.SIGKILL
    with open_store("sqlite:///.machine/runs.db") as store:
        return store.list_runs().rows[0].run_id


def driven(*argv):
    """Drive the run from Python, in a process of its own, with what it was lent."""
    root = str(Path(library.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "prog.py", *argv],
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
    )


def log_of(run_id):
    with open_store("sqlite:///.machine/runs.db") as store:
        return [stored.data for stored in store.read_range(run_id)]


def test_a_forgetful_command_is_refused_and_leaves_the_run_as_it_was(machine, killed):
    before = log_of(killed)
    for command in (("resume", "@last"), ("fork", "@last", "--at", "1")):
        said = machine(*command, "--target", "jobs.py:bare")
        assert said.code == 2
        assert said.err.startswith("error[transport_missing]: ")
        assert "the transport db" in said.err
        assert "Plan(..., transports={'db': ...})" in said.err
        assert f"{command[0]}(..., transports=" in said.err
        assert "Traceback" not in said.err
        assert (
            machine(*command, "--target", "jobs.py:bare", "--json").json["error"]["code"]
            == "transport_missing"
        )
    assert log_of(killed) == before
    with open_store("sqlite:///.machine/runs.db") as store:
        assert len(store.list_runs().rows) == 1
    done = driven(killed)
    assert done.stdout.strip() == "completed", done.stderr


def test_a_command_with_a_plan_that_owns_it_goes_on_and_any_plan_replays(machine, killed):
    said = machine("resume", "@last", "--target", "jobs.py:owning")
    assert said.code == 0, said.err
    for name in ("owning", "making", "bare"):
        assert machine("replay", "@last", "--target", f"jobs.py:{name}").code == 0


def test_a_run_whose_transports_are_missing_can_be_cancelled(machine, killed):
    assert (
        machine("cancel", "@last").code == 130
        or machine("show", "@last", "--json").json["status"] == "cancelled"
    )
