"""`export` and `import`, and bundles in the place of runs, through the real entry point."""

from __future__ import annotations

import gzip
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from rich_run import FIXTURES, stages

from machine import export_run, new_run_id
from machine.cli.error_report import BUNDLE_DAMAGED
from machine.stores import MemoryStore

PLAN = FIXTURES / "bundle-1" / "plan.py"
READERS = ["show", "events", "facts", "context", "replay", "verify", "scan"]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def bundle(machine, kept):
    """Give the path of a bundle of the one run, with no store to find it in."""
    assert machine("export", kept, "-o", "golden.run").code == 0
    return "golden.run"


@pytest.fixture
def open_run(here):
    """Give the path of a bundle of a run that was interrupted, and holds secrets."""
    with MemoryStore() as store:
        run_id = next(stages(store))
        export_run(run_id, "open.run", store=store)
    return "open.run"


def test_a_run_is_exported_to_a_file_and_the_same_each_time(machine, kept):
    said = machine("export", "@last", "-o", "a.run")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[:2] == [f"run     {kept}", "file    a.run"]
    in_json = machine("export", kept, "--output", "b.run", "--json").json
    size = Path("a.run").stat().st_size
    events = machine("show", kept, "--json").json["head_seq"]
    assert in_json == {"run_id": kept, "file": "b.run", "events": events, "bytes": size, "secrets": False}
    assert Path("a.run").read_bytes() == Path("b.run").read_bytes()


def test_a_file_that_is_there_is_replaced_only_with_force(machine, kept):
    Path("a.run").write_text("mine")
    said = machine("export", kept, "-o", "a.run")
    assert said.code == 1
    assert said.err == "error[bundle_not_written]: a.run: it already exists\nhint: --force replaces it\n"
    assert Path("a.run").read_text() == "mine"
    assert machine("export", kept, "-o", "a.run", "--force").code == 0
    assert machine("verify", "a.run").code == 0


def test_a_link_is_followed_and_a_mode_is_kept(machine, kept):
    Path("real.run").write_text("")
    Path("real.run").chmod(0o640)
    Path("link.run").symlink_to("real.run")
    assert machine("export", kept, "-o", "link.run", "--force").code == 0
    assert Path("link.run").is_symlink()
    assert stat.S_IMODE(Path("real.run").stat().st_mode) == 0o640
    assert machine("verify", "real.run").code == 0


@pytest.mark.parametrize("words", [["--gzip", "-o", "a.run"], ["-o", "a.run.gz"]])
def test_a_bundle_is_compressed_when_asked_or_when_its_name_says_so(machine, kept, bundle, words):
    assert machine("export", kept, *words).code == 0
    packed = Path(words[-1]).read_bytes()
    assert packed.startswith(b"\x1f\x8b")
    assert gzip.decompress(packed) == Path(bundle).read_bytes()
    assert machine("verify", words[-1]).code == 0


@pytest.mark.parametrize("words", [[], ["--gzip"]])
def test_a_bundle_goes_to_stdout_as_it_is(kept, machine, bundle, words, here):
    argv = [sys.executable, "-m", "machine", "export", kept, "-o", "-", *words]
    done = subprocess.run(argv, capture_output=True, timeout=60, check=True)
    data = gzip.decompress(done.stdout) if words else done.stdout
    assert data == Path(bundle).read_bytes()
    assert done.stderr == b""


def test_stdout_cannot_hold_the_bundle_and_json(machine, kept):
    said = machine("export", kept, "-o", "-", "--json")
    assert (said.code, said.json["error"]["code"]) == (2, "usage")


def test_where_to_export_to_must_be_said(machine, kept):
    said = machine("export", kept)
    assert said.code == 2
    assert "--output" in said.err


@pytest.mark.parametrize("name", ["no/such/a.run", "."])
def test_an_export_that_cannot_be_written_exits_with_1(machine, kept, name, here):
    said = machine("export", kept, "-o", name, "--force")
    assert said.code == 1
    assert said.err.startswith("error[bundle_not_written]: ")
    assert names_in(here) == []


def test_a_run_that_is_not_there_leaves_no_file(machine, kept, here):
    assert machine("export", "ffffffff", "-o", "a.run").code == 5
    assert names_in(here) == []


# -- import --------------------------------------------------------------------------------------------------


