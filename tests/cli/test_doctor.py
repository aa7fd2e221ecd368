"""`machine doctor`: what a handler does without io is found, and what depends on its surroundings."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

HEALTHY = """
from machine import Plan

plan = Plan("checked")

@plan.state("fetch.data")
async def data(ctx, io, rec):
    print("this is no result")
    ctx["now"] = await io.now()
    ctx["drawn"] = (await io.random()).random()

@plan.state("compute.sorted", after=[data])
def order(ctx, io, rec):
    ctx["tags"] = sorted({"alpha", "beta", "gamma", ctx.get("tag", "delta")})
"""
ILL = """
import datetime
import os
import random
from time import time as clock

from machine import Plan

plan = Plan("checked")

@plan.state("fetch.data")
async def data(ctx, io, rec):
    clock()
    await io.now()
    random.random()

@plan.state("compute.more", after=[data])
def more(ctx, io, rec):
    os.environ.get("HOME")
"""


def of_one_state(body, head=""):
    """Return a plan of one state."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return (
        f"{head}\nfrom machine import Plan\nplan = Plan('checked')\n@plan.state('a.b')\n"
        f"async def state(ctx, io, rec):\n{lines}\n"
    )


@pytest.mark.slow
def test_a_healthy_plan_is_said_to_be_so(machine, write):
    write("plan.py", HEALTHY)
    said = machine("doctor", "plan.py")
    assert (said.code, said.err) == (0, "")
    assert said.out == "healthy  1 run, 3 replays: identical, and nothing without io\n"


@pytest.mark.slow
def test_everything_that_goes_round_io_is_listed_with_its_place_and_remedy(machine, write):
    write("plan.py", ILL)
    said = machine("doctor", "plan.py:plan", "--replays", 1)
    assert said.code == 1
    assert [line.split()[:3] for line in said.out.splitlines()] == [
        ["STATE", "WHERE", "DOES"],
        ["fetch.data", "plan.py:13", "reads"],
        ["fetch.data", "plan.py:15", "uses"],
        ["compute.more", "plan.py:19", "reads"],
        ["unhealthy", "1", "run,"],
    ]
    found = machine("doctor", "plan.py:plan", "--replays", 1, "--json").json["findings"]
    assert [(one["event"], one["line"], one["remedy"]) for one in found] == [
        ("time.time", 13, 'use "await io.now()"'),
        ("random.random", 15, 'use "await io.random()"'),
        ("os._Environ.__getitem__", 19, 'use "io.env(name)"'),
    ]
    assert {one["file"] for one in found} == {os.path.realpath("plan.py")}


DEPENDS = {
    "the order of a set": of_one_state("ctx['tags'] = list(set('abcdefgh'))"),
    "the hash of a text": of_one_state("ctx['hash'] = hash('text') % 1000000"),
    "the time zone": of_one_state(
        "ctx['hour'] = datetime.datetime.fromtimestamp(0).isoformat()", "import datetime"
    ),
    "the working directory": of_one_state(
        "ctx['path'] = str(Path('x').resolve())", "from pathlib import Path"
    ),
    "the address of an object": of_one_state("ctx['id'] = str(id(object)) + str(id(ctx))"),
    "a number of the process": of_one_state("ctx['number'] = os.getpid()", "import os"),
}


@pytest.mark.slow
@pytest.mark.parametrize("plan", DEPENDS.values(), ids=DEPENDS)
def test_what_depends_on_its_surroundings_is_found_by_what_it_does(machine, write, plan):
    write("plan.py", plan)
    said = machine("doctor", "plan.py", "--json")
    assert said.code == 1
    (difference,) = said.json["differences"]
    assert difference["divergence"]["kind"] == "snapshot_differs"
    assert difference["divergence"]["state_id"] == "checked.a.b"
    assert set(difference["environment"]["variables"]) == {"PYTHONHASHSEED", "TZ", "LC_ALL"}


def test_a_difference_is_shown_as_a_replay_shows_it(machine, write):
    write("plan.py", DEPENDS["the order of a set"])
    said = machine("doctor", "plan.py")
    assert said.out.startswith("differs  in a replay with PYTHONHASHSEED=")
    assert "RECORDED" in said.out
    assert "NOW" in said.out


@pytest.mark.slow
def test_the_world_is_asked_once_for_each_input(machine, write, here):
    write(
        "plan.py",
        of_one_state("out = await io.exec(['sh', '-c', 'echo asked >> asked.txt'])\nctx['n'] = ctx['a']"),
    )
    given = ("--input", '{"a": 1}', "--input", '{"a": 2}', "--replays", 2)
    said = machine("doctor", "plan.py", "--json", *given)
    assert (said.code, len(said.json["runs"]), said.json["replays"]) == (0, 2, 4)
    assert (here / "asked.txt").read_text() == "asked\nasked\n"
    assert sorted(path.name for path in here.iterdir() if path.name != "__pycache__") == [
        *("asked.txt", "plan.py")
    ]


