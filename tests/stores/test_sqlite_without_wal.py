"""Where there is no write-ahead log, as in a network folder, the rollback journal serves, and is as durable."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from machine.errors import StoreError
from machine.stores import Artifact, SqliteStore, sqlite_open
from machine.testing.store_samples import log_of, read_log, run_id_of

RUN = run_id_of(1)
FULL = 2


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.db"


def settings_of(store):
    conn = store._session.conn
    return [conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]


def error(code):
    exc = sqlite3.OperationalError("locking protocol")
    exc.sqlite_errorcode = code
    return exc


class Refusing(sqlite3.Connection):
    """A connection to a file in a folder that has no shared memory."""

    code = sqlite3.SQLITE_PROTOCOL
    alone = False

    def execute(self, sql, *parameters):
        """Refuse the write-ahead log, unless the file is this connection's alone."""
        self.alone = self.alone or "EXCLUSIVE" in sql
        if sql == "PRAGMA journal_mode = WAL":
            raise error(self.code)
        if not self.alone and sql.startswith("SELECT"):
            super().execute("PRAGMA query_only")
            if super().execute("PRAGMA journal_mode").fetchone()[0] == "wal":
                raise error(self.code)
        return super().execute(sql, *parameters)


CODES = [
    "SQLITE_PROTOCOL",
    "SQLITE_IOERR_SHMMAP",
    "SQLITE_IOERR_SHMOPEN",
    "SQLITE_IOERR_SHMLOCK",
    "SQLITE_CANTOPEN",
]


@pytest.fixture(params=CODES)
def refusing(monkeypatch, request):
    connect = sqlite3.connect
    factory = type("Refusing", (Refusing,), {"code": getattr(sqlite3, request.param)})
    monkeypatch.setattr(
        sqlite3, "connect", lambda *args, **options: connect(*args, factory=factory, **options)
    )


@pytest.mark.parametrize("synchronous", ["full", "normal"])
def test_a_store_is_made_on_the_rollback_journal_and_waits_for_the_disk(path, refusing, synchronous):
    with SqliteStore(path, synchronous=synchronous) as store:
        assert settings_of(store) == ["delete", FULL]
        store.append(RUN, 0, log_of(RUN, 3))
    with SqliteStore(path, synchronous=synchronous) as store:
        assert settings_of(store) == ["delete", FULL]
        assert store.latest_seq(RUN) == 3
        assert store.integrity_problems() == []


def test_a_store_that_was_made_elsewhere_loses_nothing(path, refusing, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", sqlite3.Connection)
        with SqliteStore(path) as store:
            store.append(RUN, 0, log_of(RUN, 3))
            assert settings_of(store)[0] == "wal"
    with SqliteStore(path) as store:
        assert settings_of(store) == ["delete", FULL]
        store.append(RUN, 3, log_of(RUN, 2, first=4))
        assert [event.data for event in read_log(store, RUN)] == [event.data for event in log_of(RUN, 5)]


@pytest.fixture(params=["vfs=unix-none", "nolock=1", "vfs=unix-dotfile"])
def without_shared_memory(monkeypatch, request):
    """Have SQLite itself open files through a layer that knows no shared memory."""
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda name, **options: connect(f"{name}&{request.param}", **options)
    )


def test_a_file_without_shared_memory_is_a_store(path, without_shared_memory):
    with SqliteStore(path) as store:
        assert settings_of(store) == ["delete", FULL]
        store.append(RUN, 0, log_of(RUN, 3), [Artifact("0" * 64, "output", b"")])
    with SqliteStore(path) as store:
        assert read_log(store, RUN) == log_of(RUN, 3)


def test_commits_that_wait_in_a_write_ahead_log_are_read_without_shared_memory(tmp_path, request):
    """As when a folder is copied to a network: the -wal comes with it."""
    made, path = tmp_path / "made.db", tmp_path / "runs.db"
    with SqliteStore(made) as store:
        store.append(RUN, 0, log_of(RUN, 3))
        for ending in ("", "-wal"):
            (tmp_path / f"runs.db{ending}").write_bytes((tmp_path / f"made.db{ending}").read_bytes())
    assert (tmp_path / "runs.db-wal").stat().st_size > 0
    request.getfixturevalue("without_shared_memory_once")
    with SqliteStore(path) as store:
        assert settings_of(store) == ["delete", FULL]
        assert read_log(store, RUN) == log_of(RUN, 3)


@pytest.fixture
def without_shared_memory_once(monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda name, **options: connect(f"{name}&vfs=unix-none", **options)
    )


def test_an_error_of_locks_that_stays_says_what_to_do(path, monkeypatch):
    def refused(*args, **options):
        raise error(sqlite3.SQLITE_PROTOCOL)

    with SqliteStore(path) as store, closing(store):
        store.append(RUN, 0, log_of(RUN, 1))
    monkeypatch.setattr(sqlite_open, "connect", refused)
    with pytest.raises(StoreError) as caught:
        SqliteStore(path)
    assert (caught.value.code, "network folder" in caught.value.hint) == ("store_failed", True)
