"""Connections of psycopg: recorded, killed, resumed with nothing written twice, replayed without the server."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from clients.database_kit import survive_cuts
from clients.kit import proven

from machine import Plan, open_store, replay, run

psycopg = pytest.importorskip("psycopg")

PLAN = Path(__file__).with_name("psycopg_plan.py")
TABLE = """CREATE TABLE item (
    id serial PRIMARY KEY, name text UNIQUE DEFERRABLE INITIALLY IMMEDIATE, price numeric, at timestamptz, key uuid,
    tags text[], data bytea, info jsonb, span int4range, address inet)"""
WRITTEN = Counter([("ann", 4), ("bob", None), ("cid", None), ("dan", None), ("eve", None)])


def prepare(server):
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute("DROP TABLE IF EXISTS item")
        db.execute(TABLE)


def rows(server):
    with psycopg.connect(server.dsn) as db:
        return Counter(db.execute("SELECT name, price FROM item").fetchall())


def test_it_is_recorded_killed_resumed_and_replayed_without_its_server(tmp_path, postgres):
    context = proven(
        PLAN,
        tmp_path,
        {},
        kills=[{"EffectIntended": 2, "FactRecorded": 5}, {"FactRecorded": 16}],
        arrivals=lambda: rows(postgres),
        stop=postgres.stop,
        environment={"DSN": postgres.dsn},
        prepare=lambda: prepare(postgres),
    )
    assert context["types"] == [
        *("str", "Decimal", "datetime", "UUID", "list", "bytes", "dict", "Range", "IPv4Address")
    ]
    assert context["row"][:3] == ["ann", "2.50", "2026-01-02 03:04:00+00:00"]
    assert (context["many"], context["returned"], context["autocommit"]) == (2, ["dan", "eve"], True)
    assert context["error"] == [
        'duplicate key value violates unique constraint "item_name_key"\nDETAIL:  Key (name)=(ann) already exists.',
        "23505",
        "item_name_key",
        "OtherIoError",
    ]
    assert context["columns"] == [["id", "int4"], ["name", "text"]]
    assert context["names"] == ["ann", "bob", "cid", "dan", "eve"]
    assert context["past"] == [None, [], []]
    assert (context["item"], context["count"], context["after"], context["closed"]) == ("ann", 5, 7, True)
    assert context["missing"] == 'column "nothing" does not exist'
    assert context["refused"]


def test_a_kill_around_a_commit_loses_nothing_and_doubles_nothing(tmp_path, postgres):
    survive_cuts(
        PLAN,
        tmp_path,
        ["before 1", "after 1", "after 4"],
        {"DSN": postgres.dsn},
        prepare=lambda: prepare(postgres),
        check=lambda: rows(postgres) == WRITTEN,
    )


def plan_of(handler, side_effects="apply_side_effect", **more):
    plan = Plan("psycopg_one", clients=["psycopg"])
    if side_effects == "apply_side_effect":
        more["idempotency"] = "once"
    plan.state("one.state", side_effects=side_effects, **more)(handler)
    return plan


def recorded(handler, side_effects="apply_side_effect", **more):
    """Run a plan of one state over a store in memory; return its result, and replay it."""
    plan = plan_of(handler, side_effects, **more)
    with open_store("memory://") as store:
        result = run(plan, store=store)
        replayed = replay(result.run_id, plan=plan, store=store)
        assert replayed.identical, replayed.divergence
        return result


def test_the_server_refuses_a_write_that_no_text_shows(postgres):
    prepare(postgres)
    with psycopg.connect(postgres.dsn) as db:
        db.execute(
            "CREATE FUNCTION add_one() RETURNS int LANGUAGE sql AS "
            "$$INSERT INTO item (name) VALUES ('x') RETURNING id$$"
        )

    def handler(ctx, io, rec):
        with psycopg.connect(postgres.dsn) as db:
            db.execute("SELECT add_one()")

    assert recorded(handler, "read_only_io").error.code == "side_effect_not_declared"
    assert rows(postgres) == Counter()
    assert recorded(handler).status == "completed"
    assert rows(postgres) == Counter([("x", None)])


@pytest.mark.parametrize(
    "statement",
    ["INSERT INTO item (name) VALUES ('x')", "BEGIN READ WRITE", "SET default_transaction_read_only = off"],
)
def test_a_state_that_declares_no_effect_can_make_none(postgres, statement):
    prepare(postgres)

    def handler(ctx, io, rec):
        with psycopg.connect(postgres.dsn, autocommit=True) as db:
            db.execute(statement)

    assert recorded(handler, "read_only_io").error.code in {"side_effect_not_declared", "sql_not_recorded"}
    assert rows(postgres) == Counter()


@pytest.mark.parametrize(
    "what", ["copy", "cursor", "ClientCursor", "RawCursor", "pipeline", "notifies", "tpc"]
)
def test_what_cannot_be_recorded_is_refused_by_name(postgres, what):
    prepare(postgres)

    def handler(ctx, io, rec):
        with psycopg.connect(postgres.dsn) as db:
            match what:
                case "copy":
                    db.cursor().copy("COPY item TO STDOUT")
                case "cursor":
                    db.cursor("named")
                case "ClientCursor" | "RawCursor":
                    db.cursor_factory = getattr(psycopg, what)
                    db.execute("SELECT 1")
                case "pipeline":
                    db.pipeline()
                case "notifies":
                    db.notifies()
                case "tpc":
                    db.tpc_begin("one")

    error = recorded(handler, "read_only_io").error
    assert error.code == "sql_not_recorded"
    assert "io.step" in error.message


def test_a_transaction_left_open_is_rolled_back_and_said(postgres):
    prepare(postgres)
    kept = []

    def handler(ctx, io, rec):
        kept.append(psycopg.connect(postgres.dsn))
        kept[-1].execute("INSERT INTO item (name) VALUES ('x')")

    assert recorded(handler).error.code == "transaction_left_open"
    assert rows(postgres) == Counter()


def test_a_parameter_that_no_json_holds_is_refused_with_its_place(postgres):
    def handler(ctx, io, rec):
        with psycopg.connect(postgres.dsn) as db:
            db.execute("SELECT %s, %s", (1, object()))

    error = recorded(handler, "read_only_io").error
    assert error.code == "sql_value"
    assert "parameter 2" in error.message


def test_an_effect_the_database_cannot_tell_of_waits_for_a_person(postgres, tmp_path):
    """Where the user may not make the table of effects, a crash leaves the run suspended."""
    prepare(postgres)
    with psycopg.connect(postgres.dsn, autocommit=True) as db:
        db.execute("DROP ROLE IF EXISTS clerk")
        db.execute("CREATE ROLE clerk LOGIN")
        db.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO clerk")
        db.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO clerk")
        db.execute("GRANT USAGE ON SCHEMA public TO clerk")
        db.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    dsn = postgres.dsn.replace("postgres@", "clerk@")
    died = []

    def handler(ctx, io, rec):
        with psycopg.connect(dsn) as db:
            db.execute("INSERT INTO item (name) VALUES ('x')")
            if not died:
                died.append(True)
                lose_the_answer(db)

    def lose_the_answer(db):
        perform = db._live._perform

        def performing(request):
            answer = yield from perform(request)
            if request["op"] == "commit":
                db._live._real.pgconn.finish()
                raise psycopg.OperationalError("the connection is lost")
            return answer

        db._live._perform = performing

    plan = plan_of(handler)
    with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        result = run(plan, store=store)
        assert result.status == "suspended", result.error
        assert rows(postgres) == Counter([("x", None)])


def test_a_commit_whose_answer_is_lost_is_looked_up(postgres):
    prepare(postgres)
    died = []

    def handler(ctx, io, rec):
        with psycopg.connect(postgres.dsn) as db:
            db.execute("INSERT INTO item (name) VALUES ('x')")
            perform = db._live._perform

            def performing(request):
                answer = yield from perform(request)
                if request["op"] == "commit" and not died:
                    died.append(True)
                    db._live._real.pgconn.finish()
                    raise psycopg.OperationalError("the connection is lost")
                return answer

            db._live._perform = performing

    assert recorded(handler).status == "completed"
    assert rows(postgres) == Counter([("x", None)])
