"""`replay(deep=True)`: the child runs of a run are replayed too, against the plans that its handlers give."""

from __future__ import annotations

import pytest

import machine
from machine import Plan, export_run, open_bundle, open_store
from machine.errors import Code, NotFoundError

CHANGED: set[str] = set()


def plan_of(name, handler):
    plan = Plan(name)
    plan.state("step.only")(handler)
    return plan


async def leaf(ctx, io):
    ctx["n"] = await io.now() * (1 + ("leaf" in CHANGED))


async def middle(ctx, io):
    ctx["found"] = (await io.run_child(plan_of("leaf", leaf), key="leaf")).status
    ctx["middle"] = "changed" if "middle" in CHANGED else "as it was"


async def top(ctx, io):
    ctx["first"] = (await io.run_child(plan_of("middle", middle), key="middle")).status
    ctx["second"] = (await io.run_child(plan_of("leaf", leaf), key="leaf")).status


PLAN = plan_of("top", top)


@pytest.fixture(autouse=True)
def unchanged():
    CHANGED.clear()


@pytest.fixture
def store(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        yield store


def deep(result, store):
    return machine.replay(result.run_id, plan=PLAN, store=store, deep=True)


def test_the_children_and_theirs_are_identical(store):
    result = machine.run(PLAN, store=store)
    heads = {row.run_id: store.head(row.run_id) for row in store.list_runs().rows}
    found = deep(result, store)
    assert (found.identical, len(heads)) == (True, 4)
    assert [[child.run_id in heads, len(child.children)] for child in found.children] == [
        [True, 1],
        [True, 0],
    ]
    assert {row.run_id: store.head(row.run_id) for row in store.list_runs().rows} == heads
    assert machine.replay(result.run_id, plan=PLAN, store=store).children == ()


@pytest.mark.parametrize("name", ["leaf", "middle"])
def test_a_child_that_has_changed_is_named(store, name):
    result = machine.run(PLAN, store=store)
    CHANGED.add(name)
    assert machine.replay(result.run_id, plan=PLAN, store=store).identical, "the parent itself has not"
    found = deep(result, store)
    row = store.list_runs(op=name).rows[-1]
    assert not found.identical
    assert found.divergence.summary.startswith(f"in the child run {row.run_id} of {name}: ")
    assert found.divergence.state_id == f"{name}.step.only"
    assert [child.identical for child in found.children] == [False]


def test_a_child_that_waits_is_replayed_as_far_as_it_goes(store):
    async def asks(ctx, io):
        await io.approval("Go on?")

    async def handler(ctx, io):
        await io.run_child(plan_of("asks", asks))

    plan = plan_of("waits", handler)
    result = machine.run(plan, store=store)
    found = machine.replay(result.run_id, plan=plan, store=store, deep=True)
    assert (found.identical, found.status) == (True, "suspended")
    assert [child.status for child in found.children] == ["suspended"]


def test_a_child_that_is_not_there_is_said_to_be_missing(store, tmp_path):
    result = machine.run(PLAN, store=store)
    export_run(result.run_id, tmp_path / "top.run", store=store)
    with open_bundle(tmp_path / "top.run") as bundle:
        assert machine.replay(bundle.run_id, plan=PLAN, store=bundle.store).identical
        with pytest.raises(NotFoundError, match=r"has the child run .*, which is not in") as caught:
            machine.replay(bundle.run_id, plan=PLAN, store=bundle.store, deep=True)
    assert caught.value.code == Code.RUN_NOT_FOUND
    assert "import those of its children and its own into one store" in caught.value.hint


def test_bundles_of_a_family_replay_in_another_store(store, tmp_path):
    result = machine.run(PLAN, store=store)
    with open_store("memory://") as other:
        for number, row in enumerate(store.list_runs().rows):
            export_run(row.run_id, tmp_path / f"{number}.run", store=store)
            machine.import_bundle(tmp_path / f"{number}.run", store=other)
        assert deep(result, other).identical


def test_a_child_that_ended_otherwise_than_its_parent_knows_is_damage(store, tmp_path):
    """Its log was replaced as a whole by that of another run, which is sound by itself."""
    result = machine.run(PLAN, store=store)
    with open_store("memory://") as other:
        for row in store.list_runs().rows:
            if row.run_id == result.run_id or row.op_id == "middle":
                export_run(row.run_id, tmp_path / "one.run", store=store)
                machine.import_bundle(tmp_path / "one.run", store=other)
        for row in store.list_runs(op="leaf").rows:
            machine.run(plan_of("leaf", leaf), store=other, run_id=row.run_id)
        found = deep(result, other)
    assert not found.identical
    assert found.divergence.kind == "corrupt"
    assert "its parent has recorded another end of it" in found.divergence.summary
