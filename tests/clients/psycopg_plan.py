"""A plan whose handlers use psycopg as any code does, blocking and asynchronous."""

import datetime as dt
import decimal
import os
import uuid

import cut_at_commit
import psycopg
from psycopg import sql
from psycopg.rows import class_row, dict_row, namedtuple_row
from psycopg.types.json import Jsonb
from psycopg.types.range import Range

from machine import Plan
from machine.clients.psycopg_live import PsycopgLive

cut_at_commit.install(PsycopgLive, generator=True)

plan = Plan("psycopg_client", clients=["psycopg"])
DSN = os.environ.get("DSN", "postgresql://postgres@127.0.0.1:9/postgres")
AT = dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC)


class Item:
    def __init__(self, number, name):
        self.number, self.name = number, name


@plan.state("write.rows", side_effects="apply_side_effect", idempotency="rows")
def write(ctx, io, rec):
    with psycopg.connect(DSN, row_factory=dict_row) as db:
        with db.transaction():
            row = db.execute(
                "INSERT INTO item (name, price, at, key, tags, data, info, span, address) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, '10.0.0.1') "
                "RETURNING name, price, at, key, tags, data, info, span, address",
                (
                    "ann",
                    decimal.Decimal("2.50"),
                    AT,
                    uuid.UUID(int=5),
                    ["a", None],
                    b"\0\xff",
                    Jsonb({"a": 1}),
                    Range(1, 3),
                ),
            ).fetchone()
        ctx["row"] = [str(value) for value in row.values()]
        ctx["types"] = [type(value).__name__ for value in row.values()]
        cursor = db.cursor()
        cursor.executemany("INSERT INTO item (name) VALUES (%(n)s)", [{"n": "bob"}, {"n": "cid"}])
        ctx["many"] = cursor.rowcount
        cursor.executemany(
            "INSERT INTO item (name) VALUES (%s) RETURNING name", [("dan",), ("eve",)], returning=True
        )
        names = []
        while True:
            names.append(cursor.fetchone()["name"])
            if not cursor.nextset():
                break
        ctx["returned"] = names
        db.commit()
        try:
            with db.transaction():
                db.execute("INSERT INTO item (name) VALUES ('lost')")
                db.execute("INSERT INTO item (name) VALUES ('ann')")
        except psycopg.errors.UniqueViolation as error:
            ctx["error"] = [
                str(error),
                error.sqlstate,
                error.diag.constraint_name,
                type(error.__cause__).__name__,
            ]
        with db.transaction():
            try:
                with db.transaction():
                    db.execute("INSERT INTO item (name) VALUES ('ann')")
            except psycopg.IntegrityError:
                db.execute("UPDATE item SET price = 3 WHERE name = 'ann'")
    with psycopg.connect(DSN, autocommit=True) as own:
        ctx["autocommit"] = (
            own.execute("UPDATE item SET price = price + 1 WHERE name = 'ann' RETURNING price").fetchone()[0]
            == 4
        )


@plan.state("read.rows", side_effects="read_only_io", after=[write])
async def read(ctx, io, rec):
    async with await psycopg.AsyncConnection.connect(DSN) as db:
        query = sql.SQL("SELECT id, {} FROM {} ORDER BY id").format(
            sql.Identifier("name"), sql.Identifier("item")
        )
        cursor = await db.execute(query)
        ctx["columns"] = [(column.name, column.type_display) for column in cursor.description]
        ctx["names"] = [row[1] async for row in cursor]
        ctx["past"] = [await cursor.fetchone(), await cursor.fetchmany(2), await cursor.fetchall()]
        cursor = db.cursor(row_factory=class_row(Item))
        await cursor.execute("SELECT id AS number, name FROM item WHERE name = %s", ("ann",))
        ctx["item"] = (await cursor.fetchone()).name
        cursor = db.cursor(row_factory=namedtuple_row)
        await cursor.execute("SELECT count(*) AS many FROM item")
        ctx["count"] = (await cursor.fetchone()).many
        async with db.transaction():
            try:
                async with db.transaction():
                    await db.execute("SELECT nothing FROM item")
            except psycopg.errors.UndefinedColumn as error:
                ctx["missing"] = error.diag.message_primary
            ctx["after"] = (await (await db.execute("SELECT 7")).fetchone())[0]
    ctx["closed"] = db.closed
    try:
        await psycopg.AsyncConnection.connect("postgresql://postgres@127.0.0.1:9/postgres", connect_timeout=3)
    except psycopg.OperationalError as error:
        ctx["refused"] = "connection" in str(error)
