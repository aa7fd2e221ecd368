"""Verify: what was changed, lost, reordered or inserted is found, and named."""

from __future__ import annotations

import attrs
import pytest

import machine
from machine import Plan, run, verify
from machine.stores import MemoryStore
from machine.stores.base import StoredEvent


@pytest.fixture
def recorded(store):
    plan = Plan("op")

    @plan.state("step.only")
    async def only(ctx, io, rec):
        ctx["now"] = await io.now()
        ctx["large"] = "x" * 1000

    return run(plan, store=store).run_id


def rebuilt(store, run_id, change):
    """Return a store with the same artifacts and a log that `change` has had its hands on."""
    other = MemoryStore()
    other._contents.artifacts.update(store._contents.artifacts)
    log = change(list(store.read_range(run_id)))
    other._contents.logs[run_id] = log
    other._contents.rows[run_id] = store.run_row(run_id)
    return other


def test_a_sound_run_has_no_problems(store, recorded):
    result = verify(recorded, store=store)
    assert (result.ok, result.problems, result.events) == (True, (), 5)
    assert len(result.digest) == 64


def flip(event: StoredEvent) -> StoredEvent:
    return attrs.evolve(event, data=event.data.replace(b'"ts_millis":1', b'"ts_millis":2'))


@pytest.mark.parametrize(
    ("change", "code", "where"),
    [
        (lambda log: [*log[:2], flip(log[2]), *log[3:]], "log_broken_chain", "event 3"),
        (lambda log: [flip(log[0]), *log[1:]], "log_broken_chain", "event 1"),
        (lambda log: [*log[:2], *log[3:]], "log_broken_chain", "event 4"),
        (lambda log: [log[0], log[2], log[1], *log[3:]], "log_broken_chain", "event 3"),
        (
            lambda log: [*log[:3], attrs.evolve(log[3], chain=bytes(32)), *log[4:]],
            "log_broken_chain",
            "event 4",
        ),
        (lambda log: [*log[:3], log[2], *log[3:]], "log_broken_chain", "event 3"),
    ],
    ids=["edited", "edited first", "dropped", "reordered", "chain edited", "duplicated"],
)
def test_a_tampered_log_is_found_and_named_by_its_seq(store, recorded, change, code, where):
    result = verify(recorded, store=rebuilt(store, recorded, change))
    assert not result.ok
    assert (result.problems[0].code, result.problems[0].where) == (code, where)


def test_a_log_cut_short_is_found_through_the_index(store, recorded):
    result = verify(recorded, store=rebuilt(store, recorded, lambda log: log[:-1]))
    assert result.problems[0].code == "log_index"


def test_every_artifact_is_looked_at(store, recorded):
    artifacts = store._contents.artifacts
    for artifact_id, (kind, data) in list(artifacts.items()):
        artifacts[artifact_id] = (kind, data + b" ")
        result = verify(recorded, store=store)
        assert any(problem.where == f"artifact {artifact_id}" for problem in result.problems), kind
        del artifacts[artifact_id]
        result = verify(recorded, store=store)
        assert any(problem.code == "artifact_not_found" for problem in result.problems), kind
        artifacts[artifact_id] = (kind, data)
    assert verify(recorded, store=store).ok


def test_a_log_that_breaks_a_rule_is_found_although_its_chain_holds(store, recorded):
    from machine.events import chain_next
    from machine.stores.base import ZERO_CHAIN

    def without_the_second(log):
        chain, kept = ZERO_CHAIN, []
        for number, event in enumerate([log[0], *log[2:]], 1):
            data = event.data.replace(b'"seq":%d}' % event.seq, b'"seq":%d}' % number)
            chain = chain_next(chain, data)
            kept.append(StoredEvent(number, data, chain))
        return kept

    result = verify(recorded, store=rebuilt(store, recorded, without_the_second))
    assert (result.problems[0].code, result.problems[0].where) == ("log_no_open_attempt", "event 2")


def test_an_unknown_run_is_not_found(store):
    with pytest.raises(machine.NotFound):
        verify(machine.new_run_id(), store=store)
