"""`open_store` opens what a URL names, and says what it supports when it names nothing."""

from __future__ import annotations

import pathlib

import pytest

import machine.stores
from machine.errors import Code, NotFoundError, OtherStoreError
from machine.stores import MemoryStore, SqliteStore, Store, open_store


def test_memory():
    with open_store("memory://") as store:
        assert isinstance(store, MemoryStore)
        assert isinstance(store, Store)


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:///runs.db", "runs.db"),
        ("sqlite:///deep/er/runs", "deep/er/runs"),
        ("sqlite:///with%20space%3F.db", "with space?.db"),
        ("sqlite:///runs.db?synchronous=full", "runs.db"),
        ("sqlite:///runs.db?synchronous=normal", "runs.db"),
        ("runs.db", "runs.db"),
        ("./runs.sqlite", "runs.sqlite"),
        ("with%20percent.db", "with%20percent.db"),
        (pathlib.Path("any name"), "any name"),
    ],
)
def test_files(tmp_path, monkeypatch, url, file):
    monkeypatch.chdir(tmp_path)
    with open_store(url) as store:
        assert isinstance(store, SqliteStore)
        assert store.url.endswith("synchronous=normal") == ("normal" in str(url))
    assert (tmp_path / file).is_file()


def test_an_absolute_path_has_four_slashes(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        assert store.url == f"sqlite:///{tmp_path}/runs.db"
    assert (tmp_path / "runs.db").is_file()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgres://host/db", "no kind of store called 'postgres'"),
        ("://", "no kind of store called ''"),
        ("runs", "neither a kind of store nor a database file"),
        ("", "neither a kind of store nor a database file"),
        ("memory://name", "takes no path"),
        ("memory://?x=1", "takes no path"),
        ("sqlite://runs.db", "does not name a file"),
        ("sqlite:///", "does not name a file"),
        ("sqlite:///dir/", "does not name a file"),
        ("sqlite://[/runs.db", "does not name a file"),
        ("sqlite:///runs.db#x", "does not name a file"),
        ("sqlite:///\ud800.db", "cannot be a path"),
        ("\ud800.db", "cannot be a path"),
        ("a\0b.db", "cannot be a path"),
        ("sqlite:///a%00b.db", "cannot be a path"),
        ("sqlite:///runs.db?cache=shared", "no option 'cache'"),
        ("sqlite:///runs.db?synchronous=off", "synchronous cannot be 'off'"),
        ("sqlite:///runs.db?synchronous", "synchronous cannot be ''"),
    ],
)
def test_what_names_no_store_is_refused(tmp_path, monkeypatch, url, why):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OtherStoreError) as caught:
        open_store(url)
    assert caught.value.code == Code.STORE_UNKNOWN_URL
    assert why in caught.value.message
    assert "sqlite:///relative/path.db" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite:///runs.db", "runs.db", pathlib.Path("runs.db")])
def test_create_false_makes_nothing(tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError) as caught:
        open_store(url, create=False)
    assert caught.value.code == Code.STORE_NOT_FOUND
    assert str(tmp_path / "runs.db") in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_every_public_name_is_there():
    assert all(hasattr(machine.stores, name) for name in machine.stores.__all__)
