"""The SQLite store keeps the contract, and its file the promises that are the file's own."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing

import pytest

from machine.canonical import artifact_id
from machine.errors import Code, CorruptionError, NotFoundError, OtherStoreError, UsageError
from machine.stores import (
    ZERO_CHAIN,
    Artifact,
    SqliteStore,
    open_store,
    sqlite_append,
    sqlite_open,
    sqlite_schema,
)
from machine.testing.store_conformance import StoreConformance
from machine.testing.store_samples import log_of, run_id_of

RUN, OTHER = run_id_of(1), run_id_of(2)


class TestSqliteStore(StoreConformance):
    @pytest.fixture
    def store_factory(self, tmp_path):
        return lambda: SqliteStore(tmp_path / "runs.db")


class TestSqliteStoreNormal(StoreConformance):
    @pytest.fixture
    def store_factory(self, tmp_path):
        return lambda: SqliteStore(tmp_path / "runs.db", synchronous="normal")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.db"


@pytest.fixture
def raw(path):
    """Any other program's connection to a store with something in every table."""
    with SqliteStore(path) as store:
        log = log_of(RUN, 3, info={"invocation_key": "key"})
        store.post_signal("paid", "7", {})
        store.post_signal("paid", "8", {})
        store.append(RUN, 0, log, [Artifact(artifact_id(b"a"), "output", b"a")], takes=(1,))
        store.release(store.acquire(RUN, "somebody", 1000))
        store.acquire(OTHER, "somebody", 1000)
        store.post(RUN, "signal", {"a": 1})
        store.secret_key()
        store.add_data_key(RUN, "key", b"wrapped")
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        yield conn


def pragma(conn, name):
    return conn.execute(f"PRAGMA {name}").fetchone()[0]


def test_files_and_directories_are_the_owners_alone(tmp_path):
    path = tmp_path / "new" / "deeper" / "runs.db"
    before = os.umask(0)
    try:
        with SqliteStore(path) as store:
            store.append(RUN, 0, log_of(RUN, 1))
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"runs.db": 0o600, "runs.db-wal": 0o600, "runs.db-shm": 0o600}
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path.parent, path.parent.parent)] == [0o700] * 2


def test_a_closed_store_is_one_file(path):
    with SqliteStore(path) as store:
        store.append(RUN, 0, log_of(RUN, 1))
    assert [file.name for file in path.parent.iterdir()] == ["runs.db"]


@pytest.mark.parametrize(("synchronous", "number"), [("full", 2), ("normal", 1)])
def test_the_settings_are_those_of_a_durable_store(path, synchronous, number):
    with SqliteStore(path, synchronous=synchronous) as store:
        conn = store._session.conn
        assert pragma(conn, "application_id") == 0x4D414348
        assert pragma(conn, "user_version") == 6
        assert pragma(conn, "journal_mode") == "wal"
        assert pragma(conn, "synchronous") == number
        assert pragma(conn, "busy_timeout") == 10_000
        assert pragma(conn, "foreign_keys") == pragma(conn, "recursive_triggers") == 1


def test_an_unknown_synchronous_is_refused(path):
    with pytest.raises(UsageError, match="synchronous is 'off'"):
        SqliteStore(path, synchronous="off")
    assert not path.exists()


def test_a_store_that_lost_its_wal_mode_gets_it_back(path):
    # a copy made by VACUUM INTO or the backup API has none
    with SqliteStore(path) as store:
        store._session.conn.execute("PRAGMA journal_mode = DELETE")
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM runs").fetchall()
        with pytest.raises(OtherStoreError) as caught:
            SqliteStore(path, busy_timeout=0.05)
        assert caught.value.code == Code.STORE_BUSY
    with SqliteStore(path) as store:
        assert pragma(store._session.conn, "journal_mode") == "wal"


def test_without_a_wal_a_commit_is_synced_in_full(path):
    # the rollback journal is not safe under NORMAL
    with SqliteStore(path) as store:
        store._session.conn.execute("PRAGMA journal_mode = DELETE")
    uri = f"{path.as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as conn:
        conn.execute("PRAGMA synchronous = NORMAL")
        sqlite_open._use_wal(conn)
        assert pragma(conn, "synchronous") == 2


