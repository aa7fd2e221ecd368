"""`machine run --dry-run` and `machine apply`: what is shown, and the run of it."""

from __future__ import annotations

PAY = """
from machine import Plan

plan = Plan("pay")


@plan.state("a.read")
async def read(ctx, io):
    ctx["id"] = str(await io.uuid())


@plan.state("b.send", after=[read], side_effects="apply_side_effect", idempotency="k"PREVIEW)
async def send(ctx, io):
    done = await io.exec(["sh", "-c", f"echo {ctx['id']} >> sent; printf ANSWER"])
    ctx["receipt"] = done.stdout


@plan.state("c.file", after=[send], side_effects="apply_side_effect", idempotency="f")
async def file(ctx, io):
    await io.write_file("filed", ctx["receipt"])
"""


def pay(write, *, answer="r-1", preview=""):
    """Write a plan of two effects, the second of which needs what the first returned."""
    write("pay.py", PAY.replace("PREVIEW", preview).replace("ANSWER", answer))


PREVIEW = ', preview={"stdout": "r-1"}'


def test_a_dry_run_writes_no_file_and_says_which_it_would_write(machine, plan_file, here):
    said = machine("run", "prices.py", "--dry-run", "--quiet")
    assert said.code == 0, said.err
    assert not (here / "out.txt").exists()
    lines = [line.split() for line in said.out.splitlines()]
    assert ["1.", "not", "applied", "prices.report.render"] in lines
    assert 'file.write {"data": {"text": "24"}, "path": "out.txt"}' in said.out
    assert said.out.splitlines()[-1] == "2 run, 1 preview; 1 effect not applied"
    assert "machine apply @last" in said.err


def test_with_json_it_is_the_object_of_a_run_with_the_report_in_it(machine, plan_file, here):
    said = machine("run", "prices.py", "--dry-run", "--json").json
    real = machine("run", "prices.py", "--json").json
    assert set(said) - set(real) == {"states", "effects", "needs", "counts"}
    assert said["states"][2] == {
        "id": "prices.report.render",
        "action": "preview",
        "reason": "completed, 1 effect not applied",
        "after": ["prices.compute.total"],
        "took_ms": None,
    }
    (effect,) = said["effects"]
    assert (effect["namespace"], effect["request"]["path"], effect["source"], effect["outcome"]) == (
        "file.write",
        "out.txt",
        "known after apply",
        None,
    )
    assert (said["needs"], said["counts"]) == ([], {"run": 2, "preview": 1, "effects": 1})
    assert (here / "out.txt").read_text() == "24"


def test_what_is_known_after_apply_is_no_failure(machine, write, here):
    pay(write)
    said = machine("run", "pay.py", "--dry-run", "--quiet")
    assert (said.code, (here / "sent").exists()) == (0, False)
    assert "pay.c.file needs the context key 'receipt' of pay.b.send" in said.out
    run_id = machine("runs", "--json").json["runs"][0]["run_id"]
    assert "pay.c.file needs the context key 'receipt' of pay.b.send" in machine("show", run_id).out
    assert machine("show", run_id, "--json").json["dry_run"]["needs"] == [
        {"state_id": "pay.c.file", "key": "receipt", "writer": "pay.b.send"}
    ]


def test_apply_makes_the_run_that_was_shown_once(machine, write, here):
    pay(write, preview=PREVIEW)
    dry = machine("run", "pay.py", "--dry-run", "--json").json
    assert [effect["source"] for effect in dry["effects"]] == ["preview", "known after apply"]
    assert not (here / "sent").exists()
    said = machine("apply", dry["run_id"], "--quiet")
    assert said.code == 0, said.err
    assert (here / "sent").read_text() == dry["context"]["id"] + "\n"
    assert (here / "filed").read_text() == "r-1"
    assert machine("replay", "@last").code == 0
    assert f"the dry run {dry['run_id']}" in machine("show", "@last").out
    again = machine("apply", dry["run_id"])
    assert (again.code, "dry_run_applied" in again.err) == (1, True)
    assert (here / "sent").read_text().count("\n") == 1


def test_apply_suspends_before_an_effect_that_was_not_shown(machine, write, here):
    pay(write, preview=', preview={"stdout": "another"}')
    dry = machine("run", "pay.py", "--dry-run", "--json").json["run_id"]
    said = machine("apply", dry, "--json")
    assert (said.code, said.json["status"], (here / "filed").exists()) == (4, "suspended", False)
    run_id = said.json["run_id"]
    (wait,) = machine("waiting", "--json").json["waiting"]
    assert wait["data"]["effect"]["request"]["data"] == {"text": "r-1"}
    assert wait["data"]["shown"]["request"]["data"] == {"text": "another"}
    assert machine("approve", run_id, "--by", "Ada").code == 0
    assert machine("resume", run_id, "--quiet").code == 0
    assert (here / "filed").read_text() == "r-1"


def test_a_rejected_effect_fails_the_run_with_a_code(machine, write, here):
    pay(write, preview=', preview={"stdout": "another"}')
    dry = machine("run", "pay.py", "--dry-run", "--json").json["run_id"]
    run_id = machine("apply", dry, "--json").json["run_id"]
    assert machine("reject", run_id, "--comment", "not that").code == 0
    said = machine("resume", run_id, "--quiet")
    assert (said.code, "effect_rejected" in said.err, "not that" in said.err) == (1, True, True)
    assert not (here / "filed").exists()


def test_the_answers_of_an_earlier_run_are_named(machine, write, here):
    write("mail.py", PAY.replace("PREVIEW", "").replace("{ctx['id']}", "x").replace("ANSWER", "r-2"))
    earlier = machine("run", "mail.py", "--json").json["run_id"]
    said = machine("run", "mail.py", "--dry-run", "--answers-from", "@last", "--json").json
    assert [effect["source"] for effect in said["effects"]] == [f"run {earlier}"] * 2
    assert said["needs"] == []
    assert "TOOK" in machine("show", said["run_id"]).out
    assert (here / "sent").read_text() == "x\n"


def test_what_cannot_be_applied_is_refused_with_a_sentence(machine, write):
    pay(write)
    real = machine("run", "pay.py", "--json").json["run_id"]
    dry = machine("run", "pay.py", "--dry-run", "--json").json["run_id"]
    assert "error[usage]" in machine("apply", dry, "--max-age", "0").err
    pay(write, answer="other")
    for arguments, code in (
        (("apply", real), "not_a_dry_run"),
        (("apply", dry), "dry_run_changed"),
        (("run", "pay.py", "--answers-from", real), "usage"),
        (("run", "pay.py", "--dry-run", "--answers-from", dry), "usage"),
    ):
        said = machine(*arguments)
        assert said.code != 0
        assert f"error[{code}]" in said.err, said.err
        assert "Traceback" not in said.err
    assert len(machine("runs", "--json").json["runs"]) == 2


def test_a_list_of_runs_says_which_of_them_were_dry(machine, plan_file, here):
    assert machine("run", str(plan_file), "--dry-run").code == 0
    assert machine("runs").out.splitlines()[1].endswith("dry run")
    (row,) = machine("runs", "--json").json["runs"]
    assert (row["dry_run"], row["skipped"], row["retry_of"]) == (True, 0, None)
