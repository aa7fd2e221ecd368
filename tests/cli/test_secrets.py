"""`machine secrets`: what a person is told when keys are replaced and deleted, or cannot be."""

from __future__ import annotations

import os
import pty
import re
import select
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


def typed(words, answers, environment):
    """Return the exit code of a command on a terminal whose user answers each prompt, and what is on the screen."""
    main, side = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "machine", *words],
        stdin=side,
        stdout=side,
        stderr=side,
        env={**environment, "TERM": "xterm"},
        start_new_session=True,  # away from the terminal that the tests may have
    )
    os.close(side)
    screen, left = b"", list(answers)
    while True:
        if not select.select([main], [], [], 30)[0]:
            child.kill()  # it waits for an answer that the test does not have
        try:
            piece = os.read(main, 65536)
        except OSError:
            break
        screen += piece
        if left and re.search(
            rb"(: |\[y/N\].*\s*)$", piece
        ):  # not before: what is typed early is thrown away
            os.write(main, left.pop(0))
    os.close(main)
    return child.wait(timeout=20), screen.decode()


def test_on_a_terminal_it_asks_first(sealed, environment):
    words = ("secrets", "forget", sealed)
    code, screen = typed(words, [b"n\n"], environment)
    assert code == 130
    assert sealed in screen
    assert "nothing was deleted" in screen
    assert typed(words, [b"\n"], environment)[0] == 130
    assert key_of(sealed)
    assert typed((*words, "--yes"), [], environment)[0] == 0
    assert key_of(sealed) is None
    assert typed(words, [b"y\n"], environment)[0] == 0


# -- bundles with secrets ----------------------------------------------------------------------------------------

READS = """
from machine import Plan

plan = Plan("reads")


@plan.state("a.read")
async def read(ctx, io, rec):
    await io.secret("SERVICE")
    ctx["done"] = True
"""
WORD = "correct horse"
OTHER_STORE = ("--store", "sqlite:///other.db")


