"""Connections of DuckDB: recorded, killed, resumed with nothing written twice, replayed without the file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from clients.database_kit import survive_cuts
from clients.kit import proven

from machine import Plan, open_store, replay, run

duckdb = pytest.importorskip("duckdb")

PLAN = Path(__file__).with_name("duckdb_plan.py")
WRITTEN = Counter([("ann", 3.5), ("bob", None), ("cid", None)])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.duckdb"


def prepare(path):
    path.unlink(missing_ok=True)
    with duckdb.connect(str(path)) as db:
        db.execute(
            "CREATE TABLE item (name TEXT PRIMARY KEY, price DECIMAL(10, 2), made TIMESTAMP, key UUID, "
            "tags TEXT[], data BLOB)"
        )


def rows(path):
    with duckdb.connect(str(path)) as db:
        return Counter(db.execute("SELECT name, price FROM item").fetchall())


def test_it_is_recorded_killed_resumed_and_replayed_without_its_file(tmp_path, path):
    context = proven(
        PLAN,
        tmp_path,
        {},
        kills=[{"FactRecorded": 6}],
        arrivals=lambda: rows(path),
        stop=path.unlink,
        environment={"DATABASE": str(path)},
        prepare=lambda: prepare(path),
    )
    assert context["types"] == ["str", "Decimal", "datetime", "UUID", "list", "bytes"]
    assert context["error"].startswith("Constraint Error")
    assert (context["changed"], context["other"]) == (1, 3)
    assert context["columns"] == [["name", "VARCHAR"]]
    assert (context["names"], context["past"]) == (["ann", "bob", "cid"], [None, []])
    assert context["memory"] == {"a": 42, "list": [1, 2]}


def test_a_kill_around_a_commit_loses_nothing_and_doubles_nothing(tmp_path, path):
    survive_cuts(
        PLAN,
        tmp_path,
        ["after 1", "after 3"],
        {"DATABASE": str(path)},
        prepare=lambda: prepare(path),
        check=lambda: rows(path) == WRITTEN,
    )


def recorded(handler, side_effects="read_only_io"):
    plan = Plan("duckdb_one", clients=["duckdb"])
    more = {"idempotency": "once"} if side_effects == "apply_side_effect" else {}
    plan.state("one.state", side_effects=side_effects, **more)(handler)
    with open_store("memory://") as store:
        result = run(plan, store=store)
        replayed = replay(result.run_id, plan=plan, store=store)
        assert replayed.identical, replayed.divergence
        return result


def test_a_write_of_a_state_that_declares_none_is_refused(path):
    prepare(path)

    def handler(ctx, io, rec):
        with duckdb.connect(str(path)) as db:
            db.execute("INSERT INTO item (name) VALUES ('x')")

    assert recorded(handler).error.code == "side_effect_not_declared"
    assert rows(path) == Counter()


@pytest.mark.parametrize("what", ["sql", "df", "copy"])
def test_what_cannot_be_recorded_is_refused_by_name(path, what):
    prepare(path)

    def handler(ctx, io, rec):
        with duckdb.connect(str(path)) as db:
            match what:
                case "sql":
                    db.sql("SELECT 1")
                case "df":
                    db.execute("SELECT 1").df()
                case "copy":
                    db.execute("COPY item TO 'elsewhere.csv'")

    assert recorded(handler).error.code == "sql_not_recorded"


def test_a_transaction_left_open_is_rolled_back_and_said(path):
    prepare(path)
    kept = []

    def handler(ctx, io, rec):
        kept.append(duckdb.connect(str(path)))
        kept[-1].begin()
        kept[-1].execute("INSERT INTO item (name) VALUES ('x')")

    assert recorded(handler, "apply_side_effect").error.code == "transaction_left_open"
    assert rows(path) == Counter()
