"""Sorting of statements: none that writes counts as a read, and none that lifts a protection goes through."""

from __future__ import annotations

import pytest

from machine.clients.sql_text import statement_of

READS = """
SELECT 1
select count(*), max(a) from t where b in (1, 2) and exists (select 1)
SELECT 'insert into t', "update", $$delete from t; commit$$ FROM t -- drop table t
/* insert */ SELECT E'it\\'s; DELETE', replace(a, 'x', 'y') FROM t
WITH a AS (SELECT 1) SELECT * FROM a
VALUES (1), (2)
EXPLAIN SELECT 1
SHOW transaction isolation level
PRAGMA table_info(t)
PRAGMA foreign_keys
PRAGMA main.user_version
FROM t SELECT a
SELECT extract(year FROM at), now() - interval '1 day', a::numeric(10, 2) FROM t
;
"""
WRITES = """
INSERT INTO t VALUES (1)
insert into t select * from u
UPDATE t SET a = 1
DELETE FROM t
REPLACE INTO t VALUES (1)
MERGE INTO t USING u ON a = b WHEN MATCHED THEN DELETE
CREATE TABLE t (a int)
DROP TABLE t
TRUNCATE t
VACUUM
WITH a AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM a
WITH a AS (SELECT 1) UPDATE t SET a = 1
SELECT * INTO u FROM t
SELECT * FROM t FOR UPDATE
SELECT * FROM t FOR NO KEY UPDATE SKIP LOCKED
SELECT * FROM t FOR SHARE
SELECT nextval('s')
EXPLAIN ANALYZE DELETE FROM t
CALL something()
DO $$BEGIN DELETE FROM t; END$$
SELECT 1; DELETE FROM t
PRAGMA user_version = 3
PRAGMA wal_checkpoint
SOMETHING that nobody knows
"""
REFUSED = """
BEGIN READ WRITE
START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ WRITE
SET TRANSACTION READ WRITE
SET default_transaction_read_only = off
SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE
RESET default_transaction_read_only
DISCARD ALL
RESET ALL
SELECT set_config('transaction_read_only', 'off', false)
PRAGMA query_only = OFF
PRAGMA query_only(0)
COPY t TO STDOUT
DECLARE c CURSOR FOR SELECT 1
FETCH 10 FROM c
PREPARE TRANSACTION 'a'
COMMIT PREPARED 'a'
ROLLBACK PREPARED 'a'
COMMIT AND CHAIN
INSERT INTO t VALUES (1); COMMIT
COMMIT; BEGIN
"""
OTHERS = {
    "BEGIN": "begin",
    "START TRANSACTION ISOLATION LEVEL SERIALIZABLE": "begin",
    "BEGIN IMMEDIATE": "begin",
    "COMMIT": "commit",
    "END": "commit",
    "ROLLBACK": "rollback",
    "ABORT": "rollback",
    "SAVEPOINT a": "savepoint",
    "RELEASE SAVEPOINT a": "savepoint",
    "ROLLBACK TO SAVEPOINT a": "savepoint",
    "SET search_path TO other": "session",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE": "session",
    "PRAGMA foreign_keys = ON": "session",
    "ATTACH 'other.db' AS other": "session",
    "LISTEN a": "session",
    "SELECT pg_notify('a', 'b')": "maybe",
    "SELECT my_function(a) FROM t": "maybe",
    "BEGIN; INSERT INTO t VALUES (1); COMMIT": "write",
}


def lines(text):
    return [line for line in text.splitlines() if line]


@pytest.mark.parametrize("sql", lines(READS))
def test_what_only_reads(sql):
    assert statement_of(sql).kind == "read"


@pytest.mark.parametrize("sql", lines(WRITES))
def test_what_writes(sql):
    assert statement_of(sql).kind == "write"


@pytest.mark.parametrize("sql", lines(REFUSED))
def test_what_is_refused(sql):
    assert statement_of(sql).kind == "refused"


@pytest.mark.parametrize(("sql", "kind"), OTHERS.items())
def test_the_other_kinds(sql, kind):
    assert statement_of(sql).kind == kind


@pytest.mark.parametrize(
    ("sql", "atomic"),
    [
        ("INSERT INTO t VALUES (1)", True),
        ("CREATE TABLE t (a int)", True),
        ("CREATE INDEX CONCURRENTLY i ON t (a)", False),
        ("CREATE DATABASE d", False),
        ("VACUUM", False),
        ("CALL something()", False),
        ("BEGIN; DELETE FROM t; COMMIT", False),
    ],
)
def test_what_can_be_made_together_with_a_key(sql, atomic):
    assert statement_of(sql).atomic is atomic
