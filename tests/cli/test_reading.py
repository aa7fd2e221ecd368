"""The commands that show what is recorded, and `plan`."""

from __future__ import annotations

import json

import pytest

from machine import open_store, run
from machine.target import load


def test_runs_lists_the_newest_first_with_ids_that_can_be_given_back(machine, plan_file):
    ids = [machine("run", "prices.py", "--json").json["run_id"] for _ in range(3)]
    rows = [line.split() for line in machine("runs").out.splitlines()]
    assert rows[0] == ["RUN", "STATUS", "EVENTS", "STARTED", "OP"]
    assert [row[0] for row in rows[1:]] == [run_id[:18] for run_id in reversed(ids)]
    assert machine("show", rows[1][0], "--json").json["run_id"] == ids[-1]


def test_last_is_the_run_that_was_made_last_whatever_its_id(machine, recorded, plan_file, here):
    low = "00000001-7c1a-7b3f-9a41-3f0c5f1a2b3c"
    loaded = load("prices.py", here)
    with open_store("sqlite:///.machine/runs.db") as store:
        run(loaded.plan, store=store, run_id=low, target=loaded.target)
    assert machine("show", "@last", "--json").json["run_id"] == low
    assert [row["run_id"] for row in machine("runs", "--json").json["runs"]] == [low, recorded]


def test_a_run_that_nobody_drives_is_shown_as_interrupted(machine, crashed, recorded):
    left = crashed(5)
    with open_store("sqlite:///.machine/runs.db") as store:
        assert [row.run_id for row in store.list_runs(status="interrupted").rows] == [left]
        assert store.list_runs(status="running").rows == []
    assert machine("runs", "--json", "--status", "interrupted").json["runs"][0]["run_id"] == left
    assert machine("runs", "--json", "--status", "running").json["runs"] == []
    assert machine("runs").out.splitlines()[1].split()[:2] == [left[:18], "interrupted"]
    assert machine("show", left, "--json").json["status"] == "interrupted"
    shown = machine("show", left)
    assert "status    interrupted" in shown.out
    assert f"next: machine resume {left}" in shown.err
    assert machine("verify", left).code == 0
    assert "interrupted" in machine("runs", "--status", "odd").err
    with open_store("sqlite:///.machine/runs.db") as store:
        lease = store.acquire(left, "somebody else", 60_000)
        assert machine("show", left, "--json").json["status"] == "running"
        assert machine("runs", "--json", "--status", "running").json["runs"][0]["run_id"] == left
        store.release(lease)
    assert machine("resume", left).code == 0
    assert machine("show", left, "--json").json["status"] == "completed"


def test_runs_are_filtered_by_status_and_op_and_limited(machine, recorded, plan_file):
    machine("run", "prices.py")
    listed = machine("runs", "--json", "--limit", "1").json
    assert len(listed["runs"]) == 1
    assert listed["more"] is True
    assert machine("runs", "--json", "--status", "failed").json["runs"] == []
    assert machine("runs", "--status", "failed").err == "note: there is no such run\n"
    assert len(machine("runs", "--json", "--op", "prices", "--status", "completed").json["runs"]) == 2
    assert "note: there are more" in machine("runs", "--limit", "1").err


def test_show_tells_how_a_run_stands_and_where_it_came_from(machine, recorded, here):
    said = machine("show", "@last")
    assert said.code == 0
    assert said.err == ""
    pairs = dict(line.split(None, 1) for line in said.out.split("\n\n")[0].splitlines())
    assert pairs["run"] == recorded
    assert pairs["status"] == "completed"
    assert pairs["op"] == "prices version 1"
    assert pairs["input"] == '{"add": 1}'
    assert pairs["target"] == f"{here}/prices.py:plan"
    states = [line.split() for line in said.out.split("\n\n")[1].splitlines()[1:]]
    assert [state[:4] for state in states] == [
        ["1", "fetch.data", "completed", "1"],
        ["2", "compute.total", "completed", "1"],
        ["3", "report.render", "completed", "1"],
    ]


def test_show_as_json_has_manifest_provenance_states_and_effects(machine, kept):
    shown = machine("show", "@last", "--json").json
    assert shown["input"] == {"add": 1}
    assert shown["config"]["durability"] == "effects"
    assert shown["provenance"]["target"]["spec"].endswith("prices.py:plan")
    assert [state["facts"] for state in shown["states"]] == [2, 0, 1]
    assert shown["uncertain"] == []
    assert shown["error"] is None
    assert shown["digest"] == machine("replay", "@last", "--json").json["digest"]


