"""`run` and `resume`, through the real entry point."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from machine.errors import OtherStoreError
from machine.stores.sqlite import SqliteStore


def test_a_run_says_its_id_its_status_its_digest_and_what_to_do_next(machine, plan_file):
    said = machine("run", "prices.py:plan", "--input", "{}")
    assert said.code == 0
    lines = dict(line.split(None, 1) for line in said.out.splitlines())
    assert lines["status"].startswith("completed in ")
    assert len(lines["run"]) == 36
    assert len(lines["digest"]) == 12
    assert said.err.endswith("next: machine replay @last\n")


def test_progress_is_one_aligned_line_for_each_state_on_stderr(machine, plan_file):
    lines = machine("run", "prices.py").err.splitlines()
    assert lines[0].startswith("run ")
    assert lines[0].endswith("  prices version 1")
    assert [line[:29] for line in lines[1:4]] == [
        "  1/3  fetch.data     complet",
        "  2/3  compute.total  complet",
        "  3/3  report.render  complet",
    ]
    assert lines[1].endswith("  2 facts")


def test_quiet_leaves_only_the_result(machine, plan_file):
    said = machine("run", "prices.py", "--quiet")
    assert said.err == "next: machine replay @last\n"
    assert said.out.startswith("run ")


def test_json_is_one_object_with_the_fields_of_the_result_and_nothing_on_stderr(machine, plan_file):
    said = machine("run", "prices.py", "--json", "--input", '{"add": 5}')
    assert said.err == ""
    assert said.out.count("\n") == 1
    result = said.json
    assert set(result) == {
        "run_id",
        "status",
        "digest",
        "head_seq",
        "final_snapshot_id",
        "waits",
        "fork_at",
        "undeclared_io",
        "context",
        "error",
        "skipped",
        "next_input",
    }
    assert result["context"] == {"add": 5, "home": None, "n": 12, "total": 29}
    assert result["error"] is None


def test_what_a_module_and_its_handlers_print_never_reaches_stdout(machine, write):
    write(
        "loud.py",
        """
        from machine import Plan
        print("at import")
        plan = Plan("loud")
        @plan.state("a.b")
        async def b(ctx, io, rec):
            print("in a handler")
        @plan.state("a.c", after=[b])
        def c(ctx, io, rec):
            print("in a thread")
        """,
    )
    said = machine("run", "loud.py", "--json")
    assert said.json["status"] == "completed"
    assert said.err.splitlines() == ["at import", "in a handler", "in a thread"]


@pytest.mark.parametrize("form", ["text", "file", "stdin"])
def test_input_comes_as_text_from_a_file_or_from_stdin(machine, plan_file, write, monkeypatch, form):
    text = '{"add": 7}'
    write("input.json", text)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    source = {"text": text, "file": "@input.json", "stdin": "-"}[form]
    assert machine("run", "prices.py", "--json", "--input", source).json["context"]["total"] == 31


def test_tags_to_skip_add_to_those_of_the_configuration(machine, plan_file, write):
    write("config.json", json.dumps({"skip_tags": ["report"], "durability": "states"}))
    machine("run", "prices.py", "--config", "config.json", "--skip-tag", "compute", "--skip-tag", "report")
    shown = machine("show", "@last", "--json").json
    assert shown["config"]["skip_tags"] == ["compute", "report"]
    assert shown["config"]["durability"] == "states"
    assert [state["status"] for state in shown["states"]] == ["completed", "completed", "skipped"]
    assert not Path("out.txt").exists()


def test_a_mistyped_tag_is_refused_before_anything_runs(machine, plan_file):
    said = machine("run", "prices.py", "--skip-tag", "reprot")
    assert said.code == 2
    assert "error[invalid_config]: no state of prices has the tag 'reprot' to skip" in said.err
    assert "did you mean 'report'?" in said.err
    assert machine("runs", "--json").code in {0, 5}
    assert not Path("out.txt").exists()


def test_a_store_in_memory_is_refused(machine, plan_file):
    said = machine("run", "prices.py", "--store", "memory://")
    assert said.code == 2
    assert "could not be replayed" in said.err


def test_the_store_is_the_option_else_the_variable_else_the_default(machine, plan_file, monkeypatch):
    machine("run", "prices.py")
    assert Path(".machine/runs.db").exists()
    monkeypatch.setenv("MACHINE_STORE", "sqlite:///variable.db")
    machine("run", "prices.py")
    assert Path("variable.db").exists()
    said = machine("run", "prices.py", "--store", "option.db")
    assert Path("option.db").exists()
    assert said.err.endswith("next: machine replay @last --store option.db\n")
    assert len(machine("runs", "--json").json["runs"]) == 1


def test_shared_options_may_stand_before_the_command(machine, plan_file):
    assert machine("--json", "--store", "a.db", "run", "prices.py").json["status"] == "completed"


@pytest.mark.parametrize("deep", [0, 30])
def test_an_error_of_a_library_is_told_with_the_line_of_the_handler_that_called_it(machine, write, deep):
    write(
        "reader.py",
        f"""
        import json

        from machine import Plan

        plan = Plan("reader")


        def parse(text, left):
            return parse(text, left - 1) if left else json.loads(text)


        @plan.state("a.b")
        def b(ctx):
            parse("{{", {deep})
        """,
    )
    said = machine("run", "reader.py")
    (told,) = [line for line in said.err.splitlines() if line.startswith("error[")]
    assert " (reader.py:15 in b, then decoder.py:" in told
    lines = machine("show", "@last", "--json").json["states"][0]["trace"].splitlines()
    assert (lines[0], len(lines) <= 8) == ("reader.py:15 in b", True)


def test_a_handler_that_raises_fails_the_run_with_its_words_and_its_line(machine, write):
    write(
        "bad.py",
        """
        from machine import Plan
        plan = Plan("bad")
        @plan.state("a.b")
        async def b(ctx, io, rec):
            raise ValueError("the \\x1b[31mvalue")
        """,
    )
    said = machine("run", "bad.py")
    assert said.code == 1
    assert "status  failed" in said.out
    assert "error[handler_error]: ValueError: the \\x1b[31mvalue (bad.py:6 in b)" in said.err
    assert "next: machine show @last" in said.err
    assert "Traceback" not in said.err
    failed = machine("run", "bad.py", "--json")
    assert failed.code == 1
    assert failed.json["error"]["code"] == "handler_error"


def test_a_paranoid_run_shows_where_a_state_is_not_deterministic(machine, write):
    write(
        "careless.py",
        """
        from machine import Plan
        plan = Plan("careless")
        numbers = iter(range(10))
        @plan.state("a.b")
        async def b(ctx, io, rec):
            ctx["number"] = next(numbers)
        """,
    )
    assert machine("run", "careless.py").code == 0
    said = machine("run", "careless.py", "--paranoid")
    assert said.code == 1
    assert "error[not_deterministic]: careless.a.b did something else when it was run again" in said.err
    assert "  /number\n    RECORDED  0\n    NOW       1\n" in said.err
    assert machine("replay", "@last").code == 0


@pytest.mark.parametrize("kind", ["async def", "def"])
def test_a_handler_that_calls_sys_exit_fails_its_state_and_not_the_command(machine, write, kind):
    write(
        "leaver.py",
        f"""
        import sys
        from machine import Plan
        plan = Plan("leaver")
        @plan.state("a.b")
        {kind} b(ctx, io, rec):
            sys.exit(0)
        """,
    )
    said = machine("run", "leaver.py")
    assert said.code == 1
    assert "error[handler_error]: SystemExit: 0 (leaver.py:7 in b)" in said.err


def test_a_task_that_calls_sys_exit_leaves_a_run_that_can_be_resumed(machine, write):
    text = """
        import asyncio, sys
        from machine import Plan
        plan = Plan("leaver")
        @plan.state("a.b")
        async def b(ctx, io, rec):
            async def leave():
                sys.exit(3)
            await asyncio.gather(leave())
        """
    write("leaver.py", text)
    said = machine("run", "leaver.py")
    assert said.code == 1
    assert "error[handler_error]" in said.err
    assert "Continue with: machine resume" in said.err
    write("leaver.py", text.replace("sys.exit(3)", "pass"))
    assert machine("resume", "@last").code == 0


def test_resuming_a_run_that_has_ended_changes_nothing(machine, recorded):
    before = machine("events", recorded, "--json").json
    said = machine("resume", recorded)
    assert said.code == 0
    assert "note: the run is over (completed) and is left as it is\n" in said.err
    assert machine("events", recorded, "--json").json == before
    assert machine("resume", recorded, "--json").json["run_id"] == recorded


def test_a_failed_run_is_resumed_to_the_same_failure(machine, write):
    write(
        "bad.py",
        'from machine import Plan\nplan = Plan("bad")\nplan.state("a.b")(lambda ctx, io, rec: 1 / 0)\n',
    )
    assert machine("run", "bad.py").code == 1
    assert machine("resume", "@last").code == 1


def test_resuming_against_a_changed_plan_is_refused(machine, plan_file, crashed, write):
    text = plan_file.read_text()
    crashed(6)
    write("prices.py", text.replace('tags=["report"]', 'tags=["mail"]'))
    said = machine("resume", "@last")
    assert said.code == 2
    assert said.err.startswith("error[plan_changed]: ")
    write("prices.py", text)
    assert machine("resume", "@last").code == 0


def test_a_store_that_gives_way_says_how_to_continue(machine, plan_file, monkeypatch):
    append = SqliteStore.append

    def full(self, run_id, expected_seq, events, artifacts=(), **more):
        if expected_seq > 4:
            raise OtherStoreError("the store cannot grow", code="store_full", hint="make room")
        append(self, run_id, expected_seq, events, artifacts, **more)

    config = '{"durability": "states"}'
    plan_file.with_name("config.json").write_text(config)
    with monkeypatch.context() as patch:
        patch.setattr(SqliteStore, "append", full)
        said = machine("run", "prices.py", "--config", "config.json")
    assert said.code == 1
    assert "error[store_full]: the store cannot grow" in said.err
    assert "hint: make room, then continue with: machine resume " in said.err
    assert machine("resume", "@last").code == 0


def test_a_crash_is_resumed_without_repeating_a_fact(machine, crashed):
    run_id = crashed(4)
    said = machine("resume", run_id)
    assert said.code == 0
    assert "  1/3  fetch.data     recovered" in said.err
    facts = machine("facts", run_id, "--json").json["facts"]
    assert [fact["namespace"] for fact in facts] == ["exec", "env", "file.write"]
    assert machine("replay", run_id).code == 0
