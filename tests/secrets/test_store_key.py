"""The key of a store's secrets: where it is found, who makes it, and what is said of a bad one."""

from __future__ import annotations

import base64
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from machine import Plan, run
from machine.errors import Code, OtherStoreError, SecretKeyError
from machine.secrets.key_changes import forget_run, rotate_key
from machine.secrets.sealing import StoreKey, open_seal, seal, wrapped_anew
from machine.secrets.store_key import KEY_VARIABLE, key_of, open_keys, store_key_of
from machine.stores import MemoryStore, SqliteStore
from machine.testing.store_samples import log_of, run_id_of

RUN, OTHER, THIRD = run_id_of(1), run_id_of(2), run_id_of(3)
PLACE = ("2", "", "http", "digest", "payload")
NOBODY = 65534


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    return tmp_path / "runs.db"


@pytest.fixture
def store(path):
    with closing(SqliteStore(path)) as opened:
        yield opened


@pytest.fixture
def key_file(store):
    return store.secret_key_file


def names(path):
    return sorted(each.name for each in path.parent.iterdir())


def problem(store, code, run_id=RUN):
    """Return what is said of a key that cannot be used; nothing raises but what is to make a key."""
    keys = open_keys(store)
    assert keys.data_key(run_id) is None
    with pytest.raises(SecretKeyError) as caught:
        keys.data_key(run_id, create=True)
    with pytest.raises(SecretKeyError) as another:
        open_keys(store).data_key(OTHER, create=True)
    assert store.data_key(OTHER) is None
    for exc in (caught.value, another.value, keys.problem or caught.value):
        assert exc.code == code
        assert exc.hint
    return str(caught.value)


# made when it is first needed


def test_nothing_is_made_before_a_key_is_needed(store, path, key_file):
    keys = open_keys(store)
    store.append(RUN, 0, log_of(RUN, 1))
    assert keys.data_key(RUN) is keys.problem is None
    assert not key_file.exists()
    assert store.secret_key_id() is None
    assert key_file == path.with_name("runs.db.key")


def test_the_first_data_key_makes_a_key_file_for_the_owner_alone(store, path, key_file):
    before = os.umask(0)
    try:
        key = open_keys(store).data_key(RUN, create=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert key_of(key_file.read_text(), "").id == store.secret_key_id()
    assert [name for name in names(path) if "key" in name] == ["runs.db.key"]
    assert open_keys(store).data_key(RUN) == key
    # neither key is in the store itself
    stored = b"".join(each.read_bytes() for each in path.parent.iterdir() if each != key_file)
    for secret in (key.key, key_of(key_file.read_text(), "").key):
        assert secret not in stored
        assert secret.hex().encode() not in stored


def test_each_run_has_a_data_key_of_its_own(store):
    keys = open_keys(store)
    first, second = (keys.data_key(run_id, create=True) for run_id in (RUN, OTHER))
    assert first != second
    assert keys.data_key(RUN) is first
    sealed = seal(first, b"value", PLACE)
    assert open_seal(open_keys(store).data_key(RUN), sealed, PLACE) == b"value"


def test_a_data_key_is_opened_once(store, monkeypatch):
    key = open_keys(store).data_key(RUN, create=True)
    keys, asked = open_keys(store), []
    read = SqliteStore.data_key
    monkeypatch.setattr(SqliteStore, "data_key", lambda self, run: asked.append(run) or read(self, run))
    assert [keys.data_key(RUN) for _ in range(5)] == [key] * 5
    assert asked == [RUN]


def test_a_store_in_memory_keeps_its_own_key(monkeypatch):
    store = MemoryStore()
    key = open_keys(store).data_key(RUN, create=True)
    assert open_keys(MemoryStore(shared_with=store)).data_key(RUN) == key
    assert open_keys(MemoryStore()).data_key(RUN) is None
    monkeypatch.setenv(KEY_VARIABLE, "of other stores")
    assert open_keys(store).data_key(RUN) == key


def test_a_key_file_that_is_there_is_used(store, key_file):
    key = StoreKey(bytes(range(32)))
    key_file.touch(0o600)
    key_file.write_text(base64.b64encode(key.key).decode())
    open_keys(store).data_key(RUN, create=True)
    assert store.secret_key_id() == key.id


def test_the_key_file_is_beside_the_file_that_a_link_leads_to(store, path, tmp_path):
    key = open_keys(store).data_key(RUN, create=True)
    link = tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(path)
    with SqliteStore(link) as other:
        assert open_keys(other).data_key(RUN) == key


# the variable


@pytest.mark.parametrize(
    "spelled",
    [
        bytes(range(32)).hex(),
        f" {bytes(range(32)).hex().upper()}\n",
        base64.b64encode(bytes(range(32))).decode(),
        base64.b64encode(bytes(range(32))).decode().rstrip("="),
        base64.urlsafe_b64encode(bytes(range(220, 252))).decode(),
    ],
)
def test_the_variable_is_the_key(store, key_file, monkeypatch, spelled):
    monkeypatch.setenv(KEY_VARIABLE, spelled)
    key = open_keys(store).data_key(RUN, create=True)
    assert not key_file.exists()
    assert open_keys(store).data_key(RUN) == key
    assert store.secret_key_id() in {StoreKey(bytes(range(a, a + 32))).id for a in (0, 220)}
    monkeypatch.delenv(KEY_VARIABLE)
    problem(store, Code.SECRET_KEY_MISSING)
    assert not key_file.exists()


def test_an_empty_variable_is_none(store, key_file, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "")
    assert open_keys(store).data_key(RUN, create=True)
    assert key_file.exists()


@pytest.mark.parametrize(
    "bad", ["key", "0" * 63, "0" * 65, "g" * 64, "AA" * 21, "=" * 44, "\u00e4" * 64, " ", "0x" + "0" * 62]
)
def test_bad_text_is_no_key(store, key_file, monkeypatch, bad):
    monkeypatch.setenv(KEY_VARIABLE, bad)
    said = problem(store, Code.SECRET_KEY_INVALID)
    assert KEY_VARIABLE in said
    assert bad in {" ", "key"} or bad not in said
    monkeypatch.delenv(KEY_VARIABLE)
    key_file.touch(0o600)
    key_file.write_text(bad)
    assert str(key_file) in problem(store, Code.SECRET_KEY_INVALID)
    assert key_file.read_text() == bad


# missing, wrong, exposed, and what is no file


def test_a_missing_key_is_not_made_again(store, key_file):
    open_keys(store).data_key(RUN, create=True)
    kept = key_file.read_text()
    key_file.unlink()
    said = problem(store, Code.SECRET_KEY_MISSING)
    assert str(key_file) in said
    assert not key_file.exists()
    key_file.touch(0o600)
    key_file.write_text(kept)
    assert open_keys(store).data_key(RUN)


def test_the_key_of_another_store_is_wrong(store, path, key_file, monkeypatch):
    key = open_keys(store).data_key(RUN, create=True)
    with SqliteStore(path.with_name("other.db")) as other:
        open_keys(other).data_key(RUN, create=True)
        shutil.copy(key_file, kept := path.with_name("kept"))
        shutil.copy(other.secret_key_file, key_file)
    said = problem(store, Code.SECRET_KEY_WRONG)
    assert str(key_file) in said
    assert store.secret_key_id() in said
    # the variable decides when it is set, right or wrong
    monkeypatch.setenv(KEY_VARIABLE, kept.read_text())
    assert open_keys(store).data_key(RUN) == key
    shutil.copy(kept, key_file)
    monkeypatch.setenv(KEY_VARIABLE, "11" * 32)
    assert KEY_VARIABLE in problem(store, Code.SECRET_KEY_WRONG)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o666, 0o602])
