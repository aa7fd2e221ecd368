"""Functions as steps on the command line: recorded, listed, replayed by a stranger, resumed after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

ROWS = """
    import decimal
    import os
    import time
    from pathlib import Path

    import attrs
    import machine
    from machine import Plan

    HERE = Path(__file__).parent
    plan = Plan("rows", version="1")


    def note(what):
        with open(HERE / "calls.txt", "a") as calls:
            calls.write(f"{what}\\n")


    @attrs.define
    class Row:
        name: str
        price: decimal.Decimal


    class NoRowsError(Exception):
        pass


    def load_rows(day: str, least: int) -> list[Row]:
        note("load_rows")
        return [Row(day, decimal.Decimal(least)), *[Row(name, decimal.Decimal(len(name))) for name in {"ab", "c"}]]


    def fails():
        note("fails")
        raise NoRowsError("none", 0)


    @machine.step(effect=True)
    def charge(amount, *, idempotency_key):
        note(f"charge {amount} {idempotency_key}")
        return {"charged": amount}


    def hang():
        if (HERE / "hang").exists():
            (HERE / "hanging").write_text("")
            time.sleep(60)


    @plan.state("load.rows", side_effects="read_only_io")
    async def load(ctx, io):
        rows = await io.step(load_rows, "monday", 2)
        ctx["rows"] = [[row.name, str(row.price)] for row in rows]
        try:
            await io.step(fails)
        except NoRowsError as exc:
            ctx["no"] = list(exc.args)


    @plan.state("pay.card", after=[load], side_effects="apply_side_effect", idempotency="key-1")
    def pay(ctx, io):
        ctx["paid"] = charge(40)
        io.step(hang)


    if __name__ == "__main__":
        with machine.open_store("sqlite:///script.db") as store:
            print(machine.run(plan, store=store).run_id)
"""
ENVIRONMENT = {**os.environ, "PYTHONHASHSEED": "77"}


@pytest.fixture
def rows(write):
    return write("rows.py", ROWS)


@pytest.fixture
def calls(here):
    def read():
        path = here / "calls.txt"
        return path.read_text().splitlines() if path.exists() else []

    return read


CALLED = ["load_rows", "fails", "charge 40 key-1"]


def test_steps_are_listed_by_function_and_arguments(machine, rows, calls):
    assert machine("run", "rows.py").code == 0
    assert calls() == CALLED
    said = machine("facts", "@last")
    table = [line.split() for line in said.out.splitlines()]
    assert [line[2] for line in table[1:]] == ["step"] * 4
    assert 'load_rows(day="monday", le' in said.out
    assert "fails()" in said.out
    assert "step_failed: NoRowsError: ('none', 0)" in said.out
    assert "charge(amount=40)" in said.out
    assert '{"charged":40}' in said.out
    assert machine("verify", "@last").code == 0


def test_a_changed_argument_is_named(machine, rows):
    machine("run", "rows.py")
    rows.write_text(rows.read_text().replace('load_rows, "monday"', 'load_rows, "tuesday"'))
    said = machine("replay", "@last")
    assert said.code == 1
    assert "the argument day of the step load_rows changed" in said.out
    assert "/request/args/day" in said.out
    assert '"tuesday"' in said.out


def test_a_step_that_was_never_recorded_is_named(machine, rows):
    machine("run", "rows.py")
    rows.write_text(
        rows.read_text().replace('    ctx["rows"] =', '    await io.step(len, "abc")\n    ctx["rows"] =')
    )
    said = machine("replay", "@last")
    assert said.code == 1
    assert "the request of a call of step len has changed" in said.out


def test_another_process_with_another_hash_seed_replays_and_calls_nothing(machine, process, rows, calls):
    assert machine("run", "rows.py").code == 0
    said = process("replay", "@last", env=ENVIRONMENT)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("identical")
    assert calls() == CALLED


@pytest.mark.slow
def test_a_script_and_the_command_line_have_the_same_names(machine, process, rows, calls):
    """Run as `python rows.py`, the functions are of `__main__`; replayed, of a file that was loaded."""
    done = subprocess.run([sys.executable, "rows.py"], capture_output=True, text=True, check=True)
    said = process("replay", done.stdout.strip(), "--store", "sqlite:///script.db", "--target", "rows.py")
    assert said.out.startswith("identical"), said.out + said.err
    assert calls() == CALLED


def test_what_a_kill_interrupted_is_resumed_and_nothing_is_paid_twice(machine, here, rows, calls):
    (here / "hang").write_text("")
    child = subprocess.Popen([sys.executable, "-m", "machine", "run", "rows.py"], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (here / "hanging").exists():
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.3)  # reads are committed a tenth of a second later
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    (here / "hang").unlink()
    assert machine("resume", "@last").code == 0
    assert calls() == CALLED, "a function was called again whose result was recorded"
    assert machine("replay", "@last").code == 0
    assert machine("verify", "@last").code == 0


def test_an_uncertain_effect_is_answered_by_its_result(machine, here, rows, calls):
    text = rows.read_text().replace('idempotency="key-1")', 'idempotency="key-1", on_uncertain="ask")')
    rows.write_text(
        text.replace('note(f"charge', 'os._exit(9) if not (HERE / "back").exists() else note(f"charge')
    )
    child = subprocess.run(
        [sys.executable, "-m", "machine", "run", "rows.py"], capture_output=True, check=False
    )
    assert child.returncode == 9
    (here / "back").write_text("")
    said = machine("resume", "@last", "--json")
    assert said.code == 4
    fact = said.json["waits"][0]["key"]
    assert machine("resolve", "@last", fact, "--outcome", '{"charged": 41}').code == 0
    assert machine("resume", "@last").code == 0
    assert machine("context", "@last", "--json").json["context"]["paid"] == {"charged": 41}
    assert "charge 40 key-1" not in calls()
    assert machine("replay", "@last").code == 0


def test_a_bundle_replays_elsewhere(machine, here, rows, calls):
    machine("run", "rows.py")
    assert machine("export", "@last", "--output", "rows.run").code == 0
    said = machine("replay", "rows.run")
    assert said.out.startswith("identical"), said.err
    assert calls() == CALLED


def test_torture_and_dry_run_take_steps(machine, rows, calls):
    said = machine("torture", "rows.py", "--fault", "killed_before_append")
    assert said.code == 0, said.out + said.err
    assert calls() == CALLED, "the first run alone calls functions"
    said = machine("run", "rows.py", "--dry-run")
    assert said.code == 0, said.out + said.err
    assert "charge" in said.out
    assert calls() == [*CALLED, "load_rows", "fails"], "an effect was made"


def test_a_fork_from_a_failed_state_does_not_call_again(machine, here, rows, calls):
    text = rows.read_text()
    paid = 'ctx["paid"] = charge(40)'
    rows.write_text(text.replace(paid, f"{paid}\n    raise RuntimeError"))
    said = machine("run", "rows.py")
    assert said.code == 1
    rows.write_text(text)
    at = machine("show", "@last", "--json").json["fork_at"]
    said = machine("fork", "@last", "--at", str(at))
    assert said.code == 0, said.out + said.err
    assert calls() == CALLED
    assert machine("replay", "@last").code == 0


def test_two_runs_are_compared_by_their_steps(machine, rows):
    first = machine("run", "rows.py", "--json").json["run_id"]
    rows.write_text(rows.read_text().replace('"monday", 2', '"monday", 3'))
    second = machine("run", "rows.py", "--json").json["run_id"]
    said = machine("diff", first, second)
    assert said.code == 1
    assert "/args/least" in said.out
    assert machine("blame", second, "/paid").code == 0
