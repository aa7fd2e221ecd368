"""Recordings of runs that go on as another: each is one segment, whatever looks at it."""

from __future__ import annotations

import json

import pytest

import machine
from machine import Plan, RunConfig, StateOutcome
from machine.config import FanOutJoin
from machine.engine import run_reader
from machine.errors import BundleError
from machine.recordings import bundle_line_reader
from machine.recordings.bundle_line import SUM_BYTES, _summed
from machine.stores import MemoryStore, SqliteStore


def counting(step=1, last=2):
    plan = Plan("counting")

    @plan.state("count.up")
    async def up(ctx, io):
        ctx["at"] = await io.now()
        if ctx["n"] < last:
            return StateOutcome(next_run={"n": ctx["n"] + step})
        return None

    @plan.state("count.rest", after=[up])
    def rest(ctx):
        ctx["rest"] = ctx["n"]

    return plan


PLAN = counting()


@pytest.fixture(params=[None, 2], ids=["sequential", "concurrent"])
def store(request):
    config = None if request.param is None else RunConfig(execution_mode=FanOutJoin(request.param))
    with MemoryStore() as store:
        machine.run(PLAN, input={"n": 0}, config=config, store=store)
        yield store


def ids(store):
    return [row.run_id for row in reversed(store.list_runs().rows)]


@pytest.mark.parametrize("readable", [False, True])
def test_a_bundle_holds_one_segment_and_replays_alone(store, readable, tmp_path):
    first, middle, last = ids(store)
    versions = []
    for run_id in (first, middle, last):
        path = tmp_path / f"{run_id}.run"
        data = machine.export_run(run_id, path, store=store, readable=readable)
        versions.append(json.loads(data.split(b"\n")[0])["bundle"]["version"])
        with machine.open_bundle(path) as bundle:
            assert machine.replay(run_id, plan=PLAN, store=bundle.store).identical
            assert (
                machine.verify(run_id, store=bundle.store).digest
                == run_reader.PastRun.read(run_id, store).digest
            )
            assert machine.export_run(run_id, store=bundle.store, readable=readable) == data
            assert bundle.store.last_segment(run_id) == run_id
            assert bundle.store.integrity_problems() == []
    assert versions == ([9, 9, 2] if readable else [8, 8, 1])


@pytest.mark.parametrize("readable", [False, True])
def test_an_older_program_says_that_the_bundle_is_newer(store, tmp_path, monkeypatch, readable):
    path = tmp_path / "first.run"
    machine.export_run(ids(store)[0], path, store=store, readable=readable)
    monkeypatch.setattr(bundle_line_reader, "VERSIONS", (1, 2, 3, 4, 5, 6, 7))
    with pytest.raises(BundleError, match="it was made by a newer version of machine") as caught:
        machine.open_bundle(path)
    assert caught.value.code == "bundle_newer_format"


@pytest.mark.parametrize("version", [b"1", b"4", b"6"])
def test_a_bundle_of_another_version_than_its_run_is_refused(store, tmp_path, version):
    path = tmp_path / "first.run"
    lines = machine.export_run(ids(store)[0], store=store).split(b"\n")
    header = _summed(lines[0].replace(b'"version":8', b'"version":%b' % version)[:-SUM_BYTES])
    path.write_bytes(b"\n".join([header, *lines[1:]]))
    with pytest.raises(BundleError, match="its version is not that of this run"):
        machine.open_bundle(path)


def test_a_chain_that_is_imported_is_a_chain_again(store, tmp_path):
    with SqliteStore(tmp_path / "other.db") as other:
        for run_id in reversed(ids(store)):
            path = tmp_path / "one.run"
            machine.export_run(run_id, path, store=store)
            machine.import_bundle(path, store=other)
        first, _, last = ids(store)
        assert {other.last_segment(run_id) for run_id in ids(store)} == {last}
        assert [row.run_id for row in other.list_runs(segments=False).rows] == [last]
        assert machine.resume(first, plan=PLAN, store=other).run_id == last
        assert other.integrity_problems() == []


