"""Leases, messages and the secret key in a file: older and newer tables, what is synced, processes that fight."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from machine.errors import Code, ConcurrencyError, CorruptionError, OtherStoreError
from machine.stores import SqliteStore, sqlite_migrations, sqlite_schema
from machine.testing.store_samples import log_of, run_id_of

RUN, OTHER = run_id_of(1), run_id_of(2)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.db"


@pytest.fixture
def store(path):
    with SqliteStore(path) as store:
        yield store


def statements(store):
    """Return a list that the statements of a store's connection are added to."""
    seen = []
    store._session.conn.set_trace_callback(seen.append)
    return seen


def synchronous(store):
    return store._session.conn.execute("PRAGMA synchronous").fetchone()[0]


# an older file


def test_a_file_of_version_1_gets_what_it_lacks_and_keeps_what_it_has(path, version_1):
    log = version_1(path)
    with SqliteStore(path, create=False) as store:
        assert store._session.conn.execute("PRAGMA user_version").fetchone() == (6,)
        assert list(store.read_range(RUN)) == log
        assert store.integrity_problems() == []
        lease = store.acquire(RUN, "one", 1_000)
        store.append(RUN, 3, log_of(RUN, 1, first=4), lease=lease)
        store.append(OTHER, 0, log_of(OTHER, 1, info={"invocation_key": "key"}))
        assert store.find_invocation("key") == OTHER
        assert store.post(RUN, "signal", 1) == 1
        assert store.secret_key() == store.secret_key()
        store.add_data_key(RUN, "key", b"wrapped")
        assert store.integrity_problems() == []


def test_every_version_can_be_read_as_the_newest():
    assert len(sqlite_migrations.ADDED) == len(sqlite_schema.MIGRATIONS) - 1


# a newer one, or a damaged one


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE leases RENAME COLUMN epoch TO term",
        "DROP TABLE leases; CREATE TABLE leases (run_id, epoch, owner, expires_ms, ttl_ms, kind NOT NULL)",
        "UPDATE leases SET epoch = 'seven'",
        "UPDATE leases SET owner = x'00'",
        "UPDATE leases SET expires_ms = 'soon'",
    ],
)
def test_leases_that_are_not_understood_are_of_a_newer_version(store, path, change):
    lease = store.acquire(RUN, "one", 60_000)
    with closing(sqlite3.connect(path)) as other:
        other.executescript(f"DROP TRIGGER IF EXISTS leases_go_forward; {change}")
    uses = [lambda: store.acquire(RUN, "two", 1_000)]
    if "kind" not in change:  # to read is possible then
        uses += [
            lambda: store.renew(lease),
            lambda: store.lease_of(RUN),
            lambda: store.append(RUN, 0, log_of(RUN, 1)),
            lambda: store.append(RUN, 0, log_of(RUN, 1), lease=lease),
        ]
    for use in uses:
        with pytest.raises(OtherStoreError, match="in a way that this program does not know") as caught:
            use()
        assert caught.value.code == Code.STORE_NEWER_SCHEMA
        assert not isinstance(caught.value.__cause__, CorruptionError)
    assert not store.run_exists(RUN)


def test_leases_that_are_gone_are_damage(store, path):
    with closing(sqlite3.connect(path)) as other:
        other.execute("DROP TABLE leases")
    with pytest.raises(CorruptionError):
        store.acquire(RUN, "one", 1_000)
    with pytest.raises(CorruptionError):
        store.append(RUN, 0, log_of(RUN, 1))
    assert "schema: leases is missing" in store.integrity_problems()


@pytest.mark.parametrize("change", ["kind = x'00'", "data = 'text'", "ts_ms = 'soon'"])
def test_a_message_of_other_types_is_damage(store, path, change):
    store.append(RUN, 0, log_of(RUN, 1))
    store.post(RUN, "signal", 1)
    with closing(sqlite3.connect(path)) as other:
        other.executescript(f"DROP TRIGGER messages_never_change; UPDATE inbox SET {change}")
    with pytest.raises(CorruptionError, match="message 1"):
        store.inbox(RUN)


@pytest.mark.parametrize("key", ["'text'", "x'00'"])
def test_a_secret_key_that_is_not_32_bytes_is_damage(store, path, key):
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(f"INSERT INTO secret VALUES (1, {key})")
    with pytest.raises(CorruptionError, match="secret key"):
        store.secret_key()


def test_messages_to_nobody_are_reported(store, path):
    store.append(RUN, 0, log_of(RUN, 1))
    store.post(RUN, "signal", 1)
    with closing(sqlite3.connect(path)) as other:
        other.executescript("INSERT INTO inbox VALUES (7, 1, 'signal', x'31', 0)")
    assert "inbox: there are messages to a run 7 that has no row" in store.integrity_problems()


# what is waited for


def test_a_lease_is_not_waited_for_and_all_else_is(store):
    store.append(RUN, 0, log_of(RUN, 1))
    seen = statements(store)
    lease = store.acquire(RUN, "one", 60_000)
    store.renew(lease)
    store.release(lease)
    begun = [index for index, statement in enumerate(seen) if statement == "BEGIN IMMEDIATE"]
    assert [seen[index - 1] for index in begun] == ["PRAGMA synchronous = normal"] * 3
    assert seen.count("PRAGMA synchronous = 2") == 3
    assert synchronous(store) == 2
    seen.clear()
    store.append(RUN, 1, log_of(RUN, 1, first=2))
    store.post(RUN, "signal", 1)
    assert not any("synchronous" in statement for statement in seen)


