"""Verify: what was changed, lost, reordered or inserted is found, and named."""

from __future__ import annotations

import contextlib
import sqlite3

import attrs
import pytest

import machine
from machine import Plan, canonical, codec, open_store, run, verify
from machine.stores import MemoryStore
from machine.stores.base import StoredEvent


def one_state():
    plan = Plan("op")

    @plan.state("step.only")
    async def only(ctx, io, rec):
        ctx["now"] = await io.now()
        ctx["large"] = "x" * 1000

    return plan


@pytest.fixture
def recorded(store):
    return run(one_state(), store=store).run_id


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
    return event._replace(data=event.data.replace(b'"ts_millis":1', b'"ts_millis":2'))


@pytest.mark.parametrize(
    ("change", "code", "where"),
    [
        (lambda log: [*log[:2], flip(log[2]), *log[3:]], "log_broken_chain", "event 3"),
        (lambda log: [flip(log[0]), *log[1:]], "log_broken_chain", "event 1"),
        (lambda log: [*log[:2], *log[3:]], "log_broken_chain", "event 4"),
        (lambda log: [log[0], log[2], log[1], *log[3:]], "log_broken_chain", "event 3"),
        (
            lambda log: [*log[:3], log[3]._replace(chain=bytes(32)), *log[4:]],
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
    with pytest.raises(machine.errors.NotFoundError):
        verify(machine.new_run_id(), store=store)


def codes_of(store, run_id, change):
    """Return what `verify` finds when a log holds changed events under a chain that is right again."""
    from machine.events import chain_next, seal
    from machine.stores.base import ZERO_CHAIN

    def rewrite(log):
        chain, kept = ZERO_CHAIN, []
        for event in log:
            entry = codec.decode_entry(event.seq, event.data)
            body = codec.encode_event(change(entry.event))
            data = seal(event.seq, body, run_id, entry.ts_millis)
            chain = chain_next(chain, data)
            kept.append(StoredEvent(event.seq, data, chain))
        return kept

    return [problem.code for problem in verify(run_id, store=rebuilt(store, run_id, rewrite)).problems]


def test_a_start_that_does_not_say_what_its_manifest_says_is_found(store, recorded):
    def another_manifest(event):
        if event.type != "run_started":
            return event
        return attrs.evolve(event, manifest_id=event.plan_id)

    def another_input(event):
        if event.type == "run_started":
            return attrs.evolve(event, initial_snapshot_id=other)
        return attrs.evolve(event, base_snapshot_id=other) if event.type == "state_entered" else event

    other = store.put("context_snapshot", b'{"entries":{"k":{"value":1}},"type":"leaf"}')
    assert "artifact_corrupt" in codes_of(store, recorded, another_manifest)
    assert "log_bad_event" in codes_of(store, recorded, another_input)


def test_a_state_that_the_recorded_plan_does_not_have_is_found(store, recorded):
    def renamed(event):
        return attrs.evolve(event, state_id="op.step.other") if hasattr(event, "state_id") else event

    assert codes_of(store, recorded, renamed) == ["recovery_state_not_in_plan"]


def test_a_run_whose_events_are_gone_is_a_problem_and_not_unknown(store, recorded):
    result = verify(recorded, store=rebuilt(store, recorded, lambda log: []))
    assert "log_index" in [problem.code for problem in result.problems]


@pytest.fixture
def on_disk(tmp_path):
    url = f"sqlite:///{tmp_path}/runs.db"
    with open_store(url) as store:
        run_id = run(one_state(), store=store).run_id
    with open_store(url) as store:
        yield url, tmp_path / "runs.db", run_id, store


def flipped(path, needle, bit):
    """Flip one bit in the middle of bytes that stand in a file once."""
    data = bytearray(path.read_bytes())
    assert data.count(needle) == 1
    data[data.index(needle) + len(needle) // 2] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("seq", range(1, 6))
def test_one_flipped_bit_in_an_event_on_disk_is_named_by_its_seq(on_disk, seq, bit):
    url, path, run_id, store = on_disk
    [event] = store.read_range(run_id, seq, seq)
    store.close()
    flipped(path, event.data, bit)
    with open_store(url) as store:
        assert f"event {seq}" in [problem.where for problem in verify(run_id, store=store).problems]


@pytest.mark.parametrize("bit", range(8))
def test_one_flipped_bit_in_an_artifact_on_disk_is_named_by_its_id(on_disk, bit):
    url, path, run_id, store = on_disk
    large = canonical.encode("x" * 1000)
    named = canonical.artifact_id(large)
    assert store.get(named) == large
    store.close()
    flipped(path, large, bit)
    with open_store(url) as store:
        assert f"artifact {named}" in [problem.where for problem in verify(run_id, store=store).problems]


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9, 0.999])
def test_a_truncated_store_is_never_sound(on_disk, part):
    url, path, run_id, store = on_disk
    store.close()
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    try:
        with open_store(url) as store:
            sound = verify(run_id, store=store, whole_store=True).ok
    except machine.errors.StoreError:
        sound = False
    assert not sound


def test_only_the_whole_store_looks_at_other_runs(on_disk):
    url, path, run_id, store = on_disk
    other = run(one_state(), store=store).run_id
    store.close()
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("UPDATE runs SET op_id = 'changed' WHERE run_id = ?", (other,))
        raw.commit()
    with open_store(url) as store:
        assert verify(run_id, store=store).ok
        (found,) = verify(run_id, store=store, whole_store=True).problems
        assert (found.where, other in found.message) == ("store", True), found


def test_an_event_that_cannot_be_read_hides_no_other(store, recorded):
    def damaged(log):
        return [log[0], log[1]._replace(data=b"{"), log[2], log[3]._replace(data=b"{"), log[4]]

    problems = verify(recorded, store=rebuilt(store, recorded, damaged)).problems
    assert [problem.where for problem in problems] == ["event 2", "event 2", "event 4", "event 4"]


class Effects(machine.io.transport.BaseTransport):
    def is_effect(self, namespace, request):
        return True

    async def perform(self, namespace, request):
        return {}


def test_everything_a_log_names_is_looked_at(store):
    plan = Plan("op")

    @plan.state("step.only", side_effects="apply_side_effect", idempotency="once")
    async def only(ctx, io, rec):
        await rec.emit(machine.DomainEvent("large", {"text": "x" * 20_000}))
        await io.call("outside", {"n": 1})
        ctx["kept"] = "x" * 1000
        return machine.StateOutcome(error="by_decision", snapshot="always")

    run_id = run(plan, store=store, transports={"outside": Effects()}).run_id
    assert verify(run_id, store=store).ok
    artifacts = store._contents.artifacts
    for artifact_id, kept in list(artifacts.items()):
        del artifacts[artifact_id]
        places = [problem.where for problem in verify(run_id, store=store).problems]
        assert f"artifact {artifact_id}" in places, kept
        artifacts[artifact_id] = kept


def test_an_intent_whose_request_is_gone_is_found_although_no_fact_came_of_it(store):
    class Crash(machine.Reporter):
        def entry(self, entry):
            if entry.event.type == "fact_recorded":
                raise RuntimeError("crash")

    plan = Plan("op")

    @plan.state("step.only", side_effects="apply_side_effect", idempotency="once")
    async def only(ctx, io, rec):
        await io.call("outside", {"n": 1})

    run_id = machine.new_run_id()
    with pytest.raises(RuntimeError, match="crash"):
        run(plan, store=store, transports={"outside": Effects()}, reporter=Crash(), run_id=run_id)
    named = canonical.artifact_id(b'{"n":1}')
    del store._contents.artifacts[named]
    assert [problem.where for problem in verify(run_id, store=store).problems] == [f"artifact {named}"]
