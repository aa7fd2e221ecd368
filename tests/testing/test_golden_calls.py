"""What a test gives its golden: a clock, a seed, and the most calls; and the size of a change in `git diff`."""

from __future__ import annotations

import difflib
from datetime import UTC, datetime, timedelta, timezone

import anyio
import pytest
from golden_suite import empty_suite, said

from machine import Plan
from machine.config import Target
from machine.errors import UsageError
from machine.recordings.readable_writer import without_time
from machine.testing.golden_check import Wanted
from machine.testing.golden_live import Fresh, record
from machine.testing.golden_world import FixedClock, SeededRandomness

PLAN = """
from machine import Plan

plan = Plan("lookups", version="1")


@plan.state("read.all", side_effects="read_only_io")
async def read(ctx, io, rec):
    for number in range(20):
        ctx[f"value_{number:02}"] = int((await io.read_file(f"world/{number:02}.txt")).text)
    NOW


@plan.state("compute.total", after=[read])
def total(ctx, io, rec):
    ctx["most"] = max(ctx[f"value_{number:02}"] for number in range(19))
"""

STAMPED = """
    ctx["at"] = await io.now()
    await io.sleep(0.25)
    ctx["then"] = await io.now()
    ctx["id"] = str(await io.uuid())
    ctx["dice"] = (await io.random()).randint(1, 6)
""".strip()

TEST = """
from datetime import UTC, datetime
from lookups import plan


def test_lookups(golden):
    golden.check(plan, OPTIONS)
"""


def suite_with(pytester, monkeypatch, options, now="pass"):
    made = empty_suite(pytester, monkeypatch)
    made.write("lookups.py", PLAN.replace("NOW", now))
    made.write("test_lookups.py", TEST.replace("OPTIONS", options))
    for number in range(20):
        made.write(f"world/{number:02}.txt", str(number * 11))
    return made


def recorded(folder, now=STAMPED, **options):
    """Record the plan as a golden of a test is recorded, and return its file."""
    found = {}
    exec(PLAN.replace("NOW", now), found)
    wanted = Wanted.of(found["plan"], options)
    fresh = anyio.run(record, wanted, ["completed"], Target("../test_lookups.py::test_lookups", ""), "")
    assert isinstance(fresh, Fresh), fresh
    fresh.write(folder / "golden.run")
    return folder / "golden.run"


def difference(before, after):
    """Return the lines of a diff that begin with + or -, without those that name the files."""
    lines = difflib.unified_diff(before, after, n=0, lineterm="")
    return [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def test_one_number_of_twenty_calls_is_ten_lines_and_none_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    world = tmp_path / "world"
    world.mkdir()
    for number in range(20):
        (world / f"{number:02}.txt").write_text(str(number * 11))
    clock = datetime(2026, 1, 31, tzinfo=UTC)
    options = {"clock": clock, "seed": "dice", "max_calls": {"file": 20, "http": 0}}
    first = recorded(tmp_path, **options).read_text().splitlines()
    at = int(clock.timestamp() * 1000)
    assert f'    "at": {at},' in first
    assert f'    "then": {at + 250},' in first
    again = recorded(tmp_path, **options).read_text().splitlines()
    assert without_time("\n".join(again).encode()) == without_time("\n".join(first).encode())
    assert len(difference(first[1:-1], again[1:-1])) == 0
    (world / "19.txt").write_text("4711")
    diff = difference(first, recorded(tmp_path, **options).read_text().splitlines())
    assert any("4711" in line for line in diff)
    assert len(diff) <= 10, "\n".join(diff)


def test_a_run_of_too_many_calls_fails_its_test_and_is_never_recorded(pytester, monkeypatch):
    suite = suite_with(pytester, monkeypatch, 'max_calls={"file.read": 19}')
    result = suite.run("--golden=record-missing")
    result.assert_outcomes(failed=1)
    text = said(result)
    assert (
        "the run makes 20 calls of file.read, and the test allows 19 (max_calls), so nothing was written"
        in text
    )
    assert "20  lookups.read.all  file.read" in text
    assert suite.fixtures == []


def test_a_golden_of_too_many_calls_fails_its_test_and_nothing_is_offered(pytester, monkeypatch):
    suite = suite_with(pytester, monkeypatch, 'max_calls={"file": 20}')
    monkeypatch.chdir(suite.path)
    (suite.path / "fixtures").mkdir()
    recorded(suite.path / "fixtures", now="pass").rename(suite.golden("test_lookups"))
    suite.run().assert_outcomes(passed=1)
    suite.change('"file": 20', '"file": 12', "test_lookups.py")
    text = said(suite.run())
    assert "the run makes 20 calls of file, and the test allows 12 (max_calls)" in text
    assert "--golden-accept" not in text
    suite.run("--golden-update").assert_outcomes(failed=1)


# -- by themselves --------------------------------------------------------------------------------------------


def test_a_clock_stands_still_but_for_sleeps():
    async def read():
        clock = FixedClock(1_000)
        times = [await clock.perform("clock.now", {})]
        await clock.perform("clock.sleep", {"seconds": 0.02})
        times.append(await clock.perform("clock.now", {}))
        async with anyio.create_task_group() as group:
            for seconds in (0.03, 0.01):
                group.start_soon(clock.perform, "clock.sleep", {"seconds": seconds})
        return [*times, await clock.perform("clock.now", {})]

    assert anyio.run(read) == [1_000, 1_020, 1_050]


def test_a_seed_gives_the_same_bytes_whatever_process_and_others_for_another():
    async def draw(seed):
        random = SeededRandomness(seed)
        return [(await random.perform("random.bytes", {"bytes": n}))["hex"] for n in (4, 4, 65536)]

    first, again, other, text = (anyio.run(draw, seed) for seed in (7, 7, 8, "7"))
    assert first == again
    assert len({first[0], first[1], other[0], text[0]}) == 4
    assert len(first[2]) == 2 * 65536


@pytest.mark.parametrize(
    "options",
    [
        {"clock": datetime(2026, 1, 31)},  # noqa: DTZ001 - without a zone, on purpose
        {"clock": -1},
        {"clock": True},
        {"clock": "now"},
        {"seed": 1.5},
        {"seed": True},
        {"clock": 1, "transports": {"clock": FixedClock(1)}},
        {"seed": 1, "transports": {"random.bytes": SeededRandomness(1)}},
        {"max_calls": 20},
        {"max_calls": {"http": "20"}},
        {"max_calls": {"http": -1}},
        {"max_calls": {"HTTP": 1}},
    ],
)
def test_what_is_no_clock_seed_or_limit_is_refused(options):
    with pytest.raises(UsageError):
        Wanted.of(Plan("op"), options)


def test_a_clock_with_another_zone_is_the_same_moment():
    east = datetime(2026, 1, 31, 14, tzinfo=timezone(timedelta(hours=2)))
    assert Wanted.of(Plan("op"), {"clock": east}).clock_ms == 1769860800000