def test_a_refused_lease_leaves_commits_as_they_were(store):
    lease = store.acquire(RUN, "one", 60_000)
    with pytest.raises(ConcurrencyError):
        store.acquire(RUN, "two", 60_000)
    assert synchronous(store) == 2
    store.release(lease)
    with pytest.raises(ConcurrencyError):
        store.renew(lease)
    assert synchronous(store) == 2


def test_without_a_write_ahead_log_a_lease_is_synced_too(store):
    # the rollback journal is not safe under NORMAL
    store._session.conn.execute("PRAGMA journal_mode = DELETE")
    seen = statements(store)
    store.acquire(RUN, "one", 60_000)
    assert not any(statement.startswith("PRAGMA synchronous =") for statement in seen)


def test_the_secret_key_is_synced_whatever_the_store_risks(path):
    with SqliteStore(path, synchronous="normal") as store:
        seen = statements(store)
        store.secret_key()
        assert seen.index("PRAGMA synchronous = full") < seen.index("BEGIN IMMEDIATE")
        assert synchronous(store) == 1


def test_an_append_looks_at_leases_once_and_by_key(store):
    lease = store.acquire(RUN, "one", 60_000)
    seen = statements(store)
    store.append(RUN, 0, log_of(RUN, 5), lease=lease)
    (looked,) = [statement for statement in seen if "leases" in statement]
    ((*_, plan),) = store._session.conn.execute(f"EXPLAIN QUERY PLAN {looked}").fetchall()
    assert plan == "SEARCH leases USING PRIMARY KEY (run_id=?)"


def test_an_invocation_key_is_found_by_its_index(store):
    found = store._session.conn.execute(
        "EXPLAIN QUERY PLAN SELECT run_id FROM runs WHERE invocation_key = ?", ("key",)
    ).fetchall()
    assert "runs_by_invocation (invocation_key=?)" in found[0][-1]


# processes

FIGHTER = """
import json, random, secrets, sys, time
from machine.errors import Code
from machine.errors import ConcurrencyError
from machine.stores import SqliteStore, StoredEvent, ZERO_CHAIN

path, seconds, runs = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
sys.stdin.readline()  # all start at once, so that making the file and its key is a race too
report = {"taken": [], "lost": 0}
with SqliteStore(path) as store:
    report["key"] = store.secret_key().hex()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        run = random.choice(runs)
        try:
            # as from another machine: nobody sees whether it lives
            lease = store.acquire(run, secrets.token_hex(8), 25)
        except ConcurrencyError as exc:
            assert exc.code == Code.RUN_LEASED, exc
            time.sleep(random.random() / 500)
            continue
        head = store.head_seq(run)
        landed = []
        report["taken"].append([run, lease.epoch, head, landed])
        try:
            for _ in range(random.randrange(4)):
                data = b"%d" % lease.epoch
                # whoever lost looks at the head again: nothing but the epoch may stop it
                seq = store.head_seq(run)
                store.append(run, seq, [StoredEvent(seq + 1, data, ZERO_CHAIN)], lease=lease)
                landed.append(seq + 1)
                time.sleep(random.choice((0, 0, 0.001, 0.04)))  # the last is longer than the lease
                if random.random() < 0.3:
                    store.renew(lease)
        except ConcurrencyError as exc:
            if exc.code == Code.LEASE_LOST:
                report["lost"] += 1
            else:  # taken over between the look at the head and the append is lost, too: the fence is first
                raise
        if random.random() < 0.6:
            store.release(lease)
print(json.dumps(report))
"""


def start(script, *args):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_that_fight_for_runs_never_share_one(path):
    runs = [run_id_of(number) for number in range(3)]
    fighters = [start(FIGHTER, path, 2.5, *runs) for _ in range(4)]
    for fighter in fighters:
        fighter.stdin.write("go\n")
        fighter.stdin.flush()
    ended = [fighter.communicate(timeout=60) for fighter in fighters]
    assert [(fighter.returncode, err) for fighter, (_, err) in zip(fighters, ended, strict=True)] == [
        (0, "")
    ] * 4
    reports = [json.loads(out) for out, _ in ended]
    assert len({report["key"] for report in reports}) == 1
    assert sum(report["lost"] for report in reports), "nobody lost a lease: the fight proved nothing"
    with SqliteStore(path, create=False) as store:
        for run in runs:
            taken = sorted(each[1:] for report in reports for each in report["taken"] if each[0] == run)
            assert [epoch for epoch, _, _ in taken] == list(range(1, len(taken) + 1))
            epochs = {event.seq: int(event.data) for event in store.read_range(run)}
            assert {seq: epoch for epoch, _, landed in taken for seq in landed} == epochs
            for epoch, head, _ in taken:
                assert all(each <= epoch for seq, each in epochs.items() if seq <= head)
                assert all(each >= epoch for seq, each in epochs.items() if seq > head)
        assert store.secret_key().hex() == reports[0]["key"]
        assert store.integrity_problems() == []


HOLDER = """
import sys
from machine.stores import SqliteStore
from machine.stores.lease import owner_here

with SqliteStore(sys.argv[1]) as store:
    print(store.acquire(sys.argv[2], owner_here(), 3_600_000).epoch, flush=True)
    sys.stdin.readline()
"""


def test_the_lease_of_a_process_that_was_killed_is_free_at_once(store, path):
    holder = start(HOLDER, path, RUN)
    assert holder.stdout.readline() == "1\n"
    with pytest.raises(ConcurrencyError) as caught:
        store.acquire(RUN, "one", 1_000)
    assert caught.value.code == Code.RUN_LEASED
    assert f"process {holder.pid} on " in str(caught.value)
    holder.kill()
    holder.communicate(timeout=60)
    assert store.acquire(RUN, "one", 1_000).epoch == 2
