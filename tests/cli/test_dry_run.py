"""`machine run --dry-run`: the effects stay undone, and the report says what they would have been."""

from __future__ import annotations

BROKEN = """
from machine import Plan

plan = Plan("pay")


@plan.state("a.send", side_effects="apply_side_effect", idempotency="k")
async def send(ctx, io, rec):
    ctx["receipt"] = (await io.exec(["true"])).returncode


@plan.state("b.file", after=[send])
def file(ctx, io, rec):
    ctx["filed"] = ctx["receipt"]
"""


def test_a_dry_run_writes_no_file_and_says_which_it_would_write(machine, plan_file, here):
    said = machine("run", "prices.py", "--dry-run", "--quiet")
    assert said.code == 0, said.err
    assert not (here / "out.txt").exists()
    lines = [line.split() for line in said.out.splitlines()]
    assert ["prices.report.render", "skip", "skip_tag:apply_side_effect"] in lines
    assert ["prices.compute.total", "run", "completed"] in lines
    assert ["not", "applied", "prices.report.render"] in lines
    assert 'file.write {"data": {"text": "24"}, "path": "out.txt"}' in said.out


def test_with_json_it_is_the_object_of_a_run_with_the_report_in_it(machine, plan_file, here):
    said = machine("run", "prices.py", "--dry-run", "--json").json
    real = machine("run", "prices.py", "--json").json
    assert set(said) - set(real) == {"states", "effects", "missed"}
    assert said["states"][2] == {
        "id": "prices.report.render",
        "action": "skip",
        "reason": "skip_tag:apply_side_effect",
    }
    (effect,) = said["effects"]
    assert set(effect) == {"state_id", "idempotency_key", "namespace", "request", "unknown"}
    assert (effect["namespace"], effect["request"]["path"], effect["unknown"]) == (
        "file.write",
        "out.txt",
        None,
    )
    assert said["missed"] == []
    assert (here / "out.txt").read_text() == "24"


def test_a_dry_run_that_failed_for_a_skipped_state_says_so_and_exits_as_a_run_does(machine, write):
    write("pay.py", BROKEN)
    said = machine("run", "pay.py", "--dry-run", "--quiet")
    assert said.code == 1
    assert "pay.b.file needs the context key 'receipt'" in said.out
    assert "pay.a.send" in said.out.splitlines()[-1]
    missed = machine("run", "pay.py", "--dry-run", "--json").json["missed"]
    assert missed == [{"key": "receipt", "state_id": "pay.b.file", "writers": ["pay.a.send"]}]
