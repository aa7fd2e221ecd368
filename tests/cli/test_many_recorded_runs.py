"""`replay` and `verify` of many runs: what is said of them, in which order, and whatever becomes of a worker."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from machine import export_run, open_store, run
from machine.target import load

STORE = ".machine/runs.db"
PLAN = """
import os
from machine import Plan

plan = Plan("orders")


@plan.state("price.total")
async def total(ctx, io, rec):
    at = await io.now()
    ctx["total"] = ctx["n"] * 2
"""
SPOILT = PLAN.replace('ctx["n"] * 2', 'ctx["n"] * (3 if ctx["n"] == 17 else 2)')
DEADLY = PLAN + '    if ctx["n"] in (3, 4):\n        {how}\n'
ALONE = ("--jobs", "1")
both = pytest.mark.parametrize("jobs", ["1", "2"])


def record(plan, numbers, store=STORE, folder=None):
    """Record a run for each number, and export it into `folder`; return the ids."""
    loaded = load(str(plan))
    ids = []
    with open_store(f"sqlite:///{store}?synchronous=normal") as opened:
        for n in numbers:
            run_id = run(loaded.plan, store=opened, input={"n": n}, target=loaded.target).run_id
            ids.append(run_id)
            if folder is not None:
                folder.mkdir(exist_ok=True)
                export_run(run_id, folder / f"{n:02}.run", store=opened)
    return ids


@pytest.fixture
def plan(write):
    return write("orders.py", PLAN)


@pytest.fixture(scope="session")
def sixty(tmp_path_factory):
    """Record 60 runs for all tests, and give the directory of their bundles and of their plan."""
    place = tmp_path_factory.mktemp("sixty")
    (place / "orders.py").write_text(PLAN)
    record(place / "orders.py", range(60), place / "runs.db", place / "golden")
    cut = place / "golden" / "05.run"
    cut.write_bytes(cut.read_bytes()[:-40])
    (place / "orders.py").write_text(SPOILT)
    return place


@pytest.fixture
def golden(here, sixty):
    """Give a directory of 60 bundles, of which one was cut and one is of a run that the plan does otherwise now."""
    shutil.copytree(sixty / "golden", "golden")
    return "golden"


@pytest.fixture
def few(plan):
    """Give the ids of six runs."""
    return record(plan, range(6))


def without_time(text):
    return re.sub(r" in \S+$", "", text, flags=re.MULTILINE)


# -- the report ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_of_many_bundles_the_bad_ones_are_told_in_full_and_the_rest_is_counted(machine, golden):
    said = machine("replay", golden)
    assert said.code == 3
    cut, diverged, summary = said.out.split("\n\n", 1)[0], said.out, said.out.splitlines()[-1]
    assert cut.splitlines()[0] == "golden/05.run"
    assert cut.splitlines()[1].startswith("damaged  error[bundle_truncated]: golden/05.run, line ")
    assert "\ngolden/17.run\ndiverged  after " in diverged
    assert "    RECORDED  34\n    NOW       51\n" in diverged
    assert without_time(summary) == "60 runs: 58 identical, 1 diverged, 1 damaged"
    assert said.err == ""
    assert (
        machine("verify", golden, *ALONE).out.splitlines()[-1].startswith("60 runs: 59 sound, 1 damaged in ")
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", ["replay", "verify"])
def test_the_report_does_not_depend_on_the_number_of_processes(machine, golden, command):
    one, two = (machine(command, golden, "--jobs", jobs) for jobs in ("1", "2"))
    assert one.code == two.code == 3
    assert without_time(one.out) == without_time(two.out)
    as_json = [machine(command, golden, "--jobs", jobs, "--json").out for jobs in ("1", "2")]
    assert as_json[0] == as_json[1]


def test_as_json_each_run_says_what_it_says_alone(machine, golden):
    said = machine("replay", "golden/17.run", "golden/05.run", "golden/00.run", "--json", *ALONE)
    assert said.code == 3
    assert said.json["total"] == 3
    assert said.json["counts"] == {"identical": 1, "diverged": 1, "damaged": 1, "error": 0}
    diverged, cut, good = said.json["runs"]
    assert diverged == {
        "name": "golden/17.run",
        "verdict": "diverged",
        **machine("replay", "golden/17.run", "--json").json,
    }
    assert good == {
        "name": "golden/00.run",
        "verdict": "identical",
        **machine("replay", "golden/00.run", "--json").json,
    }
    assert cut == {
        "name": "golden/05.run",
        "verdict": "damaged",
        **machine("replay", "golden/05.run", "--json").json,
    }
    verified = machine("verify", "golden/05.run", "golden/00.run", "--json", *ALONE).json
    assert [one["ok"] for one in verified["runs"]] == [False, True]
    assert verified["counts"] == {"sound": 1, "damaged": 1, "error": 0}
    assert "store" not in verified


def test_the_exit_code_is_that_of_the_worst(machine, golden):
    assert machine("replay", "golden/00.run", "golden/01.run", *ALONE).code == 0
    assert machine("replay", "golden/00.run", "golden/17.run", *ALONE).code == 1
    assert machine("replay", "golden/05.run", "golden/17.run", *ALONE).code == 3


def test_a_list_of_one_is_a_list_and_a_single_name_is_not(machine, golden):
    Path("one").mkdir()
    Path("golden/00.run").rename("one/00.run")
    assert machine("replay", "one", "--json").json["total"] == 1
    assert machine("replay", "one/00.run", "--json").json["identical"] is True
    assert machine("replay", "one/00.run", "--jobs", "2").out.startswith("identical  ")


# -- which runs ----------------------------------------------------------------------------------------------


def test_names_may_be_of_every_kind_and_a_run_named_twice_is_looked_at_once(machine, few, golden):
    told = machine(
        "replay", few[-1], "@last", few[0], golden, "./golden/00.run", "--json", "--jobs", "1"
    ).json["runs"]
    names = [one["name"] for one in told]
    assert names[:2] == [few[-1], few[0]]
    assert names[2:] == [f"golden/{n:02}.run" for n in range(60)]


def test_all_is_every_run_of_the_store_newest_first(machine, few):
    for command in ("replay", "verify"):
        told = machine(command, "--all", "--json", *ALONE).json
        assert [one["name"] for one in told["runs"]] == few[::-1]


def test_a_directory_is_searched_to_its_bottom_for_bundles_alone(machine, golden):
    Path("deep/er").mkdir(parents=True)
    for source, name in (("00.run", "er/a.run"), ("01.run", "b.jsonl")):
        Path("golden", source).rename(Path("deep", name))
    Path("deep/rows.jsonl").write_text('{"no": "bundle"}\n')
    Path("deep/notes.txt").write_text("no bundle")
    assert [one["name"] for one in machine("replay", "deep", "--json", *ALONE).json["runs"]] == [
        "deep/b.jsonl",
        "deep/er/a.run",
    ]


@pytest.mark.parametrize(
    ("names", "code", "error"),
    [
        ([], 2, "usage"),
        (["@last", "ffff"], 5, "run_not_found"),
        (["@last", "no.run"], 5, "bundle_not_found"),
        (["empty"], 5, "bundle_not_found"),
    ],
)
@pytest.mark.parametrize("command", ["replay", "verify"])
def test_a_name_that_means_nothing_is_told_before_anything_is_done(machine, few, command, names, code, error):
    Path("empty").mkdir()
    said = machine(command, *names, "--json")
    assert said.code == code
    assert said.json["error"]["code"] == error


def test_a_store_without_runs_is_not_a_success(machine, here):
    open_store(f"sqlite:///{STORE}").close()
    said = machine("replay", "--all")
    assert said.code == 5
    assert said.err.startswith("error[run_not_found]: there is no run in ")


@both
def test_fewer_than_one_process_is_refused(machine, few, jobs):
    said = machine("replay", "--all", "--jobs", f"-{jobs}")
    assert said.code == 2


# -- plans ---------------------------------------------------------------------------------------------------

HELPED = """
from machine import Plan
from factor import FACTOR