def test_what_stands_behind_an_error_is_told_by_run_show_and_events(machine, write):
    write(
        "jobs.py",
        """
        from machine import Plan

        plan = Plan("jobs")

        @plan.state("a.x")
        async def x(ctx, io, rec):
            try:
                {}["ROOT"]
            except KeyError as exc:
                exc.add_note("look in\\x1b[2J the drawer")
                raise RuntimeError("no customer") from exc
        """,
    )
    ran = machine("run", "jobs.py")
    told = [line.partition(" (jobs.py:")[0] for line in ran.err.splitlines()]
    at = told.index("error[handler_error]: RuntimeError: no customer")
    assert told[at + 1 : at + 3] == ["  caused by KeyError: 'ROOT'", "    look in\\x1b[2J the drawer"]
    assert "  caused by KeyError: 'ROOT' (jobs.py:" in machine("show", "@last").out

    shown = machine("show", "@last", "--json").json
    for error in (
        shown["error"],
        shown["states"][0]["error"],
        machine("run", "jobs.py", "--json").json["error"],
    ):
        assert [cause["relation"] for cause in error["causes"]] == ["cause", "note"]
        assert error["causes"][0]["text"].startswith("KeyError: 'ROOT' (jobs.py:")
    events = machine("events", "@last", "--json").json["events"]
    assert "ROOT" in next(event["info"]["causes"] for event in events if "causes" in event["info"])


def test_show_tells_of_an_error_where_it_was_raised(machine, write):
    write(
        "bad.py",
        """
        from machine import Plan
        plan = Plan("bad")
        @plan.state("a.b")
        async def b(ctx, io, rec):
            raise ValueError("odd")
        @plan.state("a.c", after=[b])
        async def c(ctx, io, rec): ...
        """,
    )
    machine("run", "bad.py")
    out = machine("show", "@last").out
    assert "error[handler_error] in a.b: ValueError: odd\n" in out
    assert "bad.py:6 in b" in out
    assert [line.split()[2] for line in out.split("\n\n")[1].splitlines()[1:]] == ["failed", "pending"]
    shown = machine("show", "@last", "--json").json
    assert shown["error"]["code"] == "handler_error"
    assert "bad.py:6 in b" in shown["states"][0]["trace"]


def test_show_names_an_effect_whose_outcome_nobody_knows(machine, crashed):
    run_id = crashed(9)
    said = machine("show", run_id)
    assert said.code == 0
    assert "effects that were sent and have no outcome:\n  event 9  report.render  " in said.out
    assert said.err == f"next: machine resume {run_id}\n"
    shown = machine("show", run_id, "--json").json
    assert shown["status"] == "interrupted"
    assert [(effect["seq"], effect["state_id"]) for effect in shown["uncertain"]] == [
        (9, "prices.report.render")
    ]
    assert machine("replay", run_id).out.rstrip().endswith("as far as the recording goes")


def test_events_are_one_line_each(machine, kept):
    head = machine("show", "@last", "--json").json["head_seq"]
    lines = machine("events", "@last").out.splitlines()
    assert len(lines) == head + 1
    assert lines[0].split() == ["SEQ", "TIME", "TYPE", "STATE"]
    assert lines[1].split()[2] == "run_started"
    assert lines[-1].split()[2] == "run_completed"
    assert all(line == line.rstrip() for line in lines)


def test_events_are_chosen_by_state_and_type(machine, kept):
    found = machine("events", "@last", "--state", "fetch.data", "--type", "fact_recorded", "--json").json
    assert [event["event"]["namespace"] for event in found["events"]] == ["exec", "env"]
    whole = machine("events", "@last", "--state", "prices.fetch.data", "--json").json["events"]
    assert [event["event"]["type"] for event in whole] == [
        "state_entered",
        "fact_recorded",
        "fact_recorded",
        "state_completed",
    ]


def test_domain_events_are_found_by_their_name(machine, write):
    write(
        "teller.py",
        """
        from machine import DomainEvent, Plan
        plan = Plan("teller")
        @plan.state("a.b")
        async def b(ctx, io, rec):
            await rec.emit(DomainEvent("greeting", {"text": "line one\\nline two \\x1b[31m"}))
        """,
    )
    machine("run", "teller.py")
    lines = machine("events", "@last", "--type", "greeting").out.splitlines()
    assert len(lines) == 2
    assert "greeting" in lines[1]
    assert "\x1b" not in lines[1]


def test_facts_show_what_was_asked_and_what_came_of_it(machine, kept):
    lines = machine("facts", "@last").out.splitlines()
    assert lines[0].split() == ["SEQ", "KEY", "NAMESPACE", "REQUEST", "OUTCOME"]
    assert lines[1].split() == ["3", "fetch.data/0", "exec", "printf", "12", "exit", "0", '"12"']
    assert lines[2].split()[1:4] == ["fetch.data/0", "env", "MACHINE_TEST_HOME"]
    found = machine("facts", "@last", "--json").json["facts"]
    assert found[0]["request"]["argv"] == ["printf", "12"]
    assert found[0]["outcome"]["value"]["stdout"] == {"text": "12"}
    assert len(machine("facts", "@last", "--json", "--state", "report.render").json["facts"]) == 1