@pytest.fixture
def reads(machine, write, monkeypatch):
    """Give a run that has read a secret."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.delenv("MACHINE_BUNDLE_PASSPHRASE", raising=False)
    monkeypatch.setenv("SERVICE", "s3cr3t-Value-Of-4-Service")
    write("reads.py", READS)
    return machine("run", "reads.py", "--json").json["run_id"]


@pytest.fixture
def word(monkeypatch):
    monkeypatch.setenv("MACHINE_BUNDLE_PASSPHRASE", WORD)


def key_file(name, text):
    Path(name).touch(0o600)
    Path(name).write_text(text)
    return name


def test_a_replay_says_why_it_did_not_open_the_secrets(machine, reads):
    replayed = ("replay", reads, "--target", "reads.py")
    assert machine(*replayed).err == ""
    KEY.chmod(0o644)
    assert "its mode is 0644; run `chmod 600" in machine(*replayed).err
    KEY.chmod(0o600)
    KEY.rename("kept")
    said = machine(*replayed)
    assert said.code == 0
    assert said.err.startswith("note: its secrets were not opened: the store ")
    assert "there is no key; put the key file back" in said.err
    machine("secrets", "forget", reads, "--yes")
    said = machine(*replayed)
    assert "their key is not here: it was deleted" in said.err
    assert machine(*replayed, "--json").err == ""


def test_secrets_go_from_store_to_store_with_a_passphrase(machine, reads, word):
    said = machine("export", reads, "--with-secrets", "-o", "a.run")
    assert said.code == 0
    assert said.err == (
        f"warning: the bundle has the secrets of run {reads}: with the passphrase, anybody can read them\n"
    )
    assert WORD not in said.out + said.err
    assert machine("export", reads, "--with-secrets", "-o", "b.run", "--json").json["secrets"] is True
    assert machine("export", reads, "-o", "c.run", "--json").json["secrets"] is False
    assert machine("verify", "a.run").code == 0
    told = machine("import", "a.run", *OTHER_STORE, "--json").json["imported"]
    assert [each["secrets"] for each in told] == [True]
    for store, opened in ((STORE, "opened"), (OTHER_STORE[1], "opened"), ("a.run", "placeholders")):
        said = machine("replay", reads, "--target", "reads.py", "--store", store, "--json")
        assert said.json["secrets"] == opened, said
    again = machine("import", "a.run", *OTHER_STORE)
    assert "the store has this run already" in again.err


def test_secrets_go_from_store_to_store_with_a_key(machine, reads):
    key = key_file("theirs", "77" * 32)
    said = machine("export", reads, "--with-secrets", "--recipient-key", key, "-o", "a.run")
    assert said.code == 0, said
    assert "77" * 32 not in said.out + said.err
    assert machine("import", "a.run", *OTHER_STORE).err.startswith("error[bundle_key_needed]: ")
    Path("raw").touch(0o600)
    Path("raw").write_bytes(bytes([0x77]) * 31 + b"\xff")
    assert machine("import", "a.run", "--recipient-key", "raw", *OTHER_STORE).code == 2
    assert not Path("other.db").exists()
    assert machine("import", "a.run", "--recipient-key", key, *OTHER_STORE).code == 0


def test_a_wrong_passphrase_writes_nothing_of_any_bundle(machine, reads, word, monkeypatch):
    machine("export", reads, "-o", "plain.run")
    machine("export", reads, "--with-secrets", "-o", "a.run")
    monkeypatch.setenv("MACHINE_BUNDLE_PASSPHRASE", "incorrect")
    said = machine("import", "plain.run", "a.run", *OTHER_STORE)
    assert said.code == 2
    assert said.err.startswith("error[bundle_key_wrong]: a.run: ")
    assert "nothing was written" in said.err
    assert not Path("other.db").exists()
    monkeypatch.setenv("MACHINE_BUNDLE_PASSPHRASE", "")
    said = machine("import", "a.run", *OTHER_STORE, "--json")
    assert (said.code, said.json["error"]["code"]) == (2, "bundle_key_needed")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--with-secrets",), "usage"),
        (("--recipient-key", "theirs"), "usage"),
        (("--with-secrets", "--recipient-key", "nothing"), "usage"),
        (("--with-secrets", "--recipient-key", "exposed"), "secret_key_exposed"),
        (("--with-secrets", "--recipient-key", "bad"), "secret_key_invalid"),
        (("--with-secrets", "--recipient-key", "."), "secret_key_invalid"),
    ],
)
def test_without_a_sound_key_nothing_is_exported(machine, reads, words, code):
    key_file("theirs", "77" * 32)
    key_file("bad", "7" * 32)
    key_file("exposed", "77" * 32)
    Path("exposed").chmod(0o644)
    said = machine("export", reads, *words, "-o", "a.run")
    assert (said.code, said.err.partition("]")[0]) == (2, f"error[{code}")
    assert "\nhint: " in said.err
    assert not Path("a.run").exists()


def test_a_run_without_secrets_is_exported_as_ever(machine, recorded):
    said = machine("export", recorded, "--with-secrets", "-o", "a.run")
    assert said.code == 0, said
    assert "so the bundle has none" in said.err
    machine("export", recorded, "-o", "b.run")
    assert Path("a.run").read_bytes() == Path("b.run").read_bytes()


def test_a_forgotten_run_is_exported_without_its_secrets_alone(machine, reads, word):
    assert machine("secrets", "forget", reads).code == 0
    said = machine("export", reads, "--with-secrets", "-o", "a.run")
    assert said.code == 2
    assert "nobody can open them" in said.err
    assert machine("export", reads, "-o", "a.run").code == 0
    assert machine("verify", reads).code == 0


@pytest.mark.slow
def test_on_a_terminal_the_passphrase_is_asked_for(reads, environment):
    environment.pop("MACHINE_BUNDLE_PASSPHRASE", None)
    export = ("export", reads, "--with-secrets", "-o", "a.run")
    code, screen = typed(export, [b"one\n", b"other\n"], environment)
    assert (code, "differ" in screen, Path("a.run").exists()) == (2, True, False)
    code, screen = typed(export, [b"sesame\n", b"sesame\n"], environment)
    assert code == 0, screen
    assert "\x1b[1;31mwarning" in screen
    assert "sesame" not in screen
    code, screen = typed(("import", "a.run", *OTHER_STORE), [b"wrong\n"], environment)
    assert (code, Path("other.db").exists()) == (2, False)
    assert typed(("import", "a.run", *OTHER_STORE), [b"sesame\n"], environment)[0] == 0
