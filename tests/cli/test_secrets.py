"""`machine secrets`: what a person is told when keys are replaced and deleted, or cannot be."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from machine import open_store
from machine.secrets.store_key import KEY_VARIABLE, open_keys
from machine.testing.store_samples import run_id_of

OTHER = run_id_of(7)
STORE = "sqlite:///.machine/runs.db"
KEY = Path(".machine/runs.db.key")


@pytest.fixture
def sealed(recorded, monkeypatch):
    """Give a run that has a data key, as one has that has sealed a secret."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with open_store(STORE) as store:
        open_keys(store).data_key(recorded, create=True)
    return recorded


def key_of(run_id):
    with open_store(STORE) as store:
        return open_keys(store).data_key(run_id)


def test_a_key_is_replaced_and_it_is_said_where_it_is(machine, sealed):
    before, text = key_of(sealed), KEY.read_text()
    said = machine("secrets", "rotate-key")
    assert said.code == 0, said.err
    assert str(KEY.absolute()) in said.out
    assert KEY.read_text() != text
    assert KEY.read_text().strip() not in said.out + said.err
    assert key_of(sealed) == before
    assert machine("verify", sealed).code == 0
    told = machine("secrets", "rotate-key", "--json").json
    assert told["data_keys"] == 1
    assert told["key_file"] == str(KEY.absolute())
    assert told["old_key"] != told["new_key"]


def test_a_key_is_moved_to_the_environment(machine, sealed, monkeypatch):
    before = key_of(sealed)
    monkeypatch.setenv(KEY_VARIABLE, "11" * 32)
    said = machine("secrets", "rotate-key", "--new-key", "env")
    assert said.code == 0, said.err
    assert KEY_VARIABLE in said.out
    assert key_of(sealed) == before
    assert not KEY.exists()
    new = Path("new")
    new.touch(0o600)
    new.write_text("22" * 32)
    said = machine("secrets", "rotate-key", "--new-key", new)
    assert f"set {KEY_VARIABLE} to the new key" in said.err
    monkeypatch.setenv(KEY_VARIABLE, "22" * 32)
    assert key_of(sealed) == before


def test_a_store_without_secrets_is_told_so(machine, recorded):
    said = machine("secrets", "rotate-key")
    assert said.code == 0
    assert "no key to replace" in said.out
    assert machine("secrets", "rotate-key", "--json").json == {
        "old_key": None,
        "new_key": None,
        "data_keys": 0,
        "key_file": None,
    }


def missing():
    KEY.unlink()


def wrong():
    KEY.write_text("33" * 32)


def exposed():
    KEY.chmod(0o644)


def no_text():
    KEY.write_text("my key")


def a_directory():
    KEY.unlink()
    KEY.mkdir()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (missing, "missing"),
        (wrong, "wrong"),
        (exposed, "exposed"),
        (no_text, "invalid"),
        (a_directory, "invalid"),
    ],
)
def test_a_bad_key_is_a_sentence_with_a_way_on(machine, sealed, spoil, code):
    spoil()
    said = machine("secrets", "rotate-key")
    assert said.code == 2
    assert said.err.startswith(f"error[secret_key_{code}]: ")
    assert "\nhint: " in said.err
    assert "Traceback" not in said.err
    assert machine("secrets", "rotate-key", "--json").json["error"]["code"] == f"secret_key_{code}"
    # a run is readable without it, and can be forgotten
    assert machine("verify", sealed).code == machine("show", sealed).code == 0
    assert machine("secrets", "forget", sealed).code == 0


@pytest.mark.parametrize("new_key", ["nothing here", ".", "", "--x"])
def test_a_bad_new_key_is_refused(machine, sealed, new_key):
    said = machine("secrets", "rotate-key", "--new-key", new_key)
    assert said.code == 2, said
    assert "Traceback" not in said.err
    assert key_of(sealed)


def test_a_run_is_forgotten(machine, sealed):
    with open_store(STORE) as store:
        open_keys(store).share(sealed, OTHER)
    said = machine("secrets", "forget", sealed[:-2])
    assert said.code == 0
    assert "deleted" in said.out
    assert f"machine secrets forget {OTHER}" in said.err
    assert key_of(sealed) is None
    told = machine("secrets", "forget", sealed, "--json").json
    assert told == {"run_id": sealed, "forgotten": False, "also_held_by": []}
    assert machine("verify", sealed).code == 0


def test_what_is_no_run_is_not_forgotten(machine, sealed):
    assert machine("secrets", "forget", "ffffffff").code == 5
    assert machine("secrets", "forget", "a.run").code == 2
    assert machine("secrets", "forget").code == 2
    assert machine("secrets", "dance").code == 2
    assert machine("secrets", "rotate-key", "--store", "sqlite:///none.db").code == 5


def test_a_run_that_is_driven_is_not_forgotten(machine, sealed):
    with open_store(STORE) as store:
        lease = store.acquire(sealed, "somebody", 60_000)
        said = machine("secrets", "forget", sealed)
        assert said.code == 1
        assert said.err.startswith("error[run_leased]: ")
        assert key_of(sealed)
        store.release(lease)
    assert machine("secrets", "forget", sealed).code == 0


def typed(words, answer, environment):
    """Return the exit code of a command on a terminal whose user types one line, and what is on the screen."""
    main, side = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "machine", *words],
        stdin=side,
        stdout=side,
        stderr=side,
        env={**environment, "TERM": "xterm"},
    )
    os.close(side)
    os.write(main, answer)
    screen = b""
    while True:
        try:
            screen += os.read(main, 65536)
        except OSError:
            break
    os.close(main)
    return child.wait(timeout=20), screen.decode()


def test_on_a_terminal_it_asks_first(sealed, environment):
    words = ("secrets", "forget", sealed)
    code, screen = typed(words, b"n\n", environment)
    assert code == 130
    assert sealed in screen
    assert "nothing was deleted" in screen
    assert typed(words, b"\n", environment)[0] == 130
    assert key_of(sealed)
    assert typed((*words, "--yes"), b"", environment)[0] == 0
    assert key_of(sealed) is None
    assert typed(words, b"y\n", environment)[0] == 0