@pytest.mark.slow
def test_a_run_is_examined_without_asking_the_world(machine, write, here):
    path = write("plan.py", of_one_state("ctx['out'] = (await io.exec(['cat', 'there.txt'])).stdout"))
    (here / "there.txt").write_text("there")
    run_id = machine("run", "plan.py", "--json").json["run_id"]
    (here / "there.txt").unlink()
    for name in ("@last", run_id[:13]):
        assert machine("doctor", name, "--replays", 1).code == 0
    assert machine("export", run_id, "--output", "kept.run").code == 0
    assert machine("doctor", "kept.run", "--replays", 1).code == 0
    path.write_text(path.read_text() + "    import time\n    time.time()\n")
    said = machine("doctor", run_id, "--json", "--replays", 1)
    assert said.code == 1
    assert [finding["event"] for finding in said.json["findings"]] == ["time.time"]
    assert said.json["runs"] == [{"run_id": run_id, "status": "completed"}]


@pytest.mark.slow
def test_a_plan_that_hangs_is_ended_and_what_was_found_by_then_is_listed(machine, write, here):
    write(
        "plan.py",
        of_one_state(
            "import pathlib, subprocess\n"
            "child = subprocess.Popen(['sleep', '600'])\n"
            "pathlib.Path('pids').write_text(f'{os.getpid()} {child.pid}')\n"
            "while True:\n    pass",
            "import os",
        ),
    )
    said = machine("doctor", "plan.py", "--json", "--timeout", 5)
    assert said.code == 1
    assert "subprocess.Popen" in [finding["event"] for finding in said.json["findings"]]
    assert said.json["problems"] == ["the run of input 1 took longer than 5 s and was ended"]
    for pid in map(int, (here / "pids").read_text().split()):
        assert gone(pid), "a process was left behind"


def gone(pid):
    """Say whether a process ends within a few seconds, or has been."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        state = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        if state.stdout.startswith("Z"):  # dead, and for another to reap
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("os._exit(9)", "did not come to its end, exit code 9"),
        ("os.kill(os.getpid(), 9)", "did not come to its end, exit code -9"),
    ],
)
def test_a_plan_that_ends_its_process_is_a_problem(machine, write, body, problem):
    write("plan.py", of_one_state(body, "import os"))
    said = machine("doctor", "plan.py")
    assert said.code == 1
    assert f"problem  the run of input 1 {problem}" in said.out


@pytest.mark.slow
def test_a_run_that_failed_is_examined_as_it_is(machine, write):
    write("plan.py", of_one_state("raise ValueError('always')"))
    said = machine("doctor", "plan.py", "--replays", 1)
    assert said.code == 0
    assert "is failed; what was examined is that" in said.err


@pytest.mark.parametrize(
    "argv",
    [
        ("plan.py", "--target", "plan.py"),
        ("@last", "--input", "{}"),
        ("no_such_plan.py",),
        ("plan.py", "--replays", "0"),
        ("plan.py", "--timeout", "0"),
    ],
)
def test_what_cannot_work_is_refused(machine, write, argv):
    write("plan.py", HEALTHY)
    assert machine("doctor", *argv).code == 2


@pytest.mark.slow
def test_it_works_as_a_process(process, write):
    write("plan.py", HEALTHY)
    assert process("doctor", "plan.py", "--replays", 1).out.startswith("healthy")


FAMILY = """
from machine import Plan

child = Plan("child", version="1")
plan = Plan("family", version="1")


@child.state("find.it")
async def find(ctx, io):
    ctx["at"] = await io.now()
    ctx["odd"] = HOW


@plan.state("begin.child")
async def begin(ctx, io):
    ctx["status"] = (await io.run_child(child, {"n": 1}, key="the child")).status
"""


@pytest.mark.slow
def test_child_runs_are_examined_with_the_run_that_began_them(machine, write):
    write("odd.py", FAMILY.replace("HOW", "hash('a text') % 1000"))
    said = machine("doctor", "odd.py:plan", "--replays", "1")
    assert said.code == 1
    assert "in the child run " in said.out


@pytest.mark.slow
def test_a_recording_without_its_child_runs_says_that_they_could_not_be_examined(machine, write):
    write("family.py", FAMILY.replace("HOW", "1"))
    run_id = machine("run", "family.py:plan", "--json").json["run_id"]
    assert machine("doctor", run_id, "--replays", "1").out.startswith("healthy  1 run, 1 replay")
    machine("export", run_id, "-o", "family.run")
    said = machine("doctor", "family.run", "--replays", "1")
    assert said.code == 1
    assert "error[run_not_found]" in said.out
    assert "import those of its children and its own into one store" in said.out