def test_the_url_opens_the_same_store_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with SqliteStore("odd ?#% näme.db", synchronous="normal") as store:
        store.append(RUN, 0, log_of(RUN, 1))
    monkeypatch.chdir("/")
    assert store.url.endswith("?synchronous=normal")
    with open_store(store.url, create=False) as again:
        assert again.latest_seq(RUN) == 1
        assert again.url == store.url


def test_a_path_that_is_not_utf8_works(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.db")
    with SqliteStore(path) as store:
        store.append(RUN, 0, log_of(RUN, 1))
    with open_store(store.url, create=False) as again:
        assert again.latest_seq(RUN) == 1


# append-only, whoever opens the file


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET data = x'00'",
        "UPDATE events SET seq = seq + 10",
        "DELETE FROM events",
        "DELETE FROM events WHERE seq = 3",
        "INSERT OR REPLACE INTO events VALUES (1, 2, x'00', zeroblob(32))",
        "REPLACE INTO events VALUES (1, 3, x'00', zeroblob(32))",
        "INSERT INTO events VALUES (1, 5, x'00', zeroblob(32))",
        "INSERT INTO events VALUES (1, 0, x'00', zeroblob(32))",
        "INSERT INTO events VALUES (2, 2, x'00', zeroblob(32))",
        "UPDATE OR REPLACE events SET seq = 1 WHERE seq = 2",
        "UPDATE artifacts SET data = x'00'",
        "UPDATE artifacts SET kind = 'x'",
        "DELETE FROM artifacts",
        "INSERT OR REPLACE INTO artifacts VALUES (1, zeroblob(32), 'x', x'00')",
        "UPDATE runs SET run_id = 'x'",
        "UPDATE runs SET key = 7",
        "DELETE FROM runs",
        f"INSERT OR REPLACE INTO runs SELECT 7, run_id, '', '', 0, 0, 0{', NULL' * 7} FROM runs",
        "INSERT OR REPLACE INTO runs VALUES (1, 'x', '', '', 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
        "INSERT OR REPLACE INTO runs VALUES (7, 'x', '', '', 0, 0, 0, 'key', NULL, NULL, NULL, NULL, NULL, NULL)",
        "UPDATE runs SET invocation_key = NULL",
        "UPDATE leases SET epoch = 0",
        "UPDATE leases SET run_id = 'x'",
        "DELETE FROM leases",
        "INSERT OR REPLACE INTO leases SELECT run_id, 1, 'mine', 0, 1 FROM leases",
        "UPDATE inbox SET data = x'00'",
        "DELETE FROM inbox",
        "INSERT OR REPLACE INTO inbox VALUES (1, 1, 'x', x'00', 0)",
        "INSERT INTO inbox VALUES (1, 3, 'x', x'00', 0)",
        "UPDATE signals SET taken_by = 'x'",
        "UPDATE signals SET taken_by = NULL WHERE number = 1",
        "UPDATE signals SET taken_by = 'x', value = x'00' WHERE number = 2",
        "UPDATE signals SET expires_ms = 0 WHERE number = 2",
        "DELETE FROM signals",
        "INSERT OR REPLACE INTO signals VALUES (2, 'paid', '7', x'00', 0, NULL, NULL)",
        "INSERT INTO signals VALUES (4, 'paid', '7', x'00', 0, NULL, NULL)",
        "INSERT INTO signals VALUES (3, 'paid', '7', x'00', 0, NULL, 'x')",
        "UPDATE secret SET key = x'00'",
        "DELETE FROM secret",
        "INSERT OR REPLACE INTO secret VALUES (1, x'00')",
        "INSERT INTO secret VALUES (2, x'00')",
        "INSERT OR REPLACE INTO data_keys SELECT run_id, x'00' FROM data_keys",
        "UPDATE data_keys SET run_id = 'x'",
        "INSERT INTO secret_key_id VALUES (2, 'other')",
    ],
)
@pytest.mark.parametrize("recursive", [0, 1])
def test_what_is_stored_can_be_neither_changed_nor_deleted(raw, statement, recursive):
    raw.execute(f"PRAGMA recursive_triggers = {recursive}")
    before = list(raw.iterdump())
    with pytest.raises(sqlite3.IntegrityError):
        raw.execute(statement)
    assert list(raw.iterdump()) == before


