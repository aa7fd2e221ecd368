"""The store's key replaced and a run's deleted: no log changes, and no kill leaves a store without its key."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path

import pytest

from machine.errors import Code, SecretKeyError, UsageError
from machine.secrets import key_changes, store_key
from machine.secrets.key_changes import FROM_ENVIRONMENT, forget_run, rotate_key
from machine.secrets.sealing import StoreKey, open_seal, seal
from machine.secrets.store_key import KEY_VARIABLE, key_of, open_keys
from machine.stores import MemoryStore, SqliteStore, sqlite_keys
from machine.testing.store_samples import log_of, run_id_of

RUN, OTHER, THIRD = run_id_of(1), run_id_of(2), run_id_of(3)
GIVEN = StoreKey(b"g" * 32)


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


@pytest.fixture
def place(tmp_path):
    """Give the file of a store that holds a run and two data keys."""
    path = tmp_path / "runs.db"
    with SqliteStore(path) as store:
        store.append(RUN, 0, log_of(RUN, 3))
        for run_id in (RUN, OTHER):
            open_keys(store).data_key(run_id, create=True)
    return path


@pytest.fixture
def given(tmp_path):
    return key_file(tmp_path / "given", GIVEN)


def key_file(path, key):
    path.touch(0o600)
    path.write_text(key.key.hex())
    return str(path)


def data_keys(path):
    with SqliteStore(path, create=False) as store:
        keys = open_keys(store)
        opened = [keys.data_key(run_id) for run_id, _ in store.data_keys()]
        assert keys.problem is None
        return opened


def rotated(path, new_key=None):
    with SqliteStore(path, create=False) as store:
        return rotate_key(store, new_key)


def noted(path):
    with SqliteStore(path, create=False) as store:
        return store.secret_key_id()


def files(path):
    return sorted(each.name for each in path.parent.iterdir() if each.name.startswith("runs.db"))


def test_a_key_that_is_made_replaces_the_key_file(place):
    before, old = data_keys(place), noted(place)
    with SqliteStore(place) as store:
        log = list(store.read_range(RUN))
        wrapped = store.data_keys()
        driver = open_keys(store)
        driver.data_key(RUN)
        done = rotate_key(store)
        assert list(store.read_range(RUN)) == log
        assert store.integrity_problems() == []
        assert not {key for _, key in store.data_keys()} & {key for _, key in wrapped}
        assert driver.data_key(RUN) == before[0]
        assert driver.data_key(OTHER) == before[1]  # not opened before
    key = Path(f"{place}.key")
    assert (done.old_id, done.new_id, done.data_keys, done.key_file) == (old, noted(place), 2, key)
    assert done.new_id != old
    assert key_of(key.read_text(), "").id == done.new_id
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert data_keys(place) == before
    assert files(place) == ["runs.db", "runs.db.key"]


def test_a_run_that_is_driven_can_seal_after_a_rotation(place):
    with SqliteStore(place) as store, SqliteStore(place) as other:
        keys = open_keys(store)
        sealed = seal(keys.data_key(RUN), b"value", ("2",))
        rotate_key(other)
        rotate_key(other)
        assert open_seal(keys.data_key(RUN), sealed, ("2",)) == b"value"
        assert open_keys(other).data_key(THIRD) is None
        made = keys.data_key(THIRD, create=True)
        assert open_keys(other).data_key(THIRD) == made


def test_the_new_key_can_be_given(place, given):
    before = data_keys(place)
    done = rotated(place, given)
    assert done.new_id == noted(place) == GIVEN.id
    assert data_keys(place) == before
    assert Path(given).exists()
    with pytest.raises(UsageError, match="already"):
        rotated(place, given)


def test_the_key_can_move_to_the_environment(place, monkeypatch):
    before, old = data_keys(place), noted(place)
    with pytest.raises(UsageError, match="is not set"):
        rotated(place, FROM_ENVIRONMENT)
    monkeypatch.setenv(KEY_VARIABLE, GIVEN.key.hex())
    done = rotated(place, FROM_ENVIRONMENT)
    assert (done.old_id, done.new_id, done.data_keys, done.key_file) == (old, GIVEN.id, 2, None)
    assert data_keys(place) == before
    assert files(place) == ["runs.db"]
    assert rotated(place, FROM_ENVIRONMENT).data_keys == 0
    # and there from one to the next
    with pytest.raises(UsageError, match="could not be put"):
        rotated(place)
    monkeypatch.setenv(KEY_VARIABLE, "22" * 32)
    with pytest.raises(SecretKeyError, match="is not in") as caught:
        rotated(place, FROM_ENVIRONMENT)
    assert caught.value.code == Code.SECRET_KEY_MISSING
    monkeypatch.setenv(KEY_VARIABLE, GIVEN.key.hex())
    done = rotated(place, key_file(place.with_name("next"), StoreKey(b"\x22" * 32)))
    assert done.key_file is None
    monkeypatch.setenv(KEY_VARIABLE, "22" * 32)
    assert data_keys(place) == before


@pytest.mark.parametrize(
    ("new_key", "error", "code"),
    [
        ("nothing here", UsageError, Code.USAGE),
        ("a directory", SecretKeyError, Code.SECRET_KEY_INVALID),
        ("bad text", SecretKeyError, Code.SECRET_KEY_INVALID),
        ("for everybody", SecretKeyError, Code.SECRET_KEY_EXPOSED),
    ],
)
def test_a_bad_new_key_changes_nothing(place, monkeypatch, new_key, error, code):
    monkeypatch.chdir(place.parent)
    Path("a directory").mkdir()
    Path("bad text").touch(0o600)
    key_file(Path("for everybody"), GIVEN)
    Path("for everybody").chmod(0o644)
    before, listed = data_keys(place), files(place)
    with SqliteStore(place) as store:
        wrapped = store.data_keys()
        with pytest.raises(error) as caught:
            rotate_key(store, new_key)
        assert caught.value.code == code
        assert store.data_keys() == wrapped
    assert (data_keys(place), files(place)) == (before, listed)


def test_without_the_present_key_nothing_is_changed(place, given):
    kept = Path(f"{place}.key").rename(place.with_name("kept"))
    for new_key in (None, given):
        with pytest.raises(SecretKeyError) as caught:
            rotated(place, new_key)
        assert caught.value.code == Code.SECRET_KEY_MISSING
    assert files(place) == ["runs.db"]
    kept.rename(f"{place}.key")
    assert data_keys(place)


def test_a_data_key_that_does_not_open_is_named(place):
    with SqliteStore(place) as store:
        store.add_data_key(THIRD, store.secret_key_id(), b"damaged")
        wrapped = store.data_keys()
        with pytest.raises(SecretKeyError, match=THIRD):
            rotate_key(store)
        assert store.data_keys() == wrapped
        assert files(place) == ["runs.db", "runs.db-shm", "runs.db-wal", "runs.db.key"]
        assert forget_run(store, THIRD).had_one
        assert rotate_key(store).data_keys == 2


def test_a_store_without_secrets_has_no_key_to_replace(tmp_path):
    with SqliteStore(tmp_path / "runs.db") as store:
        done = rotate_key(store)
    assert (done.old_id, done.new_id, done.data_keys, done.key_file) == (None, None, 0, None)
    assert files(tmp_path / "runs.db") == ["runs.db"]
    with pytest.raises(UsageError, match="in memory"):
        rotate_key(MemoryStore())


def test_a_rotation_that_comes_second_changes_nothing(place, monkeypatch):
    before = data_keys(place)
    put = key_changes.put_key

    def another_first(path, key):
        put(path, key)
        monkeypatch.setattr(key_changes, "put_key", put)
        rotated(place)

    monkeypatch.setattr(key_changes, "put_key", another_first)
    with pytest.raises(SecretKeyError) as caught:
        rotated(place)
    assert caught.value.code == Code.SECRET_KEY_WRONG
    assert data_keys(place) == before
    rotated(place)
    assert data_keys(place) == before
    assert files(place) == ["runs.db", "runs.db.key"]


# killed


def killed_at(step, path, new_key):
    """Rotate in a child that dies before the line that it comes to as this one; False when it did not."""
    child = os.fork()
    if child == 0:
        files_of = {module.__file__ for module in (key_changes, store_key, sqlite_keys)}
        seen = set()

        def count(frame, event, _):
            if frame.f_code.co_filename not in files_of:
                return None
            if event == "line":
                seen.add((frame.f_code.co_filename, frame.f_lineno))
                if len(seen) > step:
                    os._exit(9)
            return count

        code = 1
        try:
            with SqliteStore(path, create=False) as store:
                sys.settrace(count)
                rotate_key(store, new_key)
            code = 0
        finally:
            os._exit(code)
    return {0: False, 9: True}[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]


@pytest.mark.slow
@pytest.mark.parametrize("new_key", [None, FROM_ENVIRONMENT])
def test_a_rotation_that_is_killed_leaves_a_store_that_opens(place, monkeypatch, new_key):
    before, old = data_keys(place), noted(place)
    if new_key:
        monkeypatch.setenv(KEY_VARIABLE, GIVEN.key.hex())
    step, ended = 0, set()
    while True:
        copy = place.parent / f"at {step}" / place.name
        copy.parent.mkdir()
        for each in place.parent.glob("runs.db*"):
            shutil.copy(each, copy.parent)
        killed = killed_at(step, copy, new_key)
        now = noted(copy)
        ended.add((killed, now == old))
        if new_key and now == old:
            monkeypatch.delenv(KEY_VARIABLE)  # whoever has both keys has the one that is noted
        assert data_keys(copy) == before
        if new_key:
            monkeypatch.setenv(KEY_VARIABLE, GIVEN.key.hex())
        # and the next one finishes it, and leaves nothing behind
        rotated(copy, new_key)
        assert data_keys(copy) == before
        assert files(copy) == (["runs.db"] if new_key else ["runs.db", "runs.db.key"])
        shutil.rmtree(copy.parent)
        if not killed:
            break
        step += 1
    assert step > 30
    assert ended == {(True, True), (True, False), (False, False)}


# forgotten


def test_a_forgotten_run_has_no_key_and_the_others_do(place):
    before = data_keys(place)
    with SqliteStore(place) as store:
        keys = open_keys(store)
        keys.share(RUN, THIRD)
        assert forget_run(store, RUN) == key_changes.Forgotten(had_one=True, also_held_by=(THIRD,))
        assert forget_run(store, RUN) == key_changes.Forgotten(had_one=False, also_held_by=())
        assert open_keys(store).data_key(RUN) is None
        assert [run_id for run_id, _ in store.data_keys()] == [OTHER, THIRD]
        assert open_keys(store).data_key(THIRD) == before[0]
        assert forget_run(store, OTHER).also_held_by == ()
        again = open_keys(store).data_key(RUN, create=True)
        assert again != before[0]


def test_a_run_can_be_forgotten_without_the_key(place):
    Path(f"{place}.key").unlink()
    with SqliteStore(place) as store:
        store.add_data_key(THIRD, store.secret_key_id(), b"damaged")
        assert forget_run(store, RUN).had_one
        assert forget_run(store, THIRD) == key_changes.Forgotten(had_one=True, also_held_by=())
