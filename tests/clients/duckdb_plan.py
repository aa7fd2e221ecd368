"""A plan whose handlers use DuckDB as any code does."""

import datetime as dt
import decimal
import os
import uuid

import cut_at_commit
import duckdb

from machine import Plan
from machine.clients.duckdb_live import DuckdbLive

cut_at_commit.install(DuckdbLive)

plan = Plan("duckdb_client", clients=["duckdb"])
PATH = os.environ.get("DATABASE", "/nowhere/app.duckdb")


@plan.state("write.rows", side_effects="apply_side_effect", idempotency="rows")
def write(ctx, io, rec):
    with duckdb.connect(PATH) as db:
        db.begin()
        db.execute(
            "INSERT INTO item VALUES ($1, $2, $3, $4, $5, $6)",
            [
                "ann",
                decimal.Decimal("2.50"),
                dt.datetime.fromisoformat("2026-01-02"),
                uuid.UUID(int=5),
                ["a"],
                b"\0\xff",
            ],
        )
        db.executemany("INSERT INTO item (name) VALUES (?)", [["bob"], ["cid"]])
        db.commit()
        try:
            db.execute("INSERT INTO item (name) VALUES ('ann')")
        except duckdb.ConstraintException as error:
            ctx["error"] = str(error).splitlines()[0]
        db.execute("BEGIN")
        db.execute("INSERT INTO item (name) VALUES ('lost')")
        db.execute("ROLLBACK")
        ctx["changed"] = db.execute("UPDATE item SET price = price + 1 WHERE name = 'ann'").fetchone()[0]


@plan.state("read.rows", side_effects="read_only_io", after=[write])
def read(ctx, io, rec):
    with duckdb.connect(PATH) as db:
        row = db.execute("SELECT * FROM item WHERE name = $name", {"name": "ann"}).fetchone()
        ctx["types"] = [type(value).__name__ for value in row]
        db.execute("SELECT name FROM item ORDER BY name")
        ctx["columns"] = [column[:2] for column in db.description]
        ctx["names"] = [db.fetchone()[0], db.fetchmany(1)[0][0], db.fetchall()[0][0]]
        ctx["past"] = [db.fetchone(), db.fetchall()]
        ctx["other"] = db.cursor().execute("SELECT count(*) FROM item").fetchone()[0]
    memory = duckdb.connect()
    memory.execute("CREATE TABLE note AS SELECT 42 AS a")
    ctx["memory"] = memory.execute("SELECT {'a': a, 'list': [1, 2]} FROM note").fetchone()[0]
    memory.close()
