"""Contests: turns are fair, nobody who fails is left out without a word, and our own contenders still run."""

from __future__ import annotations

import json
import textwrap

import pytest
from contest import Contender, contest


@pytest.fixture
def program(tmp_path):
    """Return a function that writes a contender's program and returns its name."""

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")
        return str(tmp_path / name)

    return write


def test_contenders_take_turns_and_each_round_begins_with_what_was_prepared(program, tmp_path):
    text = f"""
        import json, os, pathlib, sys
        kept = pathlib.Path("kept.txt")
        found = kept.read_text() if kept.exists() else ""
        kept.write_text(found + sys.argv[1])
        with open({str(tmp_path / "turns.txt")!r}, "a") as turns:
            turns.write(os.environ["WHO"] + " " + sys.argv[1] + "\\n")
        print(json.dumps({{"us": 2.0 if found == "ready" else -1.0}}))
    """
    name = program("peer", text)
    one = Contender(name, "go", prepare="ready", env={"WHO": "one"})
    other = Contender(name, "go", prepare="ready", env={"WHO": "other"}, rounds=1)
    found = contest({"one": one, "other": other}, rounds=2)
    assert found.samples("one", "us") == [2.0, 2.0]
    assert found.samples("other", "us") == [2.0]
    turns = (tmp_path / "turns.txt").read_text(encoding="utf-8").splitlines()
    assert turns == ["one ready", "one go", "other ready", "other go", "one go"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import a_peer_nobody_has", "ModuleNotFoundError: No module named 'a_peer_nobody_has'"),
        ("import sys; sys.exit(3)", "exit code 3"),
        ("print('hello')", "told nothing"),
        ("""print('{"absent": "not there yet"}')""", "not there yet"),
    ],
)
def test_a_contender_that_tells_nothing_is_absent_with_the_reason(program, text, reason):
    found = contest({"peer": Contender(program("peer", text), "go")}, rounds=2)
    assert reason in found.absent["peer"]
    assert "peer" not in found.told


def test_a_ratio_is_the_median_of_the_ratios_of_rounds(program, tmp_path):
    (tmp_path / "numbers.json").write_text(json.dumps([[10, 1], [90, 3], [40, 2]]), encoding="utf-8")
    text = f"""
        import json, pathlib
        path = pathlib.Path({str(tmp_path)!r}, "numbers.json")
        (first, *rest), *more = json.loads(path.read_text())
        path.write_text(json.dumps([rest, *more] if rest else more))
        print(json.dumps({{"us": first}}))
    """
    peer = Contender(program("peer", text), "go")
    found = contest({"slow": peer, "fast": peer}, rounds=3)
    assert found.median("slow", "us") == 40
    assert found.ratio("slow", "us", "fast", "us") == 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "options", "prepare"),
    [
        ("live", {"durability": "states"}, None),
        ("replayed", {}, None),
        ("context", {"keys": 20}, None),
        ("context", {"keys": 20, "weigh": 1}, None),
        ("replay_calls", {}, "record_calls"),
        ("resumed", {}, "interrupted"),
        ("scaled", {}, None),
    ],
)
def test_our_own_contenders_run(task, options, prepare):
    found = contest({"ours": Contender("ours", task, {"n": 6, **options}, prepare=prepare)}, rounds=1)
    assert found.absent == {}
    assert all(number > 0 for number in found.told["ours"][0].values())


@pytest.mark.slow
def test_a_worker_asks_the_store_three_questions_however_many_runs_wait():
    found = contest({"ours": Contender("waiting", "looked", {"n": 40}, prepare="suspended")}, rounds=1)
    assert found.absent == {}
    assert found.samples("ours", "queries") == [3]
