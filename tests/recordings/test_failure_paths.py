"""What reads a recording also reads one with cleanup states and with states that were skipped for their failure."""

from __future__ import annotations

import pytest

import machine
from machine import Plan, RunConfig, export_run, import_bundle, open_bundle, replay, run, verify
from machine.config import FanOutJoin
from machine.stores import MemoryStore

MODES = pytest.mark.parametrize("mode", [None, FanOutJoin(3)], ids=["sequential", "concurrent"])


def config_of(mode):
    return RunConfig() if mode is None else RunConfig(execution_mode=mode)


def plan_of(folder, *, fails=True, undo=1):
    plan = Plan("shop")

    @plan.state("a.first")
    def first(ctx):
        ctx["first"] = 1

    @plan.state("b.pay", after=[first], side_effects="apply_side_effect", idempotency="pay")
    async def pay(ctx, io):
        await io.write_file(str(folder / "paid"), "x")
        if fails:
            raise ValueError("no")

    @plan.state("c.extra", after=[first], on_error="skip")
    def extra(ctx):
        raise ValueError("not today")

    @plan.state(
        "z.refund", run="on_failure", after=[pay], side_effects="apply_side_effect", idempotency="back"
    )
    async def refund(ctx, io, failure):
        ctx["undo"] = undo
        await io.write_file(str(folder / "refunded"), failure.code)

    @plan.state("z.close", run="always")
    async def close(ctx, io):
        ctx["closed"] = await io.now()

    return plan


@pytest.fixture
def store():
    with MemoryStore() as opened:
        yield opened


@MODES
@pytest.mark.parametrize(("readable", "version"), [(False, b'"version":6'), (True, b'"version":7')])
def test_a_bundle_holds_it_in_a_version_that_an_older_program_refuses(
    store, tmp_path, mode, readable, version
):
    plan, path = plan_of(tmp_path), tmp_path / "shop.run"
    result = run(plan, store=store, config=config_of(mode))
    export_run(result.run_id, path, store=store, readable=readable)
    assert version in path.read_bytes().split(b"\n")[0]
    with open_bundle(path) as bundle:
        found = replay(bundle.run_id, plan=plan, store=bundle.store)
        assert (found.identical, found.digest) == (True, result.digest)
    with MemoryStore() as other:
        import_bundle(path, store=other)
        (row,) = other.list_runs().rows
        assert verify(row.run_id, store=other).problems == ()


@MODES
def test_a_run_that_only_skipped_a_failure_has_such_a_version_too(store, tmp_path, mode):
    plan, path = Plan("op"), tmp_path / "op.run"

    @plan.state("a.extra", on_error="skip")
    def extra(ctx):
        raise ValueError("no")

    result = run(plan, store=store, config=config_of(mode))
    export_run(result.run_id, path, store=store)
    assert b'"version":6' in path.read_bytes().split(b"\n")[0]


@MODES
def test_a_change_in_a_cleanup_state_is_found_there(store, tmp_path, mode):
    result = run(plan_of(tmp_path), store=store, config=config_of(mode))
    found = replay(result.run_id, plan=plan_of(tmp_path, undo=2), store=store).divergence
    assert found is not None
    assert found.state_id == "shop.z.refund"


@MODES
def test_a_dry_run_that_succeeds_has_no_effect_of_a_cleanup_for_failures(store, tmp_path, mode):
    plan = plan_of(tmp_path, fails=False)
    dry = machine.dry_run(plan, store=store, config=config_of(mode))
    assert [effect.state_id for effect in dry.effects] == ["shop.b.pay"]
    told = {state.id: (state.action, state.reason) for state in dry.states}
    assert told["shop.c.extra"] == ("run", "failed:handler_error")
    assert told["shop.z.refund"] == ("skip", "no_failure")
    assert replay(dry.result.run_id, plan=plan, store=store).identical


@MODES
def test_a_dry_run_that_fails_shows_the_effects_of_its_cleanup(store, tmp_path, mode):
    plan = plan_of(tmp_path)
    dry = machine.dry_run(plan, store=store, config=config_of(mode))
    assert [effect.state_id for effect in dry.effects] == ["shop.b.pay", "shop.z.refund"]
    assert not (tmp_path / "refunded").exists()
    assert replay(dry.result.run_id, plan=plan, store=store).identical


@MODES
def test_two_runs_are_compared_through_their_cleanup(store, tmp_path, mode):
    one = run(plan_of(tmp_path), store=store, config=config_of(mode)).run_id
    two = run(plan_of(tmp_path, undo=2), store=store, config=config_of(mode)).run_id
    found = machine.diff_runs(one, two, store=store)
    assert "shop.z.refund" in str(found)
    written = machine.blame(one, "/undo", store=store)
    assert written.steps[0].write.state_id == "shop.z.refund"
