"""A run in a format that this version does not know: a clear word, and nothing is written or called damaged."""

from __future__ import annotations

import pytest

import machine
from machine import MachineError, Plan, canonical
from machine.engine import log_check
from machine.errors import BundleError, OtherStoreError
from machine.events import chain_next
from machine.stores import MemoryStore
from machine.stores.base import ZERO_CHAIN, StoredEvent

PLAN = Plan("one")


@PLAN.state("a.write")
def write(ctx):
    """Write something."""
    ctx["x"] = 1


@pytest.fixture(params=[{"context_format": 3}, {"secret_format": 3}, {"other_format": 2}], ids=str)
def newer(request):
    """Return a store with a run whose manifest names another format, and the run's id."""
    with MemoryStore() as store, MemoryStore() as other:
        run_id = machine.run(PLAN, store=store).run_id
        contents = store._contents.artifacts
        (manifest,) = [name for name, (kind, _) in contents.items() if kind == "manifest"]
        value = {**canonical.decode(contents.pop(manifest)[1]), **request.param}
        new = other.put("manifest", canonical.encode(value))
        for kind, data in contents.values():
            other.put(kind, data)
        chain, log = ZERO_CHAIN, []
        for stored in store.read_range(run_id):
            data = stored.data.replace(manifest.encode(), new.encode())
            chain = chain_next(chain, data)
            log.append(StoredEvent(stored.seq, data, chain))
        other.append(run_id, 0, log)
        yield other, run_id


READERS = {
    "verify": machine.verify,
    "replay": lambda run_id, store: machine.replay(run_id, plan=PLAN, store=store),
    "resume": lambda run_id, store: machine.resume(run_id, plan=PLAN, store=store),
    "fork": lambda run_id, store: machine.fork(run_id, plan=PLAN, store=store, at=2),
    "export": lambda run_id, store: machine.export_run(run_id, store=store),
    "blame": lambda run_id, store: machine.blame(run_id, "/x", store=store),
    "diff": lambda run_id, store: machine.diff_runs(run_id, run_id, store=store),
    "scan": lambda run_id, store: machine.scan(run_id, store=store),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_whoever_reads_it_says_that_a_newer_version_wrote_it(newer, read):
    store, run_id = newer
    before = list(store.read_range(run_id)), len(store._contents.artifacts)
    with pytest.raises(
        MachineError, match=r"recorded by a newer version of machine: its .*_format is"
    ) as caught:
        read(run_id, store=store)
    assert (type(caught.value), caught.value.code) == (OtherStoreError, "run_newer_format")
    assert caught.value.hint == "update machine"
    assert (list(store.read_range(run_id)), len(store._contents.artifacts)) == before


def test_a_bundle_of_it_is_of_a_newer_format(newer, tmp_path, monkeypatch):
    store, run_id = newer
    path = tmp_path / "newer.run"
    with monkeypatch.context() as patch:  # the version that made it knows the format
        told = log_check.manifest_in

        def lenient(artifact_id, load):
            value = canonical.decode(load(artifact_id))
            known = {name: each for name, each in value.items() if not name.endswith("_format")}
            data = canonical.encode({**known, "secret_format": 2, "context_format": 2})
            return told(artifact_id, lambda _: data)

        patch.setattr("machine.engine.log_check.manifest_in", lenient)
        path.write_bytes(machine.export_run(run_id, store=store))
    with pytest.raises(BundleError, match="recorded by a newer version of machine") as caught:
        machine.import_bundle(path, store=MemoryStore())
    assert (caught.value.code, caught.value.hint) == ("bundle_newer_format", "update machine")


@pytest.mark.parametrize("number", [0, -1, 1.5, "2", None, True])
def test_a_number_that_no_version_writes_is_damage(number):
    manifest = {"context_format": number}
    with pytest.raises(MachineError) as caught:
        log_check.manifest_in("id", lambda _: canonical.encode(manifest))
    assert caught.value.code == "artifact_corrupt"
