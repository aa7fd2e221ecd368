"""Several processes share a store file, and a process that dies leaves every acknowledged event behind."""

from __future__ import annotations

import signal
import subprocess
import sys

from machine.events import chain_next
from machine.stores import ZERO_CHAIN, SqliteStore
from machine.testing.store_samples import run_id_of

SHARED = run_id_of(0)
PROCESSES = 4
EACH = 25

WORKER = """
import sys
from machine.errors import ConcurrencyError
from machine.events import chain_next
from machine.stores import Artifact, SqliteStore, StoredEvent, ZERO_CHAIN
from machine.canonical import artifact_id

path, own, shared, name, count = *sys.argv[1:5], int(sys.argv[5])
sys.stdin.readline()  # all start at once, so that making the file is a race too

def push(store, run_id, data):
    while True:
        head = store.head(run_id)
        event = StoredEvent(head.seq + 1, data, chain_next(head.chain, data))
        try:
            store.append(run_id, head.seq, [event], [Artifact(artifact_id(data), "output", data)])
        except ConcurrencyError:
            continue
        return event.seq

with SqliteStore(path) as store:
    for number in range(count):
        push(store, own, b"%s:%d" % (name.encode(), number))
        print(push(store, shared, b"%s:%d" % (name.encode(), number)), flush=True)
"""


def start(path, name, count):
    command = [sys.executable, "-c", WORKER, str(path), run_id_of(name), SHARED, str(name), str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def assert_chained(log):
    chain = ZERO_CHAIN
    for seq, event in enumerate(log, 1):
        chain = chain_next(chain, event.data)
        assert (event.seq, event.chain) == (seq, chain)


def test_processes_lose_no_event_and_wait_for_one_another(tmp_path):
    path = tmp_path / "runs.db"
    workers = [start(path, name, EACH) for name in range(1, PROCESSES + 1)]
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    won = [[int(line) for line in worker.communicate(timeout=60)[0].split()] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * PROCESSES
    assert sorted(seq for seqs in won for seq in seqs) == list(range(1, PROCESSES * EACH + 1))
    with SqliteStore(path, create=False) as store:
        shared = list(store.read_range(SHARED))
        assert_chained(shared)
        for name, seqs in enumerate(won, 1):
            wanted = [b"%d:%d" % (name, number) for number in range(EACH)]
            assert [shared[seq - 1].data for seq in seqs] == wanted
            own = list(store.read_range(run_id_of(name)))
            assert_chained(own)
            assert [event.data for event in own] == wanted
        assert len(store.list_runs().rows) == PROCESSES + 1
        assert store.integrity_problems() == []


def test_what_was_acknowledged_survives_a_kill(tmp_path):
    path = tmp_path / "runs.db"
    worker = start(path, 1, 1_000_000)
    worker.stdin.write("go\n")
    worker.stdin.flush()
    acknowledged = [int(worker.stdout.readline()) for _ in range(50)][-1]
    worker.kill()
    rest, _ = worker.communicate(timeout=60)
    assert worker.returncode == -signal.SIGKILL
    # the last line may have been cut
    acknowledged = max([acknowledged, *(int(line) for line in rest.splitlines()[:-1])])
    with SqliteStore(path, create=False) as store:
        log = list(store.read_range(SHARED))
        assert len(log) >= acknowledged
        assert_chained(log)
        assert_chained(list(store.read_range(run_id_of(1))))
        assert store.integrity_problems() == []
        store.put("output", b"goes on")