def test_an_artifact_cannot_be_replaced_under_its_id(raw):
    before = list(raw.iterdump())
    raw.execute("INSERT OR REPLACE INTO artifacts (id, kind, data) SELECT id, 'x', x'00' FROM artifacts")
    assert list(raw.iterdump()) == before


def test_an_event_needs_a_run(path):
    with SqliteStore(path) as store, pytest.raises(sqlite3.IntegrityError):
        store._session.conn.execute("INSERT INTO events VALUES (7, 1, x'00', zeroblob(32))")


# which files are stores


def test_a_missing_file_is_not_made_unless_asked(tmp_path):
    path = tmp_path / "new" / "runs.db"
    with pytest.raises(NotFoundError) as caught:
        SqliteStore(path, create=False)
    assert caught.value.code == Code.STORE_NOT_FOUND
    assert str(path) in str(caught.value)
    assert "make one" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_becomes_a_store_only_if_asked(path):
    path.touch()
    with pytest.raises(NotFoundError, match="empty") as caught:
        SqliteStore(path, create=False)
    assert caught.value.code == Code.STORE_NOT_FOUND
    assert [(file.name, file.stat().st_size) for file in path.parent.iterdir()] == [("runs.db", 0)]
    with SqliteStore(path) as store:
        store.append(RUN, 0, log_of(RUN, 1))
    with SqliteStore(path, create=False) as again:
        assert again.latest_seq(RUN) == 1


def test_any_other_file_is_refused_and_left_alone(path):
    path.write_text("id,name\n" * 1000)
    before = path.read_bytes()
    with pytest.raises(OtherStoreError) as caught:
        SqliteStore(path)
    assert caught.value.code == Code.STORE_NOT_A_STORE
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE theirs (x)", "PRAGMA application_id = 7", "PRAGMA user_version = 3"],
)
def test_another_applications_database_is_refused_and_left_alone(path, statement):
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute(statement)
    before = path.read_bytes()
    with pytest.raises(OtherStoreError, match="another application") as caught:
        SqliteStore(path)
    assert caught.value.code == Code.STORE_NOT_A_STORE
    assert path.read_bytes() == before


def test_a_directory_is_not_a_store(tmp_path):
    with pytest.raises(OtherStoreError) as caught:
        SqliteStore(tmp_path)
    assert caught.value.code == Code.STORE_NOT_A_STORE


@pytest.mark.parametrize("name", ["x" * 300, "file/runs.db"])
def test_a_path_that_cannot_be_is_a_store_error(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(OtherStoreError) as caught:
        SqliteStore(tmp_path / name)
    assert caught.value.code == Code.STORE_FAILED


def test_a_path_with_a_nul_is_refused():
    with pytest.raises(OtherStoreError) as caught:
        SqliteStore("a\0b.db")
    assert caught.value.code == Code.STORE_UNKNOWN_URL


# schema versions


def test_a_newer_schema_is_refused(raw, path):
    raw.execute("PRAGMA user_version = 9")
    raw.close()
    with pytest.raises(OtherStoreError, match=r"version 9.* up to 6") as caught:
        SqliteStore(path)
    assert caught.value.code == Code.STORE_NEWER_SCHEMA
    assert caught.value.info.details == {"path": str(path), "found": 9, "supported": 6}


def test_an_impossible_schema_is_damage(raw, path):
    raw.execute("PRAGMA user_version = -1")
    with pytest.raises(CorruptionError):
        SqliteStore(path)
    raw.execute("PRAGMA user_version = 0")
    with pytest.raises(CorruptionError):
        SqliteStore(path)


def test_an_older_schema_is_migrated_with_all_it_holds(raw, path, monkeypatch):
    raw.close()
    steps = (*sqlite_schema.MIGRATIONS, ("CREATE TABLE more (x)", "INSERT INTO more VALUES (1)"))
    monkeypatch.setattr(sqlite_schema, "MIGRATIONS", steps)
    with SqliteStore(path, create=False) as store:
        conn = store._session.conn
        assert pragma(conn, "user_version") == 7
        assert conn.execute("SELECT count(*) FROM more").fetchone() == (1,)
        assert list(store.read_range(RUN)) == log_of(RUN, 3, info={"invocation_key": "key"})
    with SqliteStore(path) as again:
        assert again._session.conn.execute("SELECT count(*) FROM more").fetchone() == (1,)


def test_a_migration_that_fails_changes_nothing(raw, path, monkeypatch):
    steps = (*sqlite_schema.MIGRATIONS, ("CREATE TABLE more (x)", "no statement"))
    monkeypatch.setattr(sqlite_schema, "MIGRATIONS", steps)
    with pytest.raises(CorruptionError):
        SqliteStore(path)
    assert pragma(raw, "user_version") == 6
    assert "more" not in "".join(raw.iterdump())


# the chain is the caller's; the index is checked


def test_a_run_whose_tail_is_gone_is_not_continued(raw, path):
    raw.execute("DROP TRIGGER events_never_go")
    raw.execute("DELETE FROM events WHERE seq = 3")
    raw.close()
    with SqliteStore(path) as store:
        with pytest.raises(CorruptionError, match="2 events but the index says 3"):
            store.append(RUN, 2, log_of(RUN, 1, first=3))
        found = store.integrity_problems()
    assert found[0] == "schema: events_never_go is missing"
    assert RUN in found[1]


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE runs SET op_id = 'other'", "the row of run"),
        ("UPDATE runs SET op_id = x'00'", "is damaged"),
        ("DROP TRIGGER runs_never_go; DELETE FROM runs", "that has no row"),
        ("CREATE TRIGGER mine BEFORE INSERT ON runs BEGIN SELECT 1; END", "mine does not belong there"),
        ("DROP TRIGGER runs_stay; CREATE TRIGGER runs_stay DELETE ON runs BEGIN SELECT 1; END", "not what"),
    ],
)
def test_what_the_file_should_not_hold_is_reported(raw, path, statement, problem):
    raw.executescript(statement)
    with SqliteStore(path) as store:
        assert any(problem in each for each in store.integrity_problems())