def test_a_bundle_is_imported_into_a_store_that_is_made(machine, kept, bundle, here):
    said = machine("import", bundle, "--store", "new/runs.db")
    assert (said.code, said.out, said.err) == (0, f"{kept}\n", "")
    for command in READERS[:-1]:
        options = ["--json", "--store", "new/runs.db"]
        assert machine(command, kept, *options).json == machine(command, kept, "--json").json
    again = machine("import", bundle, "--store", "new/runs.db")
    assert (again.code, again.out) == (0, f"{kept}\n")
    run_id = again.out.strip()
    assert again.err == (
        "note: golden.run: the store has this run already, and its log stays as it is\n"
        f"next: machine show {run_id} --store new/runs.db or machine verify {run_id} --store new/runs.db\n"
    )


def test_several_bundles_are_imported_and_told_in_one_object(machine, kept, bundle, open_run):
    said = machine("import", bundle, open_run, bundle, "--store", "new.db", "--json")
    assert (said.code, said.err) == (0, "")
    told = [(row["file"], row["status"], row["new"]) for row in said.json["imported"]]
    assert told == [
        (bundle, "completed", True),
        (open_run, "interrupted", True),
        (bundle, "completed", False),
    ]
    assert len(machine("runs", "--store", "new.db", "--json").json["runs"]) == 2


def test_a_bundle_that_is_refused_leaves_no_store_and_nothing_of_the_others(machine, bundle, here):
    Path("bad.run").write_bytes(Path(bundle).read_bytes()[:-1])
    said = machine("import", bundle, "bad.run", "--store", "new.db")
    assert said.code == 3
    assert said.err.startswith("error[bundle_truncated]: bad.run, line ")
    assert said.err.endswith(f"\nhint: {BUNDLE_DAMAGED}\n")
    assert said.out == ""
    assert not Path("new.db").exists()


def test_an_open_run_with_secrets_is_imported_with_a_remark(machine, open_run):
    said = machine("import", open_run, "--store", "new.db")
    assert said.code == 0
    assert said.err.startswith("note: open.run: it is open and holds secrets")
    assert machine("replay", said.out.strip(), "--store", "new.db", "--target", str(PLAN)).code == 0


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        ([], "usage", 2),
        (["nothing.run"], "bundle_not_found", 5),
        (["golden.run", "--store", "memory://"], "usage", 2),
        (["golden.run", "--store", "golden.run"], "bundle_read_only", 2),
        ([".", "--store", "new.db"], "bundle_invalid", 3),
    ],
)
def test_an_import_that_cannot_work_says_why(machine, bundle, words, code, exit_code, here):
    said = machine("import", *words)
    assert said.code == exit_code
    assert said.err.startswith(f"error[{code}]: ")
    assert names_in(here) == [bundle]


def test_a_store_that_has_another_log_of_the_run_refuses_with_1(machine, plan_file, here):
    run_id = machine("run", "prices.py", "--json").json["run_id"]
    assert machine("export", run_id, "-o", "a.run").code == 0
    assert machine("import", "a.run", "--store", "whole.db").code == 0
    with sqlite3.connect("whole.db") as db:  # what a run is that was left behind
        db.execute("DROP TRIGGER events_never_go")
        db.execute("DELETE FROM events WHERE seq > 3")
        db.execute("UPDATE runs SET head_seq = 3")
    db.close()
    said = machine("import", "a.run", "--store", "whole.db")
    assert said.code == 1
    assert said.err.startswith("error[bundle_conflict]: a.run: run ")


# -- in the place of a run -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("packed", [False, True])
def test_a_bundle_is_read_where_it_stands_as_the_run_is_in_its_store(
    machine, kept, bundle, command, packed, monkeypatch
):
    expected = machine(command, kept)
    if packed:
        Path("other name").write_bytes(gzip.compress(Path(bundle).read_bytes()))
        bundle = "other name"
    monkeypatch.setenv("MACHINE_STORE", "nothing.db")
    for path in (bundle, f"./{bundle}", os.path.abspath(bundle)):  # noqa: PTH100 - as a user writes it
        assert machine(command, path) == expected
    in_json = machine(command, bundle, "--json")
    assert in_json.code == 0
    assert not Path("nothing.db").exists()
    assert names_in(Path()) == sorted({"golden.run", bundle})


