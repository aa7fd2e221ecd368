"""A run id that a caller gives: used once, and of no weight for which run is the newest."""

from __future__ import annotations

import threading

import pytest

from machine import Plan, dry_run, fork, new_run_id, run
from machine.errors import UsageError
from machine.stores import MemoryStore, SqliteStore

FIRST = "ffffffff-7c1a-7b3f-9a41-3f0c5f1a2b3c"
SECOND = "00000001-7c1a-7b3f-9a41-3f0c5f1a2b3c"


@pytest.fixture(params=["memory", "sqlite"])
def any_store(request, tmp_path):
    opened = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "runs.db")
    with opened as store:
        yield store


@pytest.fixture
def plan():
    made = Plan("op")

    @made.state("a.b")
    async def b(ctx, io, rec):
        ctx["n"] = ctx.get("n", 0) + 1

    return made


def starts(plan, store, run_id):
    """Return the ways to start a run under an id."""
    return {
        "run": lambda: run(plan, store=store, run_id=run_id),
        "with a key": lambda: run(plan, store=store, run_id=run_id, invocation_key="another"),
        "dry": lambda: dry_run(plan, store=store, run_id=run_id),
        "fork": lambda: fork(run_id, plan=plan, store=store, at=1, fork_id=run_id),
    }


@pytest.mark.parametrize("how", ["run", "with a key", "dry", "fork"])
def test_an_id_that_is_in_use_is_told_as_such_and_nothing_is_written(any_store, plan, how):
    run(plan, store=any_store, run_id=FIRST)
    before = list(any_store.list_runs().rows)
    with pytest.raises(UsageError, match="in use") as refused:
        starts(plan, any_store, FIRST)[how]()
    assert refused.value.code == "run_id_in_use"
    assert "resume" in refused.value.hint
    assert refused.value.info.details == {"run_id": FIRST, "status": "completed"}
    assert list(any_store.list_runs().rows) == before
    assert any_store.lease_of(FIRST) is None


def test_the_same_start_with_its_key_still_attaches(any_store, plan):
    first = run(plan, store=any_store, run_id=FIRST, invocation_key="k")
    again = run(plan, store=any_store, run_id=FIRST, invocation_key="k")
    assert again == first


def test_a_run_that_has_ended_between_two_looks_is_not_gone_on_with(any_store, plan, monkeypatch):
    look = type(any_store).run_exists

    def look_and_lose(self, run_id):
        found = look(self, run_id)
        monkeypatch.setattr(type(any_store), "run_exists", look)
        thread = threading.Thread(target=run, args=[plan], kwargs={"store": any_store, "run_id": FIRST})
        thread.start()
        thread.join()
        return found

    monkeypatch.setattr(type(any_store), "run_exists", look_and_lose)
    with pytest.raises(UsageError, match="in use"):
        run(plan, store=any_store, run_id=FIRST)


def test_the_newest_run_is_the_last_one_made_whatever_its_id(any_store, plan):
    made = [FIRST, str(new_run_id()), SECOND]
    for run_id in made:
        run(plan, store=any_store, run_id=run_id)
    assert [row.run_id for row in any_store.list_runs().rows] == made[::-1]
    page = any_store.list_runs(limit=1)
    assert [row.run_id for row in any_store.list_runs(cursor=page.cursor).rows] == made[1::-1]
    assert any_store.find_runs("") == made[::-1]