def test_a_statistics_table_is_no_problem(raw, path):
    raw.execute("ANALYZE")
    with SqliteStore(path) as store:
        assert store.integrity_problems() == []


def test_a_value_that_is_not_bytes_is_damage(raw, path):
    raw.execute("DROP TRIGGER events_never_change")
    raw.execute("DROP TRIGGER artifacts_never_change")
    raw.execute("UPDATE artifacts SET data = 'a', kind = x'00'")
    raw.execute("UPDATE events SET data = CAST(data AS TEXT), chain = 'a'")
    raw.execute("UPDATE runs SET status = CAST(x'ff' AS TEXT)")
    with SqliteStore(path) as store:
        for read in (
            lambda: list(store.read_range(RUN)),
            lambda: store.head(RUN),
            lambda: store.get(artifact_id(b"a")),
            lambda: store.kind(artifact_id(b"a")),
            lambda: store.run_row(RUN),
            store.list_runs,
            lambda: store.append(RUN, 3, log_of(RUN, 1, first=4, chain=ZERO_CHAIN)),
        ):
            with pytest.raises(CorruptionError):
                read()
        assert store.integrity_problems()


def test_an_append_that_is_interrupted_midway_writes_nothing(path, monkeypatch):
    with SqliteStore(path) as store:
        monkeypatch.setattr(sqlite_append, "_NEW_EVENT", None)  # after the artifacts and the index
        with pytest.raises(TypeError):
            store.append(RUN, 0, log_of(RUN, 3), [Artifact(artifact_id(b"a"), "output", b"a")])
        monkeypatch.undo()
        assert not store.exists(artifact_id(b"a"))
        store.append(RUN, 0, log_of(RUN, 3), [Artifact(artifact_id(b"b"), "output", b"b")])
        assert store.get(artifact_id(b"b")) == b"b"
        assert store.integrity_problems() == []


def test_a_store_that_another_process_makes_while_it_is_opened_is_no_stranger(path, monkeypatch):
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA journal_mode = WAL")  # as far as the other had come
    number, made = sqlite_schema._number, []

    def number_while_made(conn, pragma):
        if pragma == "user_version" and not made:
            made.append(path)
            SqliteStore(path).close()
        return number(conn, pragma)

    monkeypatch.setattr(sqlite_schema, "_number", number_while_made)
    with SqliteStore(path) as store:
        assert made
        assert store.integrity_problems() == []