def test_a_bundle_is_a_store_to_read_from(machine, kept, bundle):
    listed = machine("runs", "--store", bundle, "--json").json["runs"]
    assert [row["run_id"] for row in listed] == [kept]
    assert machine("show", "@last", "--store", bundle) == machine("show", kept)
    manifest = machine("show", kept, "--json").json["manifest_id"]
    of_store, of_bundle = (
        machine("artifact", manifest, "--json", *words) for words in ([], ["--store", bundle])
    )
    assert of_bundle == of_store
    missing = machine("artifact", "0" * 64, "--store", bundle)
    assert (missing.code, missing.err.startswith("error[artifact_not_found]")) == (5, True)


def test_a_bundle_is_exported_again(machine, bundle, kept):
    assert machine("export", bundle, "-o", "again.run.gz").code == 0
    assert gzip.decompress(Path("again.run.gz").read_bytes()) == Path(bundle).read_bytes()


@pytest.mark.parametrize(
    "words", [["resume"], ["cancel"], ["resolve", "KEY", "--not-done"]], ids=lambda words: words[0]
)
def test_what_would_change_a_run_refuses_a_bundle_and_names_the_way(machine, open_run, words):
    command, *rest = words
    before = Path(open_run).read_bytes()
    for said in (
        machine(command, open_run, *rest),
        machine(command, "@last", *rest, "--store", open_run),
        machine(command, "./elsewhere.run", *rest),
    ):
        assert said.code == 2
        assert said.err.startswith("error[bundle_read_only]: ")
        assert "machine import " in said.err
    assert (Path(open_run).read_bytes(), names_in(Path())) == (before, [open_run])


def test_a_run_is_not_started_in_a_bundle(machine, plan_file, open_run):
    said = machine("run", "prices.py", "--store", open_run)
    assert (said.code, said.err.startswith("error[bundle_read_only]: ")) == (2, True)


def test_an_open_run_in_a_bundle_is_continued_after_an_import(machine, open_run):
    said = machine("show", open_run)
    assert said.code == 0
    assert said.err == "next: machine import open.run\n"


@pytest.mark.parametrize("command", [*READERS, "export"])
def test_a_name_that_looks_like_a_file_is_looked_for_as_one(machine, kept, command):
    options = ["-o", "out.run"] if command == "export" else []
    for name in ("nothing.run", "nothing.run.gz", "nothing.jsonl", "no/where"):
        said = machine(command, name, *options)
        assert said.code == 5
        assert said.err == f"error[bundle_not_found]: {name}: there is no such file\n"


def test_a_file_with_the_whole_id_of_a_run_does_not_hide_the_run(machine, kept, here):
    (here / kept).write_text("not a bundle")
    (here / "@last").write_text("not a bundle")
    assert machine("show", kept).code == 0
    assert machine("show", "@last").code == 0
    (here / kept[:8]).write_text("not a bundle")
    assert machine("show", kept[:8]).code == 3
    assert machine("show", str(new_run_id())).code == 5


def test_a_damaged_bundle_is_told_in_the_form_of_verify(machine, bundle):
    data = Path(bundle).read_bytes()
    Path(bundle).write_bytes(data.replace(b"state_entered", b"state_entareD", 1))
    line = data[: data.index(b"state_entered")].count(b"\n") + 1
    said = machine("verify", bundle)
    assert said.code == 3
    assert said.out.splitlines()[0].startswith("damaged  ")
    assert said.out.splitlines()[2].split()[:3] == ["bundle_invalid", "line", str(line)]
    assert "get the bundle again" in said.err
    result = machine("verify", bundle, "--json")
    assert result.code == 3
    assert result.json["ok"] is False
    assert result.json["digest"] is None
    assert [(p["code"], p["where"]) for p in result.json["problems"]] == [("bundle_invalid", f"line {line}")]
    for command in ("show", "replay"):
        refused = machine(command, bundle)
        assert refused.code == 3
        assert refused.err.startswith(f"error[bundle_invalid]: {bundle}, line {line}: ")


def test_verify_of_a_file_that_is_not_there_is_no_damage(machine, here):
    said = machine("verify", "nothing.run")
    assert (said.code, said.out) == (5, "")


def test_scan_looks_through_any_other_file_as_it_is(machine, here):
    Path("a.run").write_text("not a bundle, AKIAIOSFODNN7EXAMPLE\n")
    said = machine("scan", "a.run", "--json")
    assert [found["where"] for found in said.json["found"]] == ["a.run"]
