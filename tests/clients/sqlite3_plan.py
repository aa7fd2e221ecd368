"""A plan whose handlers use sqlite3 as any code does."""

import datetime as dt
import os
import sqlite3

import cut_at_commit

from machine import Plan
from machine.clients.sqlite_live import SqliteLive

cut_at_commit.install(SqliteLive)

plan = Plan("sqlite_client", clients=["sqlite3"])
PATH = os.environ.get("DATABASE", "/nowhere/app.db")


@plan.state("write.rows", side_effects="apply_side_effect", idempotency="rows")
def write(ctx, io, rec):
    db = sqlite3.connect(PATH, timeout=2)
    with db:
        first = db.execute("INSERT INTO item (name, price, data) VALUES (?, ?, ?)", ("ann", 2.5, b"\0\xff"))
        ctx["first"] = first.lastrowid
        many = db.executemany("INSERT INTO item (name) VALUES (:n)", [{"n": "bob"}, {"n": "cid"}])
        ctx["many"] = many.rowcount
    with db:
        ctx["id"] = db.execute("INSERT INTO item (name) VALUES ('dan') RETURNING id").fetchone()[0]
    try:
        with db:
            db.execute("INSERT INTO item (name) VALUES ('lost')")
            db.execute("INSERT INTO item (name) VALUES ('ann')")
    except sqlite3.IntegrityError as error:
        ctx["error"] = [str(error), error.sqlite_errorcode, error.sqlite_errorname]
    own = sqlite3.connect(PATH, isolation_level=None)
    ctx["autocommit"] = own.execute("UPDATE item SET price = price + 1 WHERE name = 'ann'").rowcount
    own.execute("BEGIN IMMEDIATE")
    own.execute("INSERT INTO item (name, price) VALUES ('eve', 7)")
    own.execute("COMMIT")
    own.close()
    db.close()


@plan.state("read.rows", side_effects="read_only_io", after=[write])
def read(ctx, io, rec):
    db = sqlite3.connect(PATH, detect_types=sqlite3.PARSE_COLNAMES)
    db.row_factory = sqlite3.Row
    cursor = db.execute("SELECT name, price, data FROM item ORDER BY id")
    ctx["columns"] = [column[0] for column in cursor.description]
    row = cursor.fetchone()
    ctx["row"] = [row["name"], row["price"], row["data"].hex()]
    ctx["rest"] = [row["name"] for row in cursor]
    ctx["past"] = [cursor.fetchone(), cursor.fetchmany(3), cursor.fetchall()]
    at = db.execute("""SELECT '2026-01-02' AS "at [date]" """).fetchone()[0]
    ctx["date"] = (at - dt.date(2026, 1, 1)).days
    try:
        db.execute("SELECT * FROM missing")
    except sqlite3.OperationalError as error:
        ctx["missing"] = str(error)
    db.create_function("twice", 1, lambda value: 2 * value)
    ctx["twice"] = db.execute("SELECT twice(21)").fetchone()[0]
    memory = sqlite3.connect(":memory:")
    memory.executescript("CREATE TABLE note (text); INSERT INTO note VALUES ('kept')")
    ctx["memory"] = memory.execute("SELECT text FROM note").fetchone()[0]
    memory.close()
    db.close()
