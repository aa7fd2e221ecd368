"""The commands to schedules: what they store, and that a mistake stores nothing."""

from __future__ import annotations

import textwrap

import pytest

from machine import cron
from machine.errors import CanonicalError, Code, IdError, MachineError, NotFoundError, PlanError, UsageError
from machine.stores import MemoryStore
from machine.testing.store_samples import Clock

PLAN = """
from machine import Plan

plan = Plan("nightly")


@plan.state("a.counts")
def counts(ctx):
    ctx["counted"] = ctx.get("n", 0) + 1
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "nightly.py").write_text(textwrap.dedent(PLAN))
    (tmp_path / "broken.py").write_text("raise RuntimeError('no')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def store():
    with MemoryStore() as store:
        store.clock = Clock()
        yield store


def test_a_schedule_has_all_that_it_was_given_and_the_whole_path_of_its_plan(here, store):
    added = cron.add_schedule(
        "nightly",
        "30 2 * * *",
        "nightly.py",
        tz="Europe/Berlin",
        input={"n": 7},
        catch_up="one",
        overlap="queue",
        store=store,
    )
    assert cron.list_schedules(store=store) == [added]
    assert added.to_json() == {
        "name": "nightly",
        "cron": "30 2 * * *",
        "tz": "Europe/Berlin",
        "target": {"spec": f"{here}/nightly.py:plan", "directory": str(here)},
        "input": {"n": 7},
        "catch_up": "one",
        "overlap": "queue",
        "created_ms": store.clock.now,
        "since_ms": store.clock.now,
        "paused": False,
    }
    assert store.list_runs().rows == [], "it starts nothing by itself"


def test_the_default_is_to_skip_and_utc(here, store):
    added = cron.add_schedule("n", "@daily", "nightly.py:plan", store=store)
    assert (added.tz, added.catch_up, added.overlap, dict(added.input)) == ("UTC", "skip", "skip", {})


def test_it_is_paused_resumed_and_removed(here, store):
    cron.add_schedule("n", "@daily", "nightly.py", store=store)
    assert cron.pause_schedule("n", store=store).paused
    store.clock.now += 5
    assert cron.resume_schedule("n", store=store).since_ms == store.clock.now
    cron.remove_schedule("n", store=store)
    assert cron.list_schedules(store=store) == []
    for use in (cron.pause_schedule, cron.resume_schedule, cron.remove_schedule):
        with pytest.raises(NotFoundError) as caught:
            use("n", store=store)
        assert caught.value.code == Code.SCHEDULE_NOT_FOUND


GITHUB = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"


@pytest.mark.parametrize(
    ("changes", "kind", "code"),
    [
        ({"name": "two words"}, IdError, Code.INVALID_ID),
        ({"name": "a:b"}, IdError, Code.INVALID_ID),
        ({"name": ""}, IdError, Code.INVALID_ID),
        ({"name": None}, IdError, Code.INVALID_ID),
        ({"cron": "every day"}, UsageError, Code.INVALID_CRON),
        ({"tz": "Europe/Berln"}, UsageError, Code.UNKNOWN_TIME_ZONE),
        ({"target": "nothing.py"}, PlanError, Code.TARGET_NOT_FOUND),
        ({"target": "broken.py"}, PlanError, Code.TARGET_IMPORT_FAILED),
        ({"target": "nightly.py:counts"}, PlanError, Code.TARGET_NOT_A_PLAN),
        ({"input": [1]}, UsageError, Code.INVALID_INPUT),
        ({"input": "{}"}, UsageError, Code.INVALID_INPUT),
        ({"input": {"a": object()}}, CanonicalError, Code.NOT_JSON),
        ({"input": {"": 1}}, IdError, Code.INVALID_ID),
        ({"input": {"token": GITHUB}}, UsageError, Code.SECRET_IN_MANIFEST),
        ({"catch_up": "most"}, UsageError, Code.USAGE),
        ({"overlap": "all"}, UsageError, Code.USAGE),
    ],
)
def test_a_mistake_has_a_code_and_stores_nothing(here, store, changes, kind, code):
    arguments = {"name": "n", "cron": "@daily", "target": "nightly.py", **changes}
    with pytest.raises(MachineError) as caught:
        cron.add_schedule(**arguments, store=store)
    assert (type(caught.value), caught.value.code) == (kind, code)
    assert store.schedules() == []


def test_a_second_one_of_a_name_changes_nothing(here, store):
    first = cron.add_schedule("n", "@daily", "nightly.py", store=store)
    with pytest.raises(UsageError) as caught:
        cron.add_schedule("n", "@hourly", "nightly.py", store=store)
    assert caught.value.code == Code.SCHEDULE_EXISTS
    assert store.schedules() == [first]
