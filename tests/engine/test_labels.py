"""Labels of runs: given at the start, found by, and no part of what a run did."""

from __future__ import annotations

import pytest

from machine import Plan, RunConfig, dry_run, export_run, fork, import_bundle, open_store, replay, run, verify
from machine.config import SECRET_FORMAT
from machine.errors import Code, UsageError
from machine.labels import LABELS, MOST, labels_in, parsed
from machine.stores import MemoryStore

TEAM = {"team": "search", "env": "test"}


@pytest.fixture
def plan() -> Plan:
    made = Plan("labelled")

    @made.state("do.it")
    async def it(ctx, io):
        ctx["at"] = await io.now()

    return made


def labels_of(store, run_id: str) -> dict[str, str]:
    return labels_in(store.run_row(run_id).labels)


def test_a_run_is_found_by_its_labels_and_its_digest_does_not_know_them(plan, store):
    runs = [
        run(plan, store=store, labels=labels, config=RunConfig(skip_tags=[]))
        for labels in (TEAM, None, {"team": "shop"})
    ]
    assert [labels_of(store, result.run_id) for result in runs] == [TEAM, {}, {"team": "shop"}]
    assert [row.run_id for row in store.list_runs(labels={"team": "search"}).rows] == [runs[0].run_id]
    assert replay(runs[0].run_id, plan=plan, store=store).identical
    manifests = {
        next(iter(store.read_range(result.run_id))).data.split(b'"manifest_id":')[1][:66] for result in runs
    }
    assert len(manifests) == 1
    assert SECRET_FORMAT == 2


def test_a_dry_run_has_them_too(plan, store):
    assert labels_of(store, dry_run(plan, store=store, labels=TEAM).result.run_id) == TEAM


def test_the_first_start_with_a_key_gives_them(plan, store):
    first = run(plan, store=store, labels=TEAM, invocation_key="one")
    again = run(plan, store=store, labels={"team": "other"}, invocation_key="one")
    assert (again.run_id, labels_of(store, first.run_id)) == (first.run_id, TEAM)


def test_a_fork_keeps_them(plan, store):
    result = run(plan, store=store, labels=TEAM)
    for at in range(1, result.head_seq):
        assert labels_of(store, fork(result.run_id, at=at, plan=plan, store=store).run_id) == TEAM


@pytest.mark.parametrize("readable", [True, False])
def test_a_bundle_keeps_them(plan, store, tmp_path, readable):
    result = run(plan, store=store, labels=TEAM)
    export_run(result.run_id, tmp_path / "one.run", store=store, readable=readable)
    with MemoryStore() as memory, open_store(f"sqlite:///{tmp_path}/runs.db") as file:
        for other in (memory, file):
            import_bundle(tmp_path / "one.run", store=other)
            assert [row.run_id for row in other.list_runs(labels=TEAM).rows] == [result.run_id]
            assert verify(result.run_id, store=other, whole_store=True).ok


@pytest.mark.parametrize(
    "labels",
    [
        "team=x",
        ["team"],
        {"": "x"},
        {"a b": "x"},
        {"é": "x"},
        {"a" * 65: "x"},
        {7: "x"},
        {"team": ""},
        {"team": 7},
        {"team": None},
        {"team": "a\nb"},
        {"team": "x" * 257},
        {str(number): "x" for number in range(MOST + 1)},
    ],
    ids=str,
)
def test_a_label_that_no_run_can_have_is_refused_and_nothing_is_written(plan, store, labels):
    with pytest.raises(UsageError) as caught:
        run(plan, store=store, labels=labels)
    assert caught.value.code == Code.INVALID_LABEL
    assert store.list_runs().rows == []


def test_a_secret_in_a_label_is_replaced(plan, store):
    token = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    result = run(plan, store=store, labels={"by": token})
    assert "ghp_" not in store.run_row(result.run_id).labels
    assert labels_of(store, result.run_id)["by"]


@pytest.mark.parametrize("texts", [["team"], ["=x"], ["a=1", "a=2"], ["a="]])
def test_an_argument_that_is_no_label_is_refused(texts):
    with pytest.raises(UsageError) as caught:
        parsed(texts)
    assert caught.value.code == Code.INVALID_LABEL


def test_an_argument_may_have_more_equal_signs():
    assert parsed(["a=b=c", "a=b=c", "d=e"]) == {"a": "b=c", "d": "e"}


def test_a_damaged_table_of_labels_is_found(plan, tmp_path):
    with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        run(plan, store=store, labels=TEAM)
        conn = store._session.conn
        conn.execute("INSERT INTO run_labels VALUES (1, 'more', 'x')")
        conn.execute("PRAGMA foreign_keys = OFF")
        conn.execute("INSERT INTO run_labels VALUES (9, 'team', 'x')")
        problems = store.integrity_problems()
    assert any("is not found by the labels that it has" in problem for problem in problems)
    assert any("labels of a run 9 that has no row" in problem for problem in problems)
    assert LABELS == "labels"