def test_a_key_file_open_to_others_is_refused(store, key_file, mode):
    open_keys(store).data_key(RUN, create=True)
    key_file.chmod(mode)
    assert f"chmod 600 {key_file}" in problem(store, Code.SECRET_KEY_EXPOSED)
    assert stat.S_IMODE(key_file.stat().st_mode) == mode
    key_file.chmod(0o400)
    assert open_keys(store).data_key(RUN)


def test_what_is_no_file_is_no_key(store, key_file):
    key_file.mkdir(0o700)
    assert "not a regular file" in problem(store, Code.SECRET_KEY_INVALID)
    key_file.rmdir()
    os.mkfifo(key_file, 0o600)
    assert "not a regular file" in problem(store, Code.SECRET_KEY_INVALID)
    key_file.unlink()
    key_file.symlink_to(key_file)
    problem(store, Code.SECRET_KEY_MISSING)
    key_file.unlink()
    key_file.touch(0o600)
    key_file.write_bytes(b"0" * (1 << 20))
    problem(store, Code.SECRET_KEY_INVALID)


@pytest.mark.parametrize(
    ("text", "mode", "code"),
    [("11" * 32, 0o644, Code.SECRET_KEY_EXPOSED), ("my key", 0o600, Code.SECRET_KEY_INVALID)],
)
def test_a_run_before_the_first_seal_is_refused_with_a_bad_key_file(store, key_file, text, mode, code):
    plan = Plan("sealing")

    @plan.state("a.read", side_effects="read_only_io")
    async def read(ctx, io, rec):
        await io.now()

    key_file.write_text(text)
    key_file.chmod(mode)
    with pytest.raises(SecretKeyError) as caught:
        run(plan, store=store)
    assert caught.value.code == code
    assert store.list_runs().rows == []
    key_file.unlink()
    assert run(plan, store=store).status == "completed"
    assert not key_file.exists()


def test_a_data_key_that_was_changed_is_a_problem_and_no_damage(store):
    open_keys(store).data_key(RUN, create=True)
    store.add_data_key(OTHER, store.secret_key_id(), store.data_key(RUN)[:-1] + b"x")
    store.add_data_key(THIRD, store.secret_key_id(), b"no key at all")
    for run_id in (OTHER, THIRD):
        keys = open_keys(store)
        assert keys.data_key(run_id) is None
        assert keys.problem.code == Code.SECRET_KEY_WRONG
        assert run_id in str(keys.problem)
    assert keys.data_key(RUN)
    assert keys.problem is None


