"""What only a process of its own can show: signals, pipes, terminals, start-up."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from machine.cli.app import build
from machine.stores import open_store

FULL = Path("/dev/full")

SLOW = """
import os
from machine import Plan

plan = Plan("slow")


@plan.state("a.first")
async def first(ctx, io, rec):
    ctx["first"] = (await io.random_bytes(4)).hex()


@plan.state("a.second", after=[first])
{kind} second(ctx, io, rec):
    {wait}io.random_bytes(1)
    if os.path.exists("wait"):
        open("waiting", "w").close()
        {sleep}
    ctx["second"] = True
"""


def started(*argv, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "machine", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["async def", "def"])
@pytest.mark.parametrize(
    ("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str
)
def test_what_asks_it_to_end_leaves_a_run_that_resumes_where_it_was(machine, here, write, kind, how, code):
    asynchronous = kind == "async def"
    sleep = "await io.sleep(60)" if asynchronous else "__import__('time').sleep(60)"
    write("slow.py", SLOW.format(kind=kind, wait="await " if asynchronous else "", sleep=sleep))
    (here / "wait").touch()
    child = started("run", "slow.py")
    deadline = time.monotonic() + 20
    while not (here / "waiting").exists():
        assert time.monotonic() < deadline
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.02)
    child.send_signal(how)
    out, err = child.communicate(timeout=20)
    assert child.returncode == code
    assert out == ""
    match = re.search(r"interrupted; nothing durable is lost\. Continue with: machine resume (\S+)\n", err)
    assert match, err
    assert "Traceback" not in err
    shown = machine("show", match[1], "--json").json
    assert shown["status"] == "interrupted"
    assert "attempt_interrupted" in json.dumps(shown)
    with open_store(f"sqlite:///{here}/.machine/runs.db") as store:
        assert store.lease_of(match[1]) is None
    first = machine("context", "@last", "--json").json["context"]["first"]
    (here / "wait").unlink()
    resumed = machine("resume", match[1], "--json")
    assert resumed.code == 0
    assert resumed.json["context"] == {"first": first, "second": True}
    assert machine("replay", "@last").code == 0


def test_a_replay_in_another_process_place_and_time_zone_is_identical(process, recorded, here, environment):
    (here / "elsewhere").mkdir()
    said = process(
        "replay",
        "@last",
        "--store",
        f"sqlite:///{here}/.machine/runs.db",
        cwd=here / "elsewhere",
        env={**environment, "PYTHONHASHSEED": "12345", "TZ": "Pacific/Auckland"},
    )
    assert said.code == 0, said.err
    assert said.out.startswith("identical")


def test_a_reader_that_goes_away_is_nothing_to_speak_of(kept):
    child = started("events", "@last")
    child.stdout.close()
    assert child.wait(timeout=20) == 141
    assert child.stderr.read() == ""
    child.stderr.close()


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
def test_output_that_cannot_be_written_is_an_error_without_a_traceback(kept):
    with FULL.open("w") as full:
        child = subprocess.run(
            [sys.executable, "-m", "machine", "runs"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert child.returncode == 1
    assert "Traceback" not in child.stderr


def test_colour_is_for_terminals_and_not_when_no_color_is_set(recorded, on_terminal, machine):
    code, got = on_terminal("replay", "@last")
    assert code == 0
    assert "\x1b[32midentical\x1b[0m" in got
    _, plain = on_terminal("show", "@last", NO_COLOR="1")
    assert "\x1b[3" not in plain
    assert "\x1b" not in machine("show", "@last").out


@pytest.mark.slow
def test_lines_on_a_terminal_are_no_longer_than_it_is_wide(kept, on_terminal):
    for command in ("runs", "show", "events", "facts"):
        code, got = on_terminal(
            command, *([] if command == "runs" else ["@last"]), MACHINE_STORE=os.environ["MACHINE_STORE"]
        )
        assert code == 0
        lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", got).splitlines()
        wide = [line for line in lines if len(line) > 80 and not line.startswith("target")]
        assert wide == []


def test_a_run_on_a_terminal_shows_what_goes_on_and_leaves_a_line_for_each_state(
    plan_file, on_terminal, write
):
    write("slow.py", SLOW.format(kind="async def", wait="await ", sleep="await io.sleep(0.5)"))
    write("wait", "")
    code, got = on_terminal("run", "slow.py")
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", got)
    assert "2/2  a.second  running" in plain
    assert re.search(r"  2/2  a\.second  completed  \d\.\d", plain)
    assert "\x1b[?25h" in got  # the cursor is back


def test_help_is_quick_and_loads_no_engine(environment):
    code = (
        "import sys, time\n"
        "from machine.cli import main\n"
        "assert main(['--help']) == 0\n"
        "heavy = {'httpx', 'anyio', 'asyncio', 'cattrs', 'sqlite3', 'multiprocessing', 'importlib.metadata',\n"
        "         'rich.live', 'pytest', 'machine.config', 'machine.engine', 'machine.stores', 'machine.replay',\n"
        "         'machine.cli.replay_compare_verify', 'machine.cli.many_recorded_runs'}\n"
        "print(sorted(heavy & set(sys.modules)), time.process_time(), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    loaded, seconds = done.stderr.rsplit(" ", 1)
    assert loaded == "[]"
    assert float(seconds) < 2  # about 0.15 s; a busy machine must not make it red


def test_the_shell_completes_without_asking_the_program(here, environment):
    script = build(lambda: 0).generate_completion(shell="bash")
    asked = "\nCOMP_WORDS=(machine verify --j); COMP_CWORD=2; _machine; echo ${COMPREPLY[*]}\n"
    done = subprocess.run(
        ["/bin/bash", "--norc", "-c", script + asked],
        capture_output=True,
        text=True,
        check=True,
        env={**environment, "PATH": str(here)},
    )
    assert (done.stdout, done.stderr) == ("--jobs\n", "")


def test_the_module_and_the_command_are_the_same(process):
    said = process("--version")
    assert said.code == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", said.out)
    assert process().out == process("--help").out


def test_input_arrives_through_a_pipe(process, plan_file):
    said = process("run", "prices.py", "--input", "-", "--json", input='{"add": 3}')
    assert json.loads(said.out)["context"]["total"] == 27
