"""What a user can get wrong, apart from the target: each says what, and what to do; none leaves anything."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import pytest

import machine as library
from machine import open_store
from machine.target import load


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ("{bad", "invalid_input", "the input is not JSON: "),
        ("", "invalid_input", "the input is not JSON: "),
        ("[1]", "invalid_input", "must be a JSON object, not an array"),
        ("3", "invalid_input", "must be a JSON object, not a number"),
        ("null", "invalid_input", "must be a JSON object, not null"),
        ('{"a": 1, "a": 2}', "invalid_input", "the key 'a' stands there twice"),
        ("[" * 100_000, "invalid_input", "the input is not JSON: "),
        ("@nowhere.json", "invalid_input", "nowhere.json cannot be read: No such file"),
        ("@latin.json", "invalid_input", "latin.json cannot be read: it is not UTF-8"),
        ('{"a": [1, {"b": NaN}]}', "not_json", "$.a[1].b: "),
        ('{"a": 12345678901234567890}', "not_json", "$.a: "),
        ('{"a": "\\ud800"}', "not_json", "$.a: "),
        ('{"": 1}', "invalid_id", "ContextKey"),
    ],
)
def test_input_that_cannot_be_used_is_refused_before_a_store_is_made(machine, plan_file, given, code, words):
    Path("latin.json").write_bytes(b'{"a": "\xe9"}')
    said = machine("run", "prices.py", "--input", given)
    assert said.code == 2
    assert said.err.startswith(f"error[{code}]: ")
    assert words in said.err
    if "must be a JSON object" in words:
        assert """hint: write it like '{"key": "value"}', or @FILE""" in said.err
    assert not Path(".machine").exists()


@pytest.mark.parametrize("command", ["run", "torture", "doctor"])
def test_a_mode_that_no_new_run_can_have_is_refused_before_a_store_is_made(
    machine, plan_file, write, command
):
    write("config.json", json.dumps({"io_mode": "replay"}))
    said = machine(command, "prices.py", "--config", "config.json")
    assert said.code == 2
    assert said.err.startswith('error[invalid_config]: io_mode must be "live"')
    assert "hint: " in said.err
    assert "machine replay RUN" in said.err
    assert not Path(".machine").exists()


def test_every_problem_of_a_configuration_is_listed(machine, plan_file, write):
    write("config.json", json.dumps({"durability": "x", "retry_policy": {"max_attempts": 0}, "bogus": 1}))
    said = machine("run", "prices.py", "--config", "config.json")
    assert said.code == 2
    lines = said.err.splitlines()
    assert lines[0] == "error[invalid_config]: the configuration config.json has 3 problems"
    assert sorted(line.rsplit("@ ")[-1] for line in lines[1:4]) == ["$", "$.durability", "$.retry_policy"]
    as_json = machine("run", "prices.py", "--config", "config.json", "--json").json["error"]
    assert as_json["code"] == "invalid_config"
    assert len(as_json["details"]["problems"]) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("[1", "is not JSON"),
        ("[]", "the configuration config.json"),
        ("3", "config.json"),
        ('{"secrets": []}', "expected object, got list @ $.secrets"),
        ('{"secrets": 5}', "expected object, got int @ $.secrets"),
        ('{"secrets": null}', "expected object, got NoneType @ $.secrets"),
        ('{"retry_policy": "x"}', "expected object, got str @ $.retry_policy"),
        ('{"secrets": {"allow": ["$..x"]}}', "secrets.allow cannot hold '$..x'"),
        ('{"secrets": {"patterns": ["x*"]}}', "secrets.patterns cannot hold 'x*': it matches the empty text"),
        ('{"secrets": {"patterns": ["(?=x)"]}}', "which must be RE2 syntax"),
        ('{"secrets": {"stand_ins": {"KEY": 1}}}', "$.secrets.stand_ins"),
        ('{"secrets": {"stand_ins": {"KEY": ""}}}', "secrets.stand_ins must map names to texts"),
    ],
)
def test_a_configuration_that_is_none_is_refused(machine, plan_file, write, text, words):
    if text is not None:
        write("config.json", text)
    said = machine("run", "prices.py", "--config", "config.json")
    assert said.code == 2
    assert said.err.startswith("error[invalid_config]: ")
    assert words in said.err
    assert not Path(".machine").exists()


def test_a_policy_is_read_as_a_user_writes_it_and_its_patterns_in_linear_time(machine, plan_file, write):
    secrets = {"patterns": ["(a|a)+$", "(a+)+b"], "stand_ins": {"SHOP_KEY": "an-invented-key"}}
    write("config.json", json.dumps({"secrets": secrets}))
    text = json.dumps({"text": "a" * 50_000 + "c"})
    said = machine("run", "prices.py", "--config", "config.json", "--input", text)
    assert (said.code, "error" in said.err) == (0, False)
    assert "error" not in machine("replay", "@last").err


def test_a_tag_that_is_none_is_refused(machine, plan_file):
    said = machine("run", "prices.py", "--skip-tag", "NO TAG")
    assert said.code == 2
    assert said.err.startswith("error[invalid_id]: Tag 'NO TAG' is invalid")


@pytest.mark.parametrize(
    "argv",
    [
        ["frobnicate"],
        ["run"],
        ["run", "prices.py", "more"],
        ["run", "prices.py", "--bad"],
        ["run", "prices.py", "--input"],
        ["runs", "--limit", "0"],
        ["runs", "--limit", "many"],
        ["runs", "--status", "odd"],
        ["plan", "prices.py", "--format", "png"],
        ["context", "@last", "--at", "0"],
        ["context", "@last", "--at", "999"],
        ["events", "@last", "--state", "compute.tota"],
        ["events", "@last", "--type", "odd"],
        ["facts", "@last", "--state", "nothing"],
    ],
)
def test_arguments_that_cannot_work_exit_with_2_and_a_hint(machine, kept, argv):
    said = machine(*argv)
    assert said.code == 2
    assert said.out == ""
    assert said.err.startswith("error[usage]: ")
    assert "Traceback" not in said.err
    in_json = machine("--json", *argv)
    assert in_json.code == 2
    assert in_json.err == ""
    assert set(in_json.json["error"]) == {"code", "message", "hint", "details"}


READERS = ["resume", "replay", "verify", "show", "events", "facts", "context"]


@pytest.mark.parametrize("command", READERS)
def test_a_run_that_is_not_there_exits_with_5(machine, kept, command):
    said = machine(command, "ffffffff")
    assert said.code == 5
    assert said.err.startswith("error[run_not_found]: there is no run 'ffffffff'")
    assert machine(command, "zz").code == 5
    assert machine(command, "ffffffff", "--json").json["error"]["code"] == "run_not_found"


@pytest.mark.parametrize("command", [*READERS, "runs", "artifact"])
def test_a_store_that_is_not_there_exits_with_5_and_is_not_made(machine, here, command):
    said = machine(command, *([] if command == "runs" else ["@last"]))
    assert said.code == 5
    assert said.err.startswith("error[store_not_found]: ")
    assert list(here.iterdir()) == []


def test_an_ambiguous_run_names_the_candidates(machine, plan_file):
    ids = [machine("run", "prices.py", "--json").json["run_id"] for _ in range(2)]
    said = machine("show", ids[0][:4])
    assert said.code == 2
    assert said.err.startswith("error[run_ambiguous]: ")
    assert all(run_id in said.err for run_id in ids)
    assert machine("show", ids[0][:18].upper()).code == 0


def test_last_of_an_empty_store_exits_with_5(machine):
    open_store("empty.db").close()
    said = machine("show", "@last", "--store", "empty.db")
    assert said.code == 5
    assert said.err.startswith("error[run_not_found]: there is no run in ")
    listed = machine("runs", "--store", "empty.db")
    assert listed.code == 0
    assert listed.err == "note: there are no runs yet\n"


@pytest.mark.parametrize("content", [b"hello\n" * 1000, b"SQLite format 3\0" + b"\0" * 4096])
def test_a_file_that_is_no_store_exits_with_3_and_is_left_alone(machine, plan_file, content):
    Path("odd.db").write_bytes(content)
    for argv in (["runs"], ["show", "@last"], ["verify", "@last"]):
        said = machine(*argv, "--store", "odd.db")
        assert said.code == 3, said
        assert said.err.startswith("error[")
    assert Path("odd.db").read_bytes() == content


def test_a_store_of_a_newer_version_exits_with_3(machine, recorded):
    connection = sqlite3.connect(".machine/runs.db")
    connection.execute("pragma user_version = 99")
    connection.close()
    said = machine("runs")
    assert said.code == 3
    assert said.err.startswith("error[store_newer_schema]: ")


@pytest.mark.parametrize("url", ["ftp://x", "noext", "sqlite:///"])
def test_a_store_that_no_backend_knows_exits_with_2(machine, here, url):
    said = machine("runs", "--store", url)
    assert said.code == 2
    assert said.err.startswith("error[store_unknown_url]: ")


@pytest.mark.parametrize("identifier", ["abc", "a" * 64, "A" * 64])
def test_an_artifact_that_is_not_there_exits_with_5(machine, kept, identifier):
    said = machine("artifact", identifier)
    assert said.code == 5
    assert said.err.startswith(f"error[artifact_not_found]: there is no artifact {identifier!r}")


@pytest.mark.parametrize("name", ["abc", "A" * 64, "a" * 64, "@last", "left.run"])
def test_the_hint_for_an_artifact_says_what_to_do_next(machine, kept, name):
    machine("export", "@last", "--output", "left.run")
    hint = machine("artifact", name).err.splitlines()[-1]
    commands = re.findall(r"machine ([a-z]+(?: @last| left\.run| --json| RUN)*)", hint)
    assert commands
    for command in commands:
        said = machine(*command.replace("RUN", "@last").split())
        assert said.code == 0, said.err
    if name == "a" * 64:
        assert "--store" in hint
    else:
        shown = re.search(r'"plan_id": "([0-9a-f]{64})"', json.dumps(said.json))[1]
        assert machine("artifact", shown).code == 0


@pytest.mark.parametrize("name", ["fixtures/x.run", "x.run"])
@pytest.mark.parametrize("command", ["replay", "verify", "import", "show", "events"])
def test_a_directory_in_the_place_of_a_bundle_is_told(machine, here, command, name):
    (here / name).mkdir(parents=True)
    said = machine(command, name)
    assert said.code in (2, 3, 5)
    assert said.err.startswith(
        f"error[bundle_{'not_found' if command in ('replay', 'verify') else 'invalid'}]: {name}: "
    )
    assert "Traceback" not in said.err


def test_a_run_without_a_target_asks_for_one(machine, plan_file):
    with library.open_store("runs.db") as store:
        library.run(load("prices.py").plan, store=store)
    said = machine("replay", "@last", "--store", "runs.db")
    assert said.code == 2
    assert "--target TARGET" in said.err
    assert machine("replay", "@last", "--store", "runs.db", "--target", "prices.py").code == 0


def test_damage_exits_with_3_and_names_the_event(machine, recorded):
    connection = sqlite3.connect(".machine/runs.db")
    triggers = [row[0] for row in connection.execute("select name from sqlite_master where type = 'trigger'")]
    for trigger in triggers:
        connection.execute(f"drop trigger {trigger}")
    connection.execute("update events set data = replace(data, 'compute', 'dispute') where seq = 6")
    connection.commit()
    connection.close()
    said = machine("verify", "@last")
    assert said.code == 3
    assert said.out.startswith("damaged")
    assert "event 6" in said.out
    assert "event 6" in json.dumps(machine("verify", "@last", "--json").json["problems"])
    shown = machine("show", "@last")
    assert shown.code == 3
    assert shown.err.startswith("error[")


def test_a_defect_of_the_program_is_told_without_a_traceback_unless_asked_for(
    machine, plan_file, monkeypatch
):
    def broken(*args, **kwargs):
        raise TypeError("of its own")

    monkeypatch.setattr(library, "run", broken)
    said = machine("run", "prices.py")
    assert said.code == 1
    assert said.err.startswith("error[internal_error]: TypeError: of its own\nhint: ")
    assert "Traceback" not in said.err
    assert "Traceback" in machine("run", "prices.py", "--debug").err


def test_ctrl_c_before_anything_was_recorded_says_so(machine, plan_file, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(library, "run", interrupted)
    said = machine("run", "prices.py")
    assert said.code == 130
    assert said.err == "interrupted; nothing was recorded yet\n"
    in_json = machine("run", "prices.py", "--json")
    assert in_json.code == 130
    assert in_json.json["error"]["code"] == "cancelled"
