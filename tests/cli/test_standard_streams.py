"""Streams that are closed, full or read by nobody, and pipes where files belong: no traceback, and no hang."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from machine import open_store

TALKING = """
from machine import Plan

plan = Plan("talk")


@plan.state("a.b")
async def talk(ctx, io, rec):
    print("said")
    ctx["at"] = await io.now()
"""


@pytest.fixture
def shell(here):
    """Run a line of the shell in which $M is the command; return its exit code and what it said."""
    (here / "talk.py").write_text(TALKING)

    def run(line):
        env = {**os.environ, "M": f"{sys.executable} -m machine"}
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line}"],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env=env,
            cwd=here,
        )
        assert "Traceback" not in done.stdout + done.stderr
        assert "Exception ignored" not in done.stdout + done.stderr
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.slow
@pytest.mark.parametrize("words", ["", "--json"])
@pytest.mark.parametrize(
    ("streams", "code"),
    [
        (">&-", 0),
        ("2>&-", 0),
        ("<&- >&- 2>&-", 0),
        (">/dev/full", 1),
        ("2>/dev/full", 0),
        (">/dev/full 2>/dev/full", 1),
        ("| true", 141),
        ("2>&1 | true", 141),
        ("2> >(true)", 0),
    ],
)
def test_a_run_is_made_whatever_becomes_of_what_it_says(shell, words, streams, code):
    exit_code, _ = shell(f"$M run talk.py:plan --store sqlite:///runs.db {words} {streams}")
    assert exit_code == code
    with open_store("sqlite:///runs.db") as store:
        assert [row.status for row in store.list_runs().rows] == ["completed"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["runs", "show @last", "verify @last", "--help", "events @last --json"])
@pytest.mark.parametrize(("streams", "codes"), [(">&- 2>&-", {0}), ("2>/dev/full", {0}), (">/dev/full", {1})])
def test_a_command_ends_with_a_code_of_its_own(shell, kept, command, streams, codes):
    exit_code, said = shell(f"$M {command} {streams}")
    assert exit_code in codes, said


def test_a_full_output_is_told_with_json_too(shell, kept):
    said = "error[output_failed]: the output cannot be written: No space left on device\n"
    assert shell("$M events @last --json >/dev/full") == (1, said)


def test_help_that_nobody_reads_ends_like_all_output_that_nobody_reads(shell):
    assert shell("$M --help | true") == (141, "")


def test_no_file_gets_the_number_of_a_stream_that_was_closed(shell, here):
    """What a library says on descriptor 2 would go into the store otherwise."""
    (here / "talk.py").write_text(TALKING.replace("print(", "import os; os.write(2, b'x' * 9000); print("))
    assert shell("$M run talk.py:plan --store sqlite:///runs.db >&- 2>&-")[0] == 0
    assert shell("$M verify @last --store sqlite:///runs.db")[0] == 0


@pytest.fixture
def pipe(here):
    os.mkfifo(here / "pipe.run")
    os.mkfifo(here / "pipe")
    return here


@pytest.mark.parametrize("name", ["pipe.run", "pipe", "./pipe", "/dev/null", "/dev/zero"])
@pytest.mark.parametrize(
    "words",
    [
        ["show"],
        ["verify"],
        ["replay"],
        ["compare"],
        ["events"],
        ["import"],
        ["scan"],
        ["export", "-o", "new.run"],
    ],
)
def test_a_pipe_or_device_is_no_run_and_is_not_opened(machine, kept, pipe, words, name):
    said = machine(words[0], name, *words[1:])
    assert said.code == 2
    assert "bundle_not_a_file" in said.out + said.err
    assert not (pipe / "new.run").exists()


@pytest.mark.parametrize("words", [["--input", "@pipe"], ["--config", "pipe"], ["--input", "@/dev/zero"]])
def test_a_pipe_or_device_is_no_input(machine, plan_file, pipe, words):
    said = machine("run", plan_file, *words)
    assert said.code == 2
    assert "not a regular file" in said.err


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_pipe_is_not_written_to(machine, kept, pipe, force):
    said = machine("export", kept, "-o", "pipe", *force)
    assert said.code == 1
    assert said.err.endswith("pipe: it cannot be written: it is there and is not a regular file\n")


def test_a_pipe_among_many_bundles_hides_no_other(machine, kept, pipe):
    assert machine("export", kept, "-o", "sound.run").code == 0
    said = machine("verify", ".", "--jobs", "1")
    assert said.code in {2, 3}
    assert "1 sound" in said.out
