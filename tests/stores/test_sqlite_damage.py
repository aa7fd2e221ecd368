"""A damaged file is noticed or harmless: never other bytes than were stored, never an untyped error."""

from __future__ import annotations

import random

import pytest

from machine.canonical import artifact_id
from machine.errors import CorruptionError, NotFoundError, StoreError
from machine.events import chain_next
from machine.stores import ZERO_CHAIN, Artifact, SqliteStore
from machine.testing.store_samples import log_of, run_id_of

RUNS = {run_id_of(number): log_of(run_id_of(number), 25 * number, status="failed") for number in (1, 2, 3)}
BLOBS = [random.Random(size).randbytes(size) for size in (0, 1, 20, 100, 200, 300, 900, 3000, 9000, 30_000)]
FLIPS = 300
CUTS = 50


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Return the bytes of a closed store that holds RUNS and BLOBS."""
    path = tmp_path_factory.mktemp("sound") / "runs.db"
    artifacts = [Artifact(artifact_id(data), "output", data) for data in BLOBS]
    with SqliteStore(path) as store:
        for run_id, log in RUNS.items():
            for at in range(0, len(log), 5):
                store.append(run_id, at, log[at : at + 5], artifacts[at % 9 : at % 9 + 2])
    assert not noticed(path)
    return path.read_bytes()


def noticed(path):
    """Say whether the damage is noticed; assert that what is not noticed does no harm."""
    try:
        with SqliteStore(path, create=False, busy_timeout=0.1) as store:
            problems = store.integrity_problems()
            same = all(
                [read_log(store, run_id) for run_id in RUNS] + [read_blob(store, data) for data in BLOBS]
            )
            store.list_runs()
            store.find_runs("")
            store.put("output", b"new")
            store.append(run_id_of(9), 0, log_of(run_id_of(9), 2))
    except StoreError:
        return True
    assert problems or same
    return bool(problems)


def read_log(store, run_id):
    """Say whether a log is what was stored; raise `CorruptionError` where its chain says that it is not."""
    chain = ZERO_CHAIN
    log = list(store.read_range(run_id))
    for seq, event in enumerate(log, 1):
        chain = chain_next(chain, event.data)
        if (seq, chain) != (event.seq, event.chain):
            raise CorruptionError("the chain is broken")
    head, row = store.head(run_id), store.run_row(run_id)
    return log == RUNS[run_id] and (head.seq, head.chain, row.status) == (len(log), chain, "failed")


def read_blob(store, data):
    return store.get(artifact_id(data)) == data


def damage(path, data):
    for file in path.parent.iterdir():
        file.unlink()
    path.write_bytes(data)
    return noticed(path)


def test_flipped_bits_are_noticed_or_harmless(sound, tmp_path):
    randomly = random.Random(20)
    found = 0
    for _ in range(FLIPS):
        data = bytearray(sound)
        data[randomly.randrange(len(data))] ^= 1 << randomly.randrange(8)
        found += damage(tmp_path / "runs.db", data)
    assert found > FLIPS // 4  # most of the rest lie in unused parts of pages


def test_flipped_bits_of_the_header_and_the_schema_are_noticed_or_harmless(sound, tmp_path):
    randomly = random.Random(21)
    for _ in range(FLIPS // 2):
        at = randomly.choice((randomly.randrange(120), randomly.randrange(4096)))
        data = bytearray(sound)
        data[at] ^= 1 << randomly.randrange(8)
        damage(tmp_path / "runs.db", data)


def test_a_file_that_was_cut_is_noticed(sound, tmp_path):
    randomly = random.Random(22)
    for length in [0, 1, 99, 100, 512, 4095, 4096, *(randomly.randrange(len(sound)) for _ in range(CUTS))]:
        assert damage(tmp_path / "runs.db", sound[:length])


def test_pages_of_zeros_are_noticed(sound, tmp_path):
    for at in range(0, len(sound), 4096):
        data = bytearray(sound)
        data[at : at + 4096] = bytes(4096)
        assert damage(tmp_path / "runs.db", data)


def test_what_is_intact_can_still_be_read(sound, tmp_path):
    """One damaged artifact does not take the rest of the store with it."""
    path = tmp_path / "runs.db"
    at = sound.index(BLOBS[5])
    path.write_bytes(sound[:at] + b"\0" + sound[at + 1 :])
    with SqliteStore(path) as store:
        assert list(store.read_range(run_id_of(3))) == RUNS[run_id_of(3)]
        assert read_blob(store, BLOBS[9])
        with pytest.raises(CorruptionError):
            read_blob(store, BLOBS[5])
        with pytest.raises(NotFoundError):
            store.get("0" * 64)
