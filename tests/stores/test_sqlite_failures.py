"""When the medium refuses, nothing is written, the error says why, and the store works again afterwards."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from machine.canonical import artifact_id
from machine.errors import Code, OtherStoreError
from machine.stores import Artifact, SqliteStore
from machine.stores.sqlite_errors import os_error, store_error
from machine.testing.store_samples import log_of, run_id_of

RUN = run_id_of(1)
LARGE = bytes(range(256)) * 8192
NOBODY = 65534


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.db"


def large():
    return Artifact(artifact_id(LARGE), "output", LARGE)


def refused(store, code):
    """Assert that both ways of writing are refused with `code` and leave nothing behind."""
    before = store.latest_seq(RUN)
    for write in (
        lambda: store.append(RUN, before, log_of(RUN, 2, first=before + 1), [large()]),
        lambda: store.put("output", LARGE),
    ):
        with pytest.raises(OtherStoreError) as caught:
            write()
        assert caught.value.code == code, caught.value
        assert caught.value.hint
    assert store.latest_seq(RUN) == before
    assert not store.exists(artifact_id(LARGE))
    assert store.integrity_problems() == []


def accepted(store):
    before = store.latest_seq(RUN)
    store.append(RUN, before, log_of(RUN, 2, first=before + 1), [large()])
    assert store.get(artifact_id(LARGE)) == LARGE
    assert store.latest_seq(RUN) == before + 2


def test_a_database_at_its_size_limit_is_full(path):
    with SqliteStore(path) as store:
        store.append(RUN, 0, log_of(RUN, 2))
        store._session.conn.execute("PRAGMA max_page_count = 40")
        refused(store, Code.STORE_FULL)
        store._session.conn.execute("PRAGMA max_page_count = 4294967294")
        accepted(store)


def test_a_file_at_its_size_limit_is_full(path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with SqliteStore(path) as store:
        store.append(RUN, 0, log_of(RUN, 2))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        try:
            refused(store, Code.STORE_FULL)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        accepted(store)


def test_a_store_that_cannot_be_made_for_lack_of_room_is_made_later(path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(OtherStoreError) as caught:
            SqliteStore(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.code == Code.STORE_FULL
    with SqliteStore(path) as store:
        accepted(store)


def test_a_store_that_stays_locked_is_busy(path):
    with SqliteStore(path, busy_timeout=0.05) as store, closing(sqlite3.connect(path)) as other:
        store.append(RUN, 0, log_of(RUN, 2))
        other.execute("BEGIN IMMEDIATE")
        refused(store, Code.STORE_BUSY)
        other.rollback()
        accepted(store)


def test_busy_is_worth_another_try(path):
    with SqliteStore(path, busy_timeout=0) as store, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OtherStoreError) as caught:
            store.put("output", b"")
    assert caught.value.info.retryable


def test_a_value_beyond_sqlites_own_limit_is_too_large(path):
    with SqliteStore(path) as store:
        store._session.conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1 << 20)
        with pytest.raises(OtherStoreError) as caught:
            store.put("output", LARGE)
    assert caught.value.code == Code.ARTIFACT_TOO_LARGE


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_was_moved_under_us_is_not_written(path, replaced):
    with SqliteStore(path) as store:
        store.append(RUN, 0, log_of(RUN, 1))
        path.rename(path.with_name("elsewhere.db"))
        if replaced:
            path.touch()
        for write in (
            lambda: store.append(RUN, 1, log_of(RUN, 1, first=2)),
            lambda: store.put("output", b"lost"),
        ):
            with pytest.raises(OtherStoreError) as caught:
                write()
            assert caught.value.code == Code.STORE_FAILED
            assert "moved or deleted" in caught.value.message


def test_errors_nobody_foresaw_are_store_errors():
    assert store_error(sqlite3.InterfaceError("odd"), "x.db").code == Code.STORE_FAILED
    assert os_error(OSError("odd"), "x.db").code == Code.STORE_FAILED
    assert os_error(OSError(28, "No space left"), "x.db").code == Code.STORE_FULL


# read-only places


@contextmanager
def read_only(directory, *, directory_mode=0o555, file_mode=0o444):
    """Take the permission to write away, from root too."""
    for file in directory.iterdir():
        file.chmod(file_mode)
    directory.chmod(directory_mode)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        directory.chmod(0o700)


@pytest.fixture
def place():
    """Make a directory that anybody can reach, as those of pytest cannot be."""
    directory = Path(tempfile.mkdtemp())
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def written(place):
    path = place / "runs.db"
    with SqliteStore(path) as store:
        store.append(RUN, 0, log_of(RUN, 3))
    return path


@pytest.mark.parametrize("modes", [(0o555, 0o444), (0o555, 0o666), (0o777, 0o444)])
def test_a_read_only_store_can_be_read_but_not_written(written, modes):
    with read_only(written.parent, directory_mode=modes[0], file_mode=modes[1]):
        with SqliteStore(written) as store:
            assert list(store.read_range(RUN)) == log_of(RUN, 3)
            assert [row.run_id for row in store.list_runs().rows] == [RUN]
            refused(store, Code.STORE_READ_ONLY)
        with SqliteStore(written, create=False) as store:
            assert store.latest_seq(RUN) == 3


@pytest.mark.parametrize(
    ("version", "modes"),
    [(1, (0o555, 0o444)), (1, (0o555, 0o666)), (1, (0o777, 0o444)), (2, (0o555, 0o444)), (3, (0o555, 0o444))],
)
def test_a_read_only_store_of_an_older_version_can_be_read_but_not_written(place, version, modes, request):
    log = request.getfixturevalue(f"version_{version}")(place / "runs.db")
    with (
        read_only(place, directory_mode=modes[0], file_mode=modes[1]),
        SqliteStore(place / "runs.db") as store,
    ):
        assert list(store.read_range(RUN)) == log
        assert store.run_row(RUN).invocation_key is store.run_row(RUN).wake_ms is None
        assert store.due_runs(2**60) == store.integrity_problems() == []
        assert [row.run_id for row in store.list_runs(status="interrupted").rows] == [RUN]
        assert store.find_runs("") == [RUN]
        assert store.lease_of(RUN) is store.find_invocation("key") is None
        assert store.inbox(RUN) == store.data_keys() == []
        assert store.data_key(RUN) is store.secret_key_id() is None
        refused(store, Code.STORE_READ_ONLY)
        for write in (
            lambda: store.acquire(RUN, "one", 1_000),
            lambda: store.post(RUN, "signal", 1),
            store.secret_key,
            lambda: store.add_data_key(RUN, "key", b"wrapped"),
        ):
            with pytest.raises(OtherStoreError) as caught:
                write()
            assert caught.value.code == Code.STORE_READ_ONLY


def test_commits_in_a_wal_that_cannot_be_read_are_not_passed_over(place):
    path = place / "runs.db"
    with SqliteStore(place / "live.db") as store:
        store.append(RUN, 0, log_of(RUN, 3))
        shutil.copy(place / "live.db", path)
        shutil.copy(place / "live.db-wal", f"{path}-wal")
    with read_only(place), pytest.raises(OtherStoreError, match="-wal") as caught:
        SqliteStore(path)
    assert caught.value.code == Code.STORE_READ_ONLY
    with SqliteStore(path) as store:
        assert store.latest_seq(RUN) == 3


def test_a_store_cannot_be_made_in_a_read_only_directory(place):
    for path in (place / "runs.db", place / "new" / "runs.db"):
        with read_only(place), pytest.raises(OtherStoreError) as caught:
            SqliteStore(path)
        assert caught.value.code == Code.STORE_READ_ONLY
    assert list(place.iterdir()) == []


def test_a_store_that_may_not_be_read_says_so(written):
    with read_only(written.parent, file_mode=0), pytest.raises(OtherStoreError) as caught:
        SqliteStore(written)
    assert caught.value.code in {Code.STORE_READ_ONLY, Code.STORE_FAILED}


def test_a_file_that_is_gone_is_a_problem_and_not_an_error(path):
    with SqliteStore(path) as store:
        path.unlink()
        assert "moved or deleted" in store.integrity_problems()[0]


def test_a_header_that_is_gone_is_a_problem_and_not_an_error(path):
    with SqliteStore(path) as store:
        store._session.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with path.open("r+b") as file:
            file.write(b"no database")
        assert "damaged" in store.integrity_problems()[0]
