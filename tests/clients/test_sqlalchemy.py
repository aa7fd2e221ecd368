"""SQLAlchemy over psycopg and aiosqlite: Core and ORM, recorded, killed, resumed, replayed without the servers."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from clients.kit import proven

from machine import Plan, open_store, replay, run

sqlalchemy = pytest.importorskip("sqlalchemy")
psycopg = pytest.importorskip("psycopg")
pytest.importorskip("aiosqlite")
pytest.importorskip("greenlet")

PLAN = Path(__file__).with_name("sqlalchemy_plan.py")
TABLES = (
    "CREATE TABLE author (id {serial} PRIMARY KEY, name varchar(50) UNIQUE)",
    "CREATE TABLE book (id {serial} PRIMARY KEY, title varchar(50), author_id int REFERENCES author)",
)
NAMES = "SELECT name FROM author UNION ALL SELECT title FROM book"


def prepare(server, path):
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute("DROP TABLE IF EXISTS book, author")
        for table in TABLES:
            db.execute(table.format(serial="serial"))
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as db:
        for table in TABLES:
            db.execute(table.format(serial="integer"))


def rows(server, path):
    with psycopg.connect(server.dsn) as db, closing(sqlite3.connect(path)) as file:
        return Counter(row[0] for one in (db, file) for row in one.execute(NAMES).fetchall())


def test_it_is_recorded_killed_resumed_and_replayed_without_its_servers(tmp_path, postgres):
    path = tmp_path / "app.db"

    def stop():
        postgres.stop()
        path.unlink()

    context = proven(
        PLAN,
        tmp_path,
        {},
        kills=[{"EffectIntended": 2, "FactRecorded": 8}, {"EffectIntended": 4}],
        arrivals=lambda: rows(postgres, path),
        stop=stop,
        environment={"DSN": postgres.dsn, "DATABASE": str(path)},
        prepare=lambda: prepare(postgres, path),
    )
    assert context["lazy"] == ["one", "two"]
    assert context["orig"] == ["UniqueViolation", "23505"]
    assert context["returned"] == ["cid", "dan"]
    assert context["books"] == {"ann": ["one", "three", "two"], "bob": [], "cid": [], "dan": []}
    assert (context["count"], context["missing"], context["file"]) == (3, "UndefinedColumn", "four")


def test_an_engine_gives_no_connection_of_one_attempt_to_another(tmp_path):
    """The engine outlives runs and replays, and the pool has the connections of all of them."""
    path = tmp_path / "app.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{path}", pool_size=1, max_overflow=0)
    with engine.begin() as plain:
        plain.execute(sqlalchemy.text("CREATE TABLE item (name text)"))
    plan = Plan("sqlalchemy_pool", clients=["sqlalchemy"])

    @plan.state("write.it", side_effects="apply_side_effect", idempotency="it")
    def write(ctx, io, rec):
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("INSERT INTO item VALUES ('a')"))

    @plan.state("read.it", side_effects="read_only_io", after=[write])
    def read(ctx, io, rec):
        with engine.connect() as connection:
            ctx["names"] = list(connection.scalars(sqlalchemy.text("SELECT name FROM item")))

    with open_store("memory://") as store:
        for expected in (["a"], ["a", "a"]):
            result = run(plan, store=store)
            assert result.context == {"names": expected}, result.error
            assert replay(result.run_id, plan=plan, store=store).identical
            with engine.connect() as plain:
                assert plain.scalar(sqlalchemy.text("SELECT count(*) FROM item")) == len(expected)
    engine.dispose()


def test_an_engine_is_given_recorded_connections_by_its_creator(postgres):
    plan = Plan("sqlalchemy_creator")

    @plan.state("read.it", side_effects="read_only_io")
    def read(ctx, io, rec):
        engine = sqlalchemy.create_engine(
            "postgresql+psycopg://", creator=lambda: io.connect(psycopg.connect, postgres.dsn)
        )
        with engine.connect() as connection:
            ctx["seven"] = connection.scalar(sqlalchemy.select(7))
        engine.dispose()

    with open_store("memory://") as store:
        result = run(plan, store=store)
        assert result.context == {"seven": 7}, result.error
        postgres.stop()
        assert replay(result.run_id, plan=plan, store=store).identical
