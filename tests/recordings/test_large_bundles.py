"""A bundle that is larger than the memory it may take is exported, imported, verified and read all the same."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import tempfile
import tracemalloc
from contextlib import contextmanager

import pytest

from machine import Plan, open_bundle, open_store, run, verify
from machine.errors import BundleError, OtherIoError
from machine.recordings import artifact_spool, bundle
from machine.recordings.artifact_spool import ArtifactSpool
from machine.recordings.bundle import export_run, export_to, import_bundle
from machine.recordings.bundle_reader import read_bundle

MIB = 1024 * 1024
SIZE = 12 * MIB


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Return the store of a run with 12 MiB in values of 64 KiB, its id, and the path of its bundle."""
    folder = tmp_path_factory.mktemp("large")
    plan = Plan("large")

    @plan.state("write.values")
    def values(ctx):
        source = random.Random(7)
        for index in range(SIZE // (64 * 1024)):
            ctx[f"value{index}"] = source.randbytes(32 * 1024).hex()

    with open_store(f"sqlite:///{folder}/runs.db") as store:
        run_id = run(plan, store=store, invocation_key="large").run_id
        export_to(run_id, folder / "large.run", store=store)
        yield store, run_id, folder / "large.run"


@pytest.fixture(autouse=True)
def little_memory(monkeypatch):
    monkeypatch.setattr(artifact_spool, "_IN_MEMORY", MIB)
    monkeypatch.setattr(bundle, "_BATCH", MIB)


@contextmanager
def within(most):
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most


@pytest.mark.parametrize("gzip", [False, True])
def test_an_export_holds_a_part_of_the_bundle(large, tmp_path, gzip):
    store, run_id, path = large
    with within(SIZE / 2):
        export_to(run_id, tmp_path / "again.run", store=store, gzip=gzip)
    written = (tmp_path / "again.run").read_bytes()
    assert written == export_run(run_id, store=store, gzip=gzip)
    assert gzip or written == path.read_bytes()


def test_a_bundle_is_read_and_verified_with_a_part_of_it_in_memory(large):
    _, run_id, path = large
    with within(SIZE / 2), open_bundle(path) as opened:
        assert verify(run_id, store=opened.store).ok


def test_an_import_holds_a_part_of_the_bundle(large, tmp_path):
    _, run_id, path = large
    with open_store(f"sqlite:///{tmp_path}/new.db") as store:
        with within(SIZE / 2):
            assert import_bundle(path, store=store) == run_id
        assert verify(run_id, store=store, whole_store=True).ok
        assert export_run(run_id, store=store) == path.read_bytes()


def test_an_import_that_cannot_be_leaves_nothing(large, tmp_path):
    _, run_id, path = large
    plan = Plan("other")
    plan.state("step.only")(lambda ctx: None)
    with open_store(f"sqlite:///{tmp_path}/new.db") as store:
        run(plan, store=store, invocation_key="large")
        with pytest.raises(BundleError) as failure:
            import_bundle(path, store=store)
        assert failure.value.code == "bundle_conflict"
        assert not store.run_exists(run_id)
    assert (tmp_path / "new.db").stat().st_size < MIB


def test_no_room_for_a_large_run_is_a_clear_error(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))
    with pytest.raises(OtherIoError, match="a large run needs room in") as failure:
        ArtifactSpool().add("a" * 64, b"x" * (2 * MIB))
    assert failure.value.code == "file_failed"


def test_no_temporary_folder_for_a_large_run_is_a_clear_error(monkeypatch):
    def nowhere():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", nowhere)
    with pytest.raises(OtherIoError, match="No usable temporary directory") as failure:
        ArtifactSpool().add("a" * 64, b"x" * (2 * MIB))
    assert failure.value.code == "file_failed"


def test_a_disk_that_becomes_full_is_known_when_an_artifact_is_added(tmp_path):
    # a limit of the size of files is for a whole process, and what fails on closing a file is only printed
    code = (
        "import resource\n"
        "from machine.errors import OtherIoError\n"
        "from machine.recordings.artifact_spool import ArtifactSpool\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (17_000_000, 17_000_000))\n"
        "spool, size = ArtifactSpool(), 1995\n"
        "spool.add('first', bytes(16 * 1024 * 1024))\n"
        "added = {}\n"
        "try:\n"
        "    for index in range(20_000):\n"
        "        added[str(index)] = spool.add(str(index), b'%d' % index * size)\n"
        "except OtherIoError as exc:\n"
        "    print(exc.code)\n"
        "assert all(spool.get(name) == data for name, data in added.items())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "file_failed", "")


def test_forked_processes_read_the_artifacts_of_an_opened_bundle(large):
    _, run_id, path = large
    with open_bundle(path) as opened:
        ids = [*read_bundle(path).artifacts]
        # each reads in an order of its own, while the others do
        children = []
        for child in range(4):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    source = random.Random(child)
                    for _ in range(5):
                        for artifact_id in source.sample(ids, len(ids)):
                            opened.store.get(artifact_id)
                    code = 0
                finally:
                    os._exit(code)
            children.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0, 0]
        assert verify(run_id, store=opened.store).ok
