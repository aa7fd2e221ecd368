"""What an append to a store file costs in statements; the cheap one refuses whatever the careful one does."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine import Plan, RunConfig, run
from machine.canonical import artifact_id
from machine.errors import Code, ConcurrencyError, CorruptionError, OtherStoreError
from machine.stores import Artifact, SqliteStore
from machine.stores.lease import Lease
from machine.testing.store_samples import log_of, run_id_of
from tests.strategies import FAST

RUN, OTHER = run_id_of(1), run_id_of(2)
DAY = 24 * 60 * 60 * 1000


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.db"


@pytest.fixture
def store(path):
    with SqliteStore(path) as store:
        yield store


@pytest.fixture
def lease(store):
    """Return the lease of a run that is driven: its first two events are stored."""
    lease = store.acquire(RUN, "one", DAY)
    store.append(RUN, 0, log_of(RUN, 2), lease=lease)
    return lease


def statements(store):
    """Return a list that the statements of a store's connection are added to.

    A trigger is told as its statement once more.
    """
    seen = []
    store._session.conn.set_trace_callback(lambda text: seen[-1:] == [text] or seen.append(text))
    return seen


def artifacts(*texts):
    return [Artifact(artifact_id(text.encode()), "output", text.encode()) for text in texts]


def other_program(path, script):
    """Let any other program change the file."""
    with closing(sqlite3.connect(path)) as other:
        other.executescript(script)


# what it costs


def test_an_append_of_the_driver_looks_at_nothing_but_in_the_statement_that_moves_the_head(store, lease):
    seen = statements(store)
    store.append(RUN, 2, log_of(RUN, 2, first=3), artifacts("a", "b"), lease=lease)
    kinds = [" ".join(statement.split()[:3]) for statement in seen]
    assert kinds == [
        "BEGIN IMMEDIATE",
        "UPDATE runs SET",
        *["INSERT INTO artifacts"] * 2,
        *["INSERT INTO events"] * 2,
        "COMMIT",
    ]
    assert store.run_row(RUN).head_seq == 4


def test_what_the_statement_looks_at_is_found_by_keys(store, lease):
    seen = statements(store)
    store.append(RUN, 2, log_of(RUN, 1, first=3), lease=lease)
    (moved,) = [statement for statement in seen if statement.startswith("UPDATE")]
    plan = [row[-1] for row in store._session.conn.execute(f"EXPLAIN QUERY PLAN {moved}")]
    assert not any(step.startswith("SCAN") for step in plan)


def test_a_state_of_a_run_costs_one_commit_of_six_statements(store):
    plan = Plan("op")
    earlier = []
    for number in range(12):

        def handler(ctx, number=number):
            ctx["value"] = number

        earlier = [plan.state(f"s.n{number}", after=earlier)(handler)]
    seen = statements(store)
    done = run(plan, store=store, config=RunConfig(durability="states"))
    assert done.status == "completed"
    begun = [index for index, statement in enumerate(seen) if statement == "BEGIN IMMEDIATE"]
    commits = [seen[first : seen.index("COMMIT", first) + 1] for first in begun]
    states = [commit for commit in commits if commit[1].startswith("UPDATE runs SET head_seq")]
    assert len(states) == 12
    # one for each boundary: what a state wrote, that it completed, and that the next one begins
    assert [len(commit) for commit in states[1:]] == [6] * 11


def test_artifacts_are_inserted_in_the_order_of_their_ids(store, lease):
    seen = statements(store)
    store.append(RUN, 2, (), artifacts(*"abcdefgh"), lease=lease)
    ids = [text.split("x'", 1)[1][:64] for text in seen if text.startswith("INSERT INTO artifacts")]
    assert len(ids) == 8
    assert ids == sorted(ids)


def test_nothing_is_remembered_of_a_run_that_is_no_longer_driven(store):
    for number in range(3, 10):
        run_id = run_id_of(number)
        lease = store.acquire(run_id, "one", DAY)
        store.append(run_id, 0, log_of(run_id, 1), lease=lease)
        store.append(run_id, 1, log_of(run_id, 1, first=2), lease=lease)
        store.release(lease)
    store.append(RUN, 0, log_of(RUN, 1))
    assert not store._appends._keys


# what it refuses


def test_a_lease_that_another_process_took_over_writes_nothing(store, path, lease):
    with SqliteStore(path) as other:
        other.release(lease)
        taken = other.acquire(RUN, "two", DAY)
        for mine in (lease, Lease(RUN, taken.epoch + 1, "one", DAY)):
            with pytest.raises(ConcurrencyError) as caught:
                store.append(RUN, 2, log_of(RUN, 1, first=3), artifacts("a"), lease=mine)
            assert caught.value.code == Code.LEASE_LOST
        assert not store.exists(artifact_id(b"a"))
        other.append(RUN, 2, log_of(RUN, 1, first=3), lease=taken)
    assert store.head(RUN).seq == 3


def test_a_released_lease_writes_nothing(store, path, lease):
    with SqliteStore(path) as other:
        other.release(lease)
    with pytest.raises(ConcurrencyError) as caught:
        store.append(RUN, 2, log_of(RUN, 1, first=3), lease=lease)
    assert caught.value.code == Code.LEASE_LOST


@pytest.mark.parametrize("expected", [0, 1, 3])
def test_a_stale_head_is_refused(store, lease, expected):
    with pytest.raises(ConcurrencyError, match="is at event 2") as caught:
        store.append(RUN, expected, log_of(RUN, 1, first=expected + 1), lease=lease)
    assert caught.value.info.details == {"run_id": RUN, "expected": expected, "actual": 2}


def test_an_append_that_another_one_preceded_is_refused(store, path, lease):
    with SqliteStore(path) as other:
        other.append(RUN, 2, log_of(RUN, 1, first=3), lease=lease)
    with pytest.raises(ConcurrencyError, match="is at event 3"):
        store.append(RUN, 2, log_of(RUN, 1, first=3), lease=lease)
    store.append(RUN, 3, log_of(RUN, 1, first=4), lease=lease)


@pytest.mark.parametrize(
    "change",
    [
        "DROP TRIGGER events_never_go; DELETE FROM events WHERE seq = 2",
        "DROP TRIGGER events_never_go; DROP TRIGGER events_continue; DELETE FROM events",
        "DROP TRIGGER events_continue; INSERT INTO events SELECT run, 3, data, chain FROM events WHERE seq = 2",
    ],
)
def test_a_log_that_is_not_the_one_of_the_index_is_not_continued(store, path, lease, change):
    other_program(path, change)
    with pytest.raises(CorruptionError, match="events but the index says 2"):
        store.append(RUN, 2, log_of(RUN, 1, first=3), artifacts("a"), lease=lease)
    assert not store.exists(artifact_id(b"a"))


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE leases RENAME COLUMN epoch TO term",
        "UPDATE leases SET owner = x'00'",
        "UPDATE leases SET epoch = 'seven'",
    ],
)
def test_leases_that_a_newer_program_changed_meanwhile_are_not_understood(store, path, lease, change):
    other_program(path, f"DROP TRIGGER leases_go_forward; {change}")
    with pytest.raises(OtherStoreError) as caught:
        store.append(RUN, 2, log_of(RUN, 1, first=3), lease=lease)
    assert caught.value.code == Code.STORE_NEWER_SCHEMA


def test_a_failed_append_leaves_the_head_where_it_was(store, path, lease):
    other_program(path, "CREATE TRIGGER no BEFORE INSERT ON artifacts BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(CorruptionError):
        store.append(RUN, 2, log_of(RUN, 1, first=3), artifacts("a"), lease=lease)
    assert (store.head(RUN).seq, store.run_row(RUN).head_seq) == (2, 2)


# the index

STEPS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([None, "completed", "failed"])), max_size=6)


@FAST
@given(STEPS)
def test_the_cheap_append_leaves_the_same_file_as_the_careful_one(tmp_path_factory, steps):
    stores = []
    for cheap in (True, False):
        path = tmp_path_factory.mktemp("files") / "runs.db"
        with SqliteStore(path, clock=lambda: 1) as store:
            lease, head = store.acquire(RUN, "one", DAY), 1
            store.append(RUN, 0, log_of(RUN, 1), lease=lease)
            for count, status in steps:
                if not cheap:
                    store._appends.forget(RUN)
                events = log_of(RUN, count, first=head + 1, status=status) if count else ()
                store.append(RUN, head, events, artifacts(str(count)), lease=lease)
                head += count
            stores.append(list(store._session.conn.iterdump()))
            assert store.integrity_problems() == []
    assert stores[0] == stores[1]