# read-only


@pytest.fixture
def open_to_all():
    """Return a directory that anybody may enter: those of pytest are its user's alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not write")
def test_a_key_that_cannot_be_made_or_read_is_said_so(open_to_all):
    place = open_to_all / "place"
    place.mkdir()
    with SqliteStore(place / "runs.db") as store:
        os.chown(place, 0, 0)
        os.seteuid(NOBODY)
        try:
            keys = open_keys(store)
            with pytest.raises(SecretKeyError, match="cannot be made") as caught:
                keys.data_key(RUN, create=True)
            assert caught.value.code == Code.SECRET_KEY_MISSING
        finally:
            os.seteuid(0)
        assert store.secret_key_id() is None
        assert [name for name in names(place / "runs.db") if "key" in name] == []
        keys.data_key(RUN, create=True)
        os.seteuid(NOBODY)
        try:
            assert open_keys(store).data_key(RUN) is None
            problem(store, Code.SECRET_KEY_MISSING)
        finally:
            os.seteuid(0)


def test_a_read_only_store_gets_no_data_key(store, path, key_file):
    key = open_keys(store).data_key(RUN, create=True)
    store._session.conn.execute("PRAGMA query_only = ON")
    with pytest.raises(OtherStoreError) as caught:
        open_keys(store).data_key(OTHER, create=True)
    assert caught.value.code == Code.STORE_READ_ONLY
    assert open_keys(store).data_key(RUN) == key


# forks


def test_a_fork_has_the_key_of_its_past(store, key_file):
    key = open_keys(store).data_key(RUN, create=True)
    keys = open_keys(store)
    keys.share(RUN, OTHER)
    keys.share(THIRD, run_id_of(4))
    assert [run_id for run_id, _ in store.data_keys()] == [RUN, OTHER]
    assert open_keys(store).data_key(OTHER) == key
    key_file.unlink()
    with pytest.raises(SecretKeyError) as caught:
        open_keys(store).share(RUN, THIRD)
    assert caught.value.code == Code.SECRET_KEY_MISSING


def test_a_data_key_in_the_row_of_another_run_is_noticed(store, key_file):
    open_keys(store).data_key(RUN, create=True)
    store.add_data_key(OTHER, store.secret_key_id(), store.data_key(RUN))
    keys = open_keys(store)
    assert keys.data_key(OTHER) is None
    assert keys.problem.code == Code.SECRET_KEY_WRONG
    assert OTHER in str(keys.problem)
    before, held = key_file.read_bytes(), store.data_keys()
    with pytest.raises(SecretKeyError) as caught:
        rotate_key(store)
    assert caught.value.code == Code.SECRET_KEY_WRONG
    assert (key_file.read_bytes(), store.data_keys()) == (before, held)
    forget_run(store, OTHER)
    rotate_key(store)
    assert open_keys(store).data_key(RUN)


# several at once

FIRST = """
import sys
from machine.secrets.store_key import open_keys
from machine.stores import SqliteStore

with SqliteStore(sys.argv[1]) as store:
    keys = open_keys(store)
    print("ready", flush=True)
    sys.stdin.readline()
    print(keys.data_key(sys.argv[2], create=True).key.hex(), keys.data_key(sys.argv[3], create=True).key.hex())
"""


def test_processes_that_make_the_first_key_at_once_use_the_same(path):
    for round_ in range(3):
        place = path.with_name(f"{round_}.db")
        runs = [run_id_of(10 + number) for number in range(4)]
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", FIRST, place, RUN, run],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for run in runs
        ]
        for racer in racers:
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        ended = [racer.communicate(timeout=60) for racer in racers]
        assert [err for _, err in ended] == [""] * 4
        with SqliteStore(place) as store:
            keys = open_keys(store)
            for run, (out, _) in zip(runs, ended, strict=True):
                assert out.split() == [keys.data_key(RUN).key.hex(), keys.data_key(run).key.hex()]
        assert [name for name in names(place) if name.startswith(f"{round_}.db.key")] == [f"{round_}.db.key"]


def test_threads_that_make_the_first_key_at_once_use_the_same(store):
    keys = open_keys(store)
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: keys.data_key(RUN, create=True), range(8)))
    assert made == {open_keys(store).data_key(RUN)}


def test_a_key_that_is_replaced_between_two_looks_is_read_again(store, key_file, monkeypatch):
    key = open_keys(store).data_key(RUN, create=True)
    old, new = store_key_of(store), StoreKey(b"n" * 32)
    looked = SqliteStore.secret_key_id

    def replaced_after(self):
        noted = looked(self)
        monkeypatch.setattr(SqliteStore, "secret_key_id", looked)
        store.rewrap_data_keys(old.id, new.id, lambda wrapped: wrapped_anew(old, new, wrapped))
        key_file.write_text(new.key.hex())
        return noted

    monkeypatch.setattr(SqliteStore, "secret_key_id", replaced_after)
    assert open_keys(store).data_key(RUN) == key
    assert open_keys(store).data_key(OTHER, create=True)
