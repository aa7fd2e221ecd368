"""`golden reseal`, through the real entry point, on goldens that git has merged."""

from __future__ import annotations

import json
import subprocess

import anyio
import pytest

from machine.config import Target
from machine.target import load
from machine.testing.golden_check import Wanted
from machine.testing.golden_live import Fresh, record

PLAN = """
from machine import Plan

plan = Plan("market", version="1")


def reading(name):
    async def read(ctx, io, rec):
        ctx[name] = int((await io.read_file(f"{name}.txt")).text)

    return read


states = [plan.state(f"read.{name}")(reading(name)) for name in ("ash", "elm")]


@plan.state("add.up", after=states)
def add(ctx, io, rec):
    ctx["sum"] = ctx["ash"] + ctx["elm"]
"""


def git(*words):
    options = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    return subprocess.run(["git", *options, *words], check=False, capture_output=True, text=True, timeout=30)


@pytest.fixture
def recorded_here(here):
    """Give a function that records the plan's golden from the prices in some files."""
    (here / "market.py").write_text(PLAN)
    plan = load("market.py").plan

    def recorded(**prices):
        for name, price in prices.items():
            (here / f"{name}.txt").write_text(str(price))
        wanted = Wanted.of(plan, {})
        fresh = anyio.run(record, wanted, ["completed"], Target("market.py:plan", str(here)), "")
        assert isinstance(fresh, Fresh), fresh
        fresh.write(here / "market.run")
        return here / "market.run"

    return recorded


@pytest.fixture
def conflict(recorded_here):
    """Merge two branches, each of which has recorded another price; return the golden with its conflicts."""
    golden = recorded_here(ash=10, elm=20)
    git("init", "-q")
    git("add", "market.run")
    git("commit", "-qm", "base")
    git("checkout", "-qb", "theirs")
    recorded_here(elm=21)
    git("commit", "-qam", "theirs")
    git("checkout", "-q", "main")
    recorded_here(ash=11)
    recorded_here(ash=11, elm=20)
    git("commit", "-qam", "ours")
    assert git("merge", "theirs").returncode == 1
    assert "<<<<<<< " in golden.read_text()
    return golden


def resolved(text, choose):
    """Return a text without its conflicts, each replaced by what `choose` makes of the two sides."""
    out, sides = [], None
    for line in text.split("\n"):
        if line.startswith("<<<<<<< "):
            sides = [[], []]
        elif line.startswith("=======") and sides is not None:
            sides.reverse()
        elif line.startswith(">>>>>>> "):
            out += choose(sides[1], sides[0])
            sides = None
        else:
            (out if sides is None else sides[0]).append(line)
    return "\n".join(out)


def test_a_conflict_is_named_with_the_way_out(machine, conflict):
    for words in (("replay", "market.run"), ("verify", "market.run"), ("golden", "reseal", "market.run")):
        said = machine(*words)
        assert said.code != 0
        assert "conflict of a merge" in said.out + said.err
    said = machine("replay", "market.run")
    assert "machine golden reseal market.run" in said.err


def test_what_a_merge_came_to_is_resealed_if_it_replays(machine, conflict):
    text = resolved(conflict.read_text(), lambda ours, theirs: ours)
    conflict.write_text(text)
    assert machine("replay", "market.run").code == 3, "its sums do not fit"
    before = conflict.read_bytes()
    said = machine("golden", "reseal", "market.run")
    assert (said.code, "does not replay" in said.out or "failed" in said.out) == (1, True), (
        "11 and 21 is not 31"
    )
    assert conflict.read_bytes() == before, "left as it was"
    conflict.write_text(text.replace('"sum": 31', '"sum": 32'))
    said = machine("golden", "reseal", ".")
    assert (said.code, said.out) == (0, "resealed  market.run\n")
    assert machine("replay", "market.run").code == 0
    assert machine("verify", "market.run").code == 0
    shown = machine("context", "market.run").json
    assert shown == {"ash": 11, "elm": 21, "sum": 32}
    said = machine("golden", "reseal", "market.run", "--json")
    assert said.json == {"resealed": [], "unchanged": ["market.run"], "failed": []}


def test_changed_code_is_refused_and_the_file_is_as_it_was(machine, recorded_here, here):
    golden = recorded_here(ash=1, elm=2)
    edited = golden.read_text().replace('"sum": 3', '"sum": 4')
    golden.write_text(edited)
    said = machine("golden", "reseal", "market.run", "--json")
    assert said.code == 1
    (failed,) = said.json["failed"]
    assert failed["file"] == "market.run"
    assert failed["error"]["result"]["divergence"]["kind"] == "snapshot_differs"
    assert golden.read_text() == edited


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text.replace('"sum": 3', '"sum": 3,'), "the block is no JSON"),
        (lambda text: text[: text.index("-- plan")], "it has no end: a part of it is missing"),
        (lambda text: text.replace("\n", "\r\n"), "CRLF"),
        (
            lambda text: text.replace('"version":2', '"version":99'),
            "newer version of machine: its format is 99",
        ),
        (lambda text: "nothing\n", "it is not a bundle"),
    ],
    ids=["no JSON", "cut", "CRLF", "newer", "nothing"],
)
def test_what_is_no_golden_is_refused_with_its_line(machine, recorded_here, change, told):
    golden = recorded_here(ash=1, elm=2)
    golden.write_bytes(change(golden.read_text()).encode())
    before = golden.read_bytes()
    said = machine("golden", "reseal", "market.run")
    assert said.code != 0
    assert told in said.out
    assert golden.read_bytes() == before


def test_a_golden_of_version_1_is_not_resealed(machine, recorded, here):
    assert machine("export", recorded, "--output", "one.run").code == 0
    said = machine("golden", "reseal", "one.run")
    assert said.code != 0
    assert "it is of version 1, whose contents cannot be merged" in said.out
    text = (here / "one.run").read_text().split("\n")
    (here / "one.run").write_text("\n".join([text[0], "<<<<<<< HEAD", *text[1:]]))
    assert "conflict of a merge" in machine("replay", "one.run").err


def test_nothing_to_do_is_said(machine):
    said = machine("golden", "reseal")
    assert said.code == 2
    assert "name the goldens to reseal" in said.err
    assert (
        json.loads(machine("golden", "reseal", "none.run", "--json").out)["failed"][0]["file"] == "none.run"
    )
