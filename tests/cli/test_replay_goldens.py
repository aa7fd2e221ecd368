"""`machine replay` finds the plan of a golden: in the test that made it, wherever that test has it from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TESTS = """
import pytest
from machine import Plan

where = "module"


@pytest.fixture
def plan(request):
    made = Plan("inner", version="1")

    @made.state("a.value")
    async def value(ctx, io, rec):
        ctx["text"] = (await io.read_file("WORLD")).text.upper()

    return made


@pytest.mark.parametrize("n", [1, 2])
def test_inner(golden, plan, n):
    golden.check(plan, input={"n": n})
    golden.check(plan, input={"n": n}, name="again")


def test_gone(golden, plan):
    golden.check(plan, input={"n": 0})
"""


def ran(folder, *command):
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, "PYTEST_ADDOPTS": "-p no:hypothesispytest"},  # it only takes time
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    (folder / "world.txt").write_text("as it was")
    for name in ("one", "two"):  # two folders with modules of one name
        (folder / name).mkdir()
        (folder / name / "pytest.ini").write_text("[pytest]\naddopts = -q --strict-markers\n")
        code = TESTS.replace("WORLD", str(folder / "world.txt"))
        (folder / name / "test_it.py").write_text(code)
        code, text = ran(folder / name, "pytest", "-p", "machine.testing.plugin", "--golden=record-missing")
        assert code == 0, text
    (folder / "world.txt").unlink()
    return folder


@pytest.mark.slow
def test_every_golden_of_a_folder_is_replayed_and_has_a_verdict(recorded):
    code, text = ran(recorded, "machine", "replay", ".")
    assert text.startswith("10 runs: 10 identical in "), text
    assert code == 0
    test = recorded / "two" / "test_it.py"
    before = test.read_text()
    try:
        test.write_text(before.replace(".upper()", ".lower()").replace("test_gone", "test_renamed"))
        code, text = ran(recorded, "machine", "replay", "--json", "one", "two/fixtures", "--jobs", "1")
        report = json.loads(text)
        assert code == 2
        assert report["counts"] == {"identical": 5, "diverged": 4, "damaged": 0, "error": 1}
        found = {run["name"]: run for run in report["runs"]}
        differs = found["two/fixtures/test_inner[1].again.run"]
        assert differs["divergence"]["cause"] == "state_code_changed"
        assert found["one/fixtures/test_inner[1].again.run"]["identical"]
        gone = found["two/fixtures/test_gone.run"]["error"]
        assert gone["code"] == "target_not_found"
        assert "it was recorded by two/test_it.py::test_gone" in gone["message"]
        assert "there is no test of this name there" in gone["message"]
        test.write_text(before.replace('{"n": n}', '{"n": 9}'))
        code, text = ran(recorded, "machine", "replay", "two/fixtures/test_inner[1].run")
        assert code == 1
        assert "the input of the check is not as recorded: /input/n" in text
        assert "1 run: 0 identical, 1 diverged" in text
    finally:
        test.write_text(before)


@pytest.mark.long
def test_other_commands_say_that_a_test_has_the_plan(recorded):
    golden = "one/fixtures/test_gone.run"
    for command in (["compare", golden], ["replay", golden, "--schedules", "2"]):
        code, text = ran(recorded, "machine", *command)
        assert code == 2
        assert "was recorded by a test, ../test_it.py::test_gone" in text
        assert "machine replay GOLDEN has pytest replay it" in text
    code, text = ran(recorded, "machine", "replay", golden, "--undeclared-io", "allow")
    assert code == 2
    assert "--undeclared-io is for plans" in text
