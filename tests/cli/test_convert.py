"""`machine convert`: bundles of version 1 become bundles that people review, in place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from machine.recordings.bundle_reader import is_readable, read_bundle

FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "fixtures/below").mkdir(parents=True)
    shutil.copy(FIXTURES / "bundle-1/rich.run", tmp_path / "fixtures/rich.run")
    shutil.copy(FIXTURES / "side-by-side-1/joined.run", tmp_path / "fixtures/below/joined.run")
    return tmp_path / "fixtures"


def test_a_folder_is_converted_and_then_left_as_it_is(machine, folder):
    digests = {path.name: read_bundle(path).digest for path in folder.rglob("*.run")}
    done = machine("convert", str(folder))
    assert (done.code, done.out.count("converted  ")) == (0, 2)
    assert {path.name: read_bundle(path).digest for path in folder.rglob("*.run")} == digests
    assert all(is_readable(path) for path in folder.rglob("*.run"))
    again = machine("convert", str(folder), "--json")
    assert (again.code, len(json.loads(again.out)["unchanged"])) == (0, 2)


def test_what_cannot_be_converted_is_told_and_left(machine, folder):
    damaged = folder / "below/damaged.run"
    damaged.write_bytes((folder / "rich.run").read_bytes().replace(b'"n":1', b'"n":2'))
    before = damaged.read_bytes()
    done = machine("convert", str(folder))
    assert done.code != 0
    assert "damaged.run" in done.err
    assert (damaged.read_bytes(), done.out.count("converted  ")) == (before, 2)


@pytest.mark.parametrize("arguments", [(), ("nothing.run",), (".",)])
def test_a_mistake_is_said_in_a_sentence(machine, arguments):
    done = machine("convert", *arguments)
    assert done.code != 0
    assert "Traceback" not in done.err
    assert done.err.startswith(("error", "failed"))


def test_a_run_is_exported_to_be_reviewed(machine, folder):
    assert machine("import", str(folder / "rich.run")).code == 0
    assert machine("export", "@last", "-o", "again.run", "--readable").code == 0
    assert is_readable("again.run")
    refused = machine("export", "@last", "-o", "more.run", "--readable", "--with-secrets")
    assert "a readable bundle has no secrets" in refused.err