def test_a_fork_of_a_segment_begins_a_chain_of_its_own(store):
    first, middle, _ = ids(store)
    plan = counting(last=3)
    for run_id in (first, middle):
        known = set(ids(store))
        at = store.head_seq(run_id) - 1
        fork = machine.fork(run_id, plan=plan, store=store, at=at)
        made = [each for each in ids(store) if each not in known]
        assert made[0] == fork.run_id
        assert store.run_row(fork.run_id).first_run_id is None
        assert {store.run_row(each).first_run_id for each in made[1:]} == {fork.run_id}
        assert (fork.result.run_id, fork.result.context["n"]) == (made[-1], 3)
        assert all(machine.replay(each, plan=plan, store=store).identical for each in made)


def test_a_fork_of_an_end_goes_on_again(store):
    first = ids(store)[0]
    fork = machine.fork(first, plan=PLAN, store=store, at=store.head_seq(first))
    assert fork.result.context["n"] == 2
    assert store.run_row(fork.run_id).next_run_id is not None


def test_two_runs_that_go_on_in_another_way_differ(store):
    first = ids(store)[0]
    other = machine.run(counting(step=2), input={"n": 0}, store=store, begin_next=False).run_id
    found = machine.diff_runs(first, other, store=store)
    assert not found.identical
    (state,) = [each for each in found.states if each.state_id == "counting.count.up"]
    assert [(each.pointer, each.recorded, each.now) for each in state.changes] == [("/next_run/n", 1, 2)]


@pytest.mark.parametrize(
    ("plan", "summary", "sides"),
    [
        (counting(step=2), "the run goes on as another with a different input", ({"n": 1}, {"n": 2})),
        (
            counting(last=0),
            "the run goes on as another in the recording, and now it does not",
            ({"n": 1}, None),
        ),
    ],
)
def test_a_replay_says_how_the_run_goes_on_now(store, plan, summary, sides):
    found = machine.replay(ids(store)[0], plan=plan, store=store)
    assert not found.identical
    assert found.divergence.summary == summary
    assert (found.divergence.recorded, found.divergence.now) == sides


def test_a_replay_says_that_the_run_goes_on_where_it_did_not(store):
    found = machine.replay(ids(store)[-1], plan=counting(last=9), store=store)
    assert found.divergence.summary == "the run goes on as another, and in the recording it does not"
    assert (found.divergence.recorded, found.divergence.now) == (None, {"n": 3})


def test_a_comparison_is_of_one_segment(store):
    first = ids(store)[0]
    assert machine.compare(first, plan=PLAN, store=store).identical
    assert not machine.compare(first, plan=counting(step=2), store=store).identical
    assert len(ids(store)) == 3


def test_a_paranoid_run_notices_an_input_that_is_another_each_time():
    plan, counted = Plan("counting"), []

    @plan.state("count.up")
    def up(ctx):
        counted.append(1)
        return StateOutcome(next_run={"n": len(counted)})

    with MemoryStore() as store:
        result = machine.run(plan, store=store, config=RunConfig(paranoid=True))
        assert (result.status, result.error.code) == ("failed", "not_deterministic")
        assert len(ids(store)) == 1


def test_every_order_of_concurrent_states_ends_the_same():
    plan = Plan("counting")
    for name in ("one", "two", "three"):
        plan.state(f"count.{name}")(lambda ctx, name=name: ctx.__setitem__(name, 1))

    @plan.state("count.up")
    def up(ctx):
        return StateOutcome(next_run={"n": 1})

    with MemoryStore() as store:
        config = RunConfig(execution_mode=FanOutJoin(4))
        result = machine.run(plan, store=store, config=config, begin_next=False)
        found = machine.schedules(result.run_id, plan=plan, store=store)
        assert found.identical
