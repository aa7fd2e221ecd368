"""Connections of sqlite3: recorded, killed, resumed with nothing written twice, replayed without the file."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from clients.database_kit import survive_cuts
from clients.kit import proven

from machine import Plan, RunConfig, open_store, replay, run

PLAN = Path(__file__).with_name("sqlite3_plan.py")
WRITTEN = Counter({("ann", 3.5): 1, ("bob", None): 1, ("cid", None): 1, ("dan", None): 1, ("eve", 7.0): 1})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.db"


def prepare(path):
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT UNIQUE, price REAL, data BLOB)")
        db.commit()


def rows(path):
    with closing(sqlite3.connect(path)) as db:
        return Counter(db.execute("SELECT name, price FROM item").fetchall())


def test_it_is_recorded_killed_resumed_and_replayed_without_its_file(tmp_path, path):
    context = proven(
        PLAN,
        tmp_path,
        {},
        kills=[
            {"EffectIntended": 2, "FactRecorded": 6},
            {"FactRecorded": 14},
        ],
        arrivals=lambda: rows(path),
        stop=path.unlink,
        environment={"DATABASE": str(path)},
        prepare=lambda: prepare(path),
    )
    assert context["error"] == ["UNIQUE constraint failed: item.name", 2067, "SQLITE_CONSTRAINT_UNIQUE"]
    assert (context["first"], context["many"], context["id"], context["autocommit"]) == (1, 2, 4, 1)
    assert context["row"] == ["ann", 3.5, "00ff"]
    assert context["rest"] == ["bob", "cid", "dan", "eve"]
    assert context["past"] == [None, [], []]
    assert (context["date"], context["twice"], context["memory"]) == (1, 42, "kept")
    assert context["missing"] == "no such table: missing"


def test_a_kill_around_a_commit_loses_nothing_and_doubles_nothing(tmp_path, path):
    runs = survive_cuts(
        PLAN,
        tmp_path,
        ["before 1", "after 1", "after 3", "after 4"],
        {"DATABASE": str(path)},
        prepare=lambda: prepare(path),
        check=lambda: rows(path) == WRITTEN,
    )
    assert len(runs) == 4


def recorded(handler, side_effects="apply_side_effect", **more):
    """Run a plan of one state over a store in memory; return its result, and replay it."""
    plan = Plan("sqlite_one", clients=["sqlite3"])
    if side_effects == "apply_side_effect":
        more["idempotency"] = "once"
    plan.state("one.state", side_effects=side_effects, **more)(handler)
    with open_store("memory://") as store:
        result = run(plan, store=store)
        replayed = replay(result.run_id, plan=plan, store=store)
        assert replayed.identical, replayed.divergence
        return result


def test_a_write_of_a_state_that_declares_none_is_refused(path):
    prepare(path)

    def handler(ctx, io, rec):
        db = sqlite3.connect(path)
        db.execute("INSERT INTO item (name) VALUES ('x')")

    assert recorded(handler, "read_only_io").error.code == "side_effect_not_declared"
    assert rows(path) == Counter()


def test_the_server_refuses_a_write_that_looks_like_a_read(path):
    prepare(path)

    def handler(ctx, io, rec):
        db = sqlite3.connect(path)
        db.set_authorizer(None)
        db.execute("PRAGMA main.secure_delete(1)")
        db.execute("PRAGMA query_only = OFF")

    assert recorded(handler, "read_only_io").error.code == "sql_not_recorded"


def test_a_file_that_is_not_there_is_not_made_by_a_read(path):
    def handler(ctx, io, rec):
        with pytest.raises(sqlite3.OperationalError, match="unable to open"):
            sqlite3.connect(path)

    assert recorded(handler, "read_only_io").status == "completed"
    assert not path.exists()


def test_a_transaction_left_open_is_rolled_back_and_said(path):
    prepare(path)

    def handler(ctx, io, rec):
        sqlite3.connect(path).execute("INSERT INTO item (name) VALUES ('x')")

    result = recorded(handler)
    assert result.error.code == "transaction_left_open"
    assert "app.db" in result.error.message
    assert rows(path) == Counter()


def test_a_connection_of_an_earlier_attempt_is_closed(path):
    prepare(path)
    kept = []

    def handler(ctx, io, rec):
        kept.append(sqlite3.connect(path, check_same_thread=False))

    recorded(handler, "read_only_io")
    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        kept[0].execute("SELECT 1")


def test_what_is_no_statement_is_refused_by_name(path):
    prepare(path)

    def handler(ctx, io, rec):
        db = sqlite3.connect(path)
        db.iterdump()

    assert recorded(handler, "read_only_io").error.code == "sql_not_recorded"


def test_an_adapter_of_the_users_own_is_used(path):
    prepare(path)

    class Name:
        def __conform__(self, protocol):
            return "adapted"

    def handler(ctx, io, rec):
        with sqlite3.connect(path) as db:
            db.execute("INSERT INTO item (name) VALUES (?)", (Name(),))
        with pytest.raises(sqlite3.ProgrammingError):
            db.execute("SELECT ?", (object(),))
        db.close()

    assert recorded(handler).status == "completed"
    assert rows(path) == Counter({("adapted", None): 1})


def test_a_connection_is_plain_where_the_plan_records_none(path):
    plan = Plan("sqlite_plain", clients=["sqlite3"])

    @plan.state("read.it", side_effects="read_only_io")
    async def read(ctx, io, rec):
        def plainly():
            with closing(sqlite3.connect(path)) as db:
                db.execute("CREATE TABLE made (a)")
                return type(db) is sqlite3.Connection

        ctx["plain"] = await io.step(plainly, name="plainly")

    with open_store("memory://") as store:
        assert run(plan, store=store).context == {"plain": True}
    assert type(sqlite3.connect(":memory:")) is sqlite3.Connection


class _Own(sqlite3.Connection):
    """A class that was made before any plan recorded the library."""


@pytest.mark.parametrize("kind", [sqlite3.Connection, _Own])
def test_a_connection_that_is_made_past_connect_is_refused_by_name(kind, path):
    def handler(ctx, io, rec):
        with closing(kind(":memory:")) as db:
            ctx["private"] = db.execute("SELECT 1").fetchone()[0]
        kind(path)

    plan = Plan("direct", clients=["sqlite3"])
    plan.state("a.b", side_effects="read_only_io")(handler)
    with open_store("memory://") as store:
        result = run(plan, store=store, config=RunConfig(undeclared_io="allow"))
        assert result.error.code == "sql_not_recorded"
        assert "sqlite3.Connection(...)" in result.error.message
        assert not path.exists()
        assert replay(result.run_id, plan=plan, store=store).identical
    with closing(kind(path)) as db:  # outside of handlers it is what it is
        assert db.execute("SELECT 1").fetchone() == (1,)