def test_errors_are_facts_too(machine, write):
    write(
        "failing.py",
        """
        from machine import Plan
        from machine.errors import IoError
        plan = Plan("failing")
        @plan.state("a.b")
        async def b(ctx, io, rec):
            try:
                await io.exec(["/no/such/program"])
            except IoError:
                pass
        """,
    )
    machine("run", "failing.py")
    assert "exec_not_found" in machine("facts", "@last").out
    assert (
        machine("facts", "@last", "--json").json["facts"][0]["outcome"]["error"]["code"] == "exec_not_found"
    )


def test_the_context_is_that_of_the_last_checkpoint_at_or_before_an_event(machine, kept):
    events = machine("events", "@last", "--json").json["events"]
    done = [event["seq"] for event in events if event["event"]["type"] == "state_completed"]
    assert machine("context", "@last", "--at", 1, "--json").json["context"] == {"add": 1}
    assert machine("context", "@last", "--at", done[0] - 1, "--json").json["context"] == {"add": 1}
    first = machine("context", "@last", "--at", done[0], "--json").json
    assert first["seq"] == done[0]
    assert first["context"] == {"add": 1, "home": None, "n": 12}
    assert json.loads(machine("context", "@last").out)["total"] == 25


def test_an_artifact_is_printed_as_the_bytes_it_is(machine, kept):
    shown = machine("show", "@last", "--json").json
    out = machine("artifact", shown["manifest_id"]).out
    assert json.loads(out)["op_id"] == "prices"
    assert not out.endswith("\n")
    described = machine("artifact", shown["manifest_id"], "--json").json
    assert described["kind"] == "manifest"
    assert described["bytes"] == len(out)
    assert described["value"] == json.loads(out)


LARGE = """
from machine import Plan

plan = Plan("large")


@plan.state("a.write")
def write(ctx):
    ctx["list"] = list(range(30_000))
"""


def test_a_value_in_chunks_is_printed_whole(machine, write):
    write("large.py", LARGE)
    assert machine("run", "large.py").code == 0
    value = list(range(30_000))
    assert machine("context", "@last", "--json").json["context"] == {"list": value}
    snapshot_id = machine("context", "@last", "--json").json["snapshot_id"]
    node = json.loads(machine("artifact", snapshot_id).out)
    list_id = node["entries"]["list"]["chunks"]
    assert json.loads(machine("artifact", list_id).out) == value
    described = machine("artifact", list_id, "--json").json
    assert (described["kind"], described["value"]) == ("context_chunks", value)
    assert described["bytes"] == len(json.dumps(value, separators=(",", ":")))


def test_a_plan_is_shown_as_a_table_in_its_order(machine, plan_file):
    said = machine("plan", "prices.py")
    lines = said.out.splitlines()
    assert lines[0].startswith("prices version 1  3 states  plan ")
    assert lines[2].split() == ["#", "STATE", "AFTER", "EFFECTS", "TRIES", "TIMEOUT", "TAGS"]
    assert lines[3].split() == ["1", "fetch.data", "-", "read_only_io", "-", "-", "fetch_data"]
    assert lines[5].split()[:4] == ["3", "report.render", "2", "apply_side_effect"]


def test_a_plan_is_shown_as_mermaid_dot_and_json(machine, plan_file):
    assert machine("plan", "prices.py", "--format", "mermaid").out == (
        "flowchart TD\n"
        '  s1["fetch.data"]\n'
        '  s2["compute.total"]\n'
        '  s3[["report.render"]]\n'
        "  s2 --> s3\n"
        "  s1 --> s2\n"
    )
    dot = machine("plan", "prices.py", "--format", "dot").out
    assert dot.startswith('digraph "prices" {\n')
    assert '  "prices.fetch.data" -> "prices.compute.total";\n' in dot
    shown = machine("plan", "prices.py", "--format", "json")
    assert shown.json == machine("plan", "prices.py", "--json").json
    assert shown.json["order"] == ["prices.fetch.data", "prices.compute.total", "prices.report.render"]


@pytest.mark.parametrize(
    "command", ["runs", "show", "events", "facts", "context", "verify", "replay", "resume"]
)
def test_json_is_exactly_one_object_and_stderr_is_empty(machine, kept, command):
    said = machine(command, *([] if command == "runs" else ["@last"]), "--json")
    assert said.code == 0
    assert isinstance(said.json, dict)
    assert said.err == ""