plan = Plan("{op}")


@plan.state("price.total")
def total(ctx, io, rec):
    ctx["total"] = ctx["n"] * FACTOR
    if ctx["n"] == 1:
        raise KeyError("one")
"""


@pytest.mark.slow
def test_runs_of_two_plans_whose_modules_have_the_same_names_are_each_held_against_their_own(process, write):
    for op, factor in (("left", 2), ("right", 5)):
        write(f"{op}/plan.py", HELPED.format(op=op))
        write(f"{op}/factor.py", f"FACTOR = {factor}\n")
    for n in (1, 2):  # one after the other, so that they alternate in the store
        for op in ("left", "right"):
            assert process("run", f"{op}/plan.py", "--input", f'{{"n": {n}}}').code == (n == 1)
    for jobs in ("1", "2"):
        said = process("replay", "--all", "--jobs", jobs, "--json")
        assert said.json["counts"] == {"identical": 4, "diverged": 0, "damaged": 0, "error": 0}, said.out
        assert said.code == 0


def test_one_target_is_for_all(machine, few, here):
    Path("orders.py").rename("moved.py")
    said = machine("replay", "--all", *ALONE)
    assert said.code == 2
    assert said.out.count("error[target_not_found]") == 6
    assert said.out.splitlines()[-1].startswith("6 runs: 0 identical, 6 errors in ")
    assert machine("replay", "--all", "--target", "moved.py", *ALONE).code == 0


@both
def test_a_plan_that_cannot_be_imported_is_an_error_of_its_runs_and_imported_once(machine, few, plan, jobs):
    plan.write_text(
        "with open('tried', 'a') as file:\n    file.write('x')\nraise RuntimeError('not today')\n"
    )
    said = machine("replay", "--all", "--jobs", jobs, "--json")
    assert said.code == 2
    assert {one["error"]["code"] for one in said.json["runs"]} == {"target_import_failed"}
    assert said.json["counts"]["error"] == 6
    assert len(Path("tried").read_text()) <= int(jobs)


@pytest.mark.slow
@both
def test_what_all_runs_of_a_plan_do_without_io_is_warned_of_once(machine, few, plan, jobs):
    plan.write_text(PLAN + '    os.environ.get("HOME")\n')
    said = machine("replay", "--all", "--undeclared-io", "warn", "--jobs", jobs)
    assert said.code == 0
    assert said.err.count("warning: ") == 1
    assert "orders.price.total" in said.err
    assert machine("replay", "--all", "--undeclared-io", "warn", "--quiet", "--jobs", jobs).err == ""
    told = machine("replay", "--all", "--undeclared-io", "warn", "--json", "--jobs", jobs).json["runs"]
    assert all(one["undeclared_io"][0]["state_id"] == "orders.price.total" for one in told)


# -- the store -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@both
def test_what_is_wrong_with_the_store_is_said_once(machine, few, jobs):
    with Path(STORE).open("ab") as file:
        file.write(b"x")
    said = machine("verify", "--all", "--jobs", jobs)
    assert said.code == 3
    assert said.out.count("the last page is truncated") == 1
    assert without_time(said.out.splitlines()[-1]) == "6 runs: 6 sound, the store damaged"
    told = machine("verify", "--all", "--jobs", jobs, "--json").json
    assert told["store"]["url"] == f"sqlite:///{STORE}"
    assert [problem["code"] for problem in told["store"]["problems"]] == ["store_corrupt"]
    assert all(one["ok"] for one in told["runs"])


def test_verifying_all_runs_looks_at_the_store_as_a_whole_once(machine, few, monkeypatch):
    seen = []
    import machine.stores.sqlite as module

    real = module.problems_of
    monkeypatch.setattr(module, "problems_of", lambda *args: seen.append(1) or real(*args))
    assert machine("verify", "--all", "--jobs", "1").code == 0
    assert len(seen) == 1


# -- workers -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "words"),
    [("os._exit(7)", "ended with exit code 7"), ("os.kill(os.getpid(), 9)", "was killed by signal 9")],
)
def test_a_worker_that_dies_is_an_error_of_the_run_it_was_at(machine, few, plan, how, words):
    plan.write_text(DEADLY.format(how=how))
    said = machine("replay", *few, "--jobs", "2", "--json", "--undeclared-io", "allow")
    assert said.code == 1
    assert [one["verdict"] for one in said.json["runs"]] == ["identical"] * 3 + ["error"] * 2 + ["identical"]
    error = said.json["runs"][3]["error"]
    assert error["code"] == "worker_died"
    assert error["message"] == f"the process that looked at {few[3]} {words}"


def test_workers_that_do_not_even_begin_are_one_error(few, write):
    script = write(
        "script.py",
        """
        import sys
        from machine.cli import main

        sys.exit(main(["replay", "--all", "--jobs", "2", "--json"]))
        """,
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    error = json.loads(done.stdout.splitlines()[-1])["error"]
    assert error["code"] == "worker_died"
    assert error["message"] == "a worker process ended with exit code 1 before it began"


def test_a_worker_of_many_items_that_dies_leaves_the_rest_to_another(machine, golden, write):
    write("orders.py", DEADLY.format(how="os._exit(7)"))
    said = machine(
        "replay", golden, "--target", "orders.py", "--undeclared-io", "allow", "--jobs", "2", "--json"
    )
    verdicts = [one["verdict"] for one in said.json["runs"]]
    assert said.json["counts"] == {"identical": 57, "diverged": 0, "damaged": 1, "error": 2}
    assert verdicts[3:6] == ["error", "error", "damaged"]


def test_ctrl_c_ends_all_workers_at_once(few, plan):
    text = PLAN + '    open(f"pid-{os.getpid()}", "w").close()\n    __import__("time").sleep(100)\n'
    plan.write_text(text)
    child = subprocess.Popen(
        [sys.executable, "-m", "machine", "replay", "--all", "--jobs", "2", "--undeclared-io", "allow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while len(pids := sorted(Path().glob("pid-*"))) < 2:
        assert time.monotonic() < deadline
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.02)
    for _ in range(2):  # a worker leaves it to the process that it works for, however often it is told
        for pid in pids:
            os.kill(int(pid.name.removeprefix("pid-")), signal.SIGINT)
        time.sleep(0.3)
    for pid in pids:
        os.kill(int(pid.name.removeprefix("pid-")), 0)
    os.killpg(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert child.returncode == 130
    assert (out, err) == ("", "interrupted; nothing durable is lost.\n")
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.name.removeprefix("pid-")), 0)


def test_what_handlers_print_stays_out_of_the_report(machine, few, plan):
    plan.write_text(PLAN + '    print("a word")\n')
    for jobs in ("1", "2"):
        said = machine("replay", "--all", "--jobs", jobs, "--json")
        assert json.loads(said.out)["counts"]["identical"] == 6
        assert said.err.count("a word") == 6


@pytest.mark.slow
def test_a_terminal_shows_how_far_it_is_and_keeps_the_report_alone(golden, on_terminal):
    code, got = on_terminal("replay", golden, "--jobs", "1")
    assert code == 3
    assert "\r[........................] 0/60\x1b[K" in got
    plain = re.sub(r"\x1b\[[0-9;]*m", "", got)
    kept = [line.rpartition("\x1b[K")[2] for line in plain.removesuffix("\n").split("\n")]
    assert kept[0] == "golden/05.run"
    assert without_time(kept[-1]) == "60 runs: 58 identical, 1 diverged, 1 damaged"
    assert "0/60" not in on_terminal("replay", golden, "--jobs", "1", "--quiet")[1]
