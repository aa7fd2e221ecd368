"""`machine retry` on the command line, and what `runs`, `show` and `cancel` say of failure paths."""

from __future__ import annotations

PLAN = """
from machine import Plan

plan = Plan("jobs")


@plan.state("a.read")
async def read(ctx, io):
    ctx["at"] = await io.now()


@plan.state("a.extra", after=[read], on_error="skip")
def extra(ctx):
    raise ValueError("not today")


@plan.state("a.work", after=[extra])
def work(ctx):
    BODY


@plan.state("z.undo", run="on_failure")
def undo(ctx):
    raise RuntimeError("cannot be undone")
"""
BROKEN = PLAN.replace("BODY", 'raise KeyError("price")')
MENDED = PLAN.replace("BODY", 'ctx["done"] = True')


def test_a_failed_run_is_retried_and_the_chain_is_shown(machine, write):
    write("jobs.py", BROKEN)
    said = machine("run", "jobs.py")
    assert said.code == 1
    assert "the run went on without a.extra, which failed" in said.err
    assert "the cleanup failed in z.undo" in said.err
    first = machine("runs", "--json").json["runs"][0]["run_id"]
    assert f"once it is repaired: machine retry {first}" in said.err

    write("jobs.py", MENDED)
    again = machine("retry", first, "--from", "a.read", "--json").json
    assert (again["status"], again["parent"]["run_id"]) == ("completed", first)
    assert again["skipped"] == ["jobs.a.extra"]
    rows = machine("runs", "--json").json["runs"]
    assert [(row["retry_of"], row["skipped"]) for row in rows] == [(first, 1), (None, 1)]
    assert f"retry of {first[:18]}" in machine("runs").out
    assert "1 skipped for its failure" in machine("runs").out
    assert "retry of" in machine("show", "@last").out
    assert machine("show", first, "--json").json["retried_as"] == again["run_id"]
    shown = machine("show", first)
    assert f"retried as: {again['run_id']}" in shown.err
    assert "once it is repaired" not in shown.err
    assert f"retried as: {again['run_id']}" in machine("resume", first).err
    assert machine("replay", "@last").code == 0

    refused = machine("retry", first)
    assert (refused.code, "error[retried_already]" in refused.err) == (1, True)
    refused = machine("retry", "@last")
    assert (refused.code, "error[not_failed]" in refused.err) == (1, True)


def test_a_run_that_went_on_without_a_state_exits_with_0(machine, write):
    write("jobs.py", MENDED)
    said = machine("run", "jobs.py")
    assert said.code == 0
    shown = machine("show", "@last", "--json").json
    assert (shown["status"], shown["error"]) == ("completed", None)
    states = {state["state_id"]: state for state in shown["states"]}
    assert states["jobs.a.extra"]["reason"] == "failed:handler_error"
    assert "it failed: handler_error" in machine("show", "@last").out
    assert "nothing failed" in machine("show", "@last").out
    assert "cleanup_begun" in machine("events", "@last").out


def test_a_retry_from_a_state_that_did_not_begin_is_refused_without_a_traceback(machine, write):
    write("jobs.py", BROKEN)
    machine("run", "jobs.py")
    for name in ("z.undo", "a.none", "no name"):
        said = machine("retry", "@last", "--from", name)
        assert said.code == 2, said.err
        assert "Traceback" not in said.err
    assert len(machine("runs", "--json").json["runs"]) == 1


def test_all_that_failed_of_one_fault_are_retried(machine, write):
    write("jobs.py", BROKEN)
    failed = [machine("run", "jobs.py", "--json").json["run_id"] for _ in range(2)]
    write("jobs.py", MENDED)
    where = ("--where", 'state = "a.work" and error.code = "handler_error"')
    shown = machine("retry", *where, "--dry-run", "--json").json
    assert [run["run_id"] for run in shown["runs"]] == failed
    assert len(machine("runs", "--json").json["runs"]) == 2

    said = machine("retry", *where)
    assert (said.code, said.out.count("retried as")) == (0, 2), said.err
    again = machine("retry", *where, "--json").json
    assert (again["total"], again["failed"]) == (0, 0)
    assert machine("retry").code == 2
    assert machine("retry", "@last", *where).code == 2


def test_a_retry_that_fails_again_is_counted(machine, write):
    write("jobs.py", BROKEN)
    machine("run", "jobs.py")
    said = machine("retry", "--where", "age >= 0s")
    assert said.code == 1
    assert "handler_error" in said.out
