"""Dry runs, and runs that apply one, in bundles, comparisons and further runs."""

from __future__ import annotations

import pytest

import machine
from machine import Plan, RunConfig, apply, dry_run, replay
from machine.engine.dry_report import report_of
from machine.stores import MemoryStore


class Mail(machine.BaseTransport):
    """A transport whose every call is an effect, with one answer."""

    def __init__(self):
        self.asked = []

    def is_effect(self, namespace, request):
        return True

    async def perform(self, namespace, request):
        self.asked.append(request["to"])
        return "answered"


def plan_of(mail=None):
    """Return a plan of two effects, the second of which has no preview, and a state that needs its answer."""
    plan = Plan("p", transports={"mail": mail or Mail()})
    effect = {"side_effects": "apply_side_effect"}

    @plan.state("a.one", **effect, idempotency="k1", preview=lambda ctx, request: request["to"])
    async def one(ctx, io):
        ctx["id"] = str(await io.uuid())
        ctx["first"] = (await io.call("mail", {"to": ctx["to"]})).response

    @plan.state("b.two", **effect, idempotency="k2", after=[one])
    async def two(ctx, io):
        ctx["second"] = (await io.call("mail", {"to": ctx["first"]})).response

    @plan.state("c.three", after=[two])
    async def three(ctx, io):
        ctx["third"] = ctx["second"] + "!"

    return plan


@pytest.fixture
def dry(store):
    return dry_run(plan_of(), store=store, input={"to": "ada"})


@pytest.mark.parametrize(("readable", "version"), [(False, 6), (True, 7)])
def test_a_dry_run_goes_through_a_bundle_and_is_applied_from_there(store, dry, tmp_path, readable, version):
    run_id, path = dry.result.run_id, tmp_path / "dry.run"
    data = machine.export_run(run_id, path, store=store, readable=readable)
    assert b'"version":%d' % version in data.splitlines()[0]
    with MemoryStore() as other:
        machine.import_bundle(path, store=other)
        assert replay(run_id, plan=plan_of(), store=other).identical
        assert machine.verify(run_id, store=other).ok
        assert report_of(other, run_id).effects == dry.effects
        assert report_of(other, run_id).needs == dry.needs
        mail = Mail()
        real = apply(run_id, plan=plan_of(mail), store=other)
        # its first answer is not as previewed, and the second request is made of it
        assert (real.status, mail.asked) == ("suspended", ["ada"])


def test_a_run_that_applies_goes_through_a_bundle_with_its_approvals(store, dry, tmp_path):
    mail, path = Mail(), tmp_path / "applied.run"
    real = apply(dry.result.run_id, plan=plan_of(mail), store=store)
    assert (real.status, mail.asked) == ("suspended", ["ada"])
    machine.approve(real.run_id, store=store)
    ended = machine.resume(real.run_id, plan=plan_of(mail), store=store)
    assert (ended.status, mail.asked) == ("completed", ["ada", "answered"])
    for readable in (False, True):
        machine.export_run(real.run_id, path, store=store, readable=readable)
        with MemoryStore() as other:
            machine.import_bundle(path, store=other)
            assert replay(real.run_id, plan=plan_of(), store=other).identical
            assert machine.verify(real.run_id, store=other).ok
    assert mail.asked == ["ada", "answered"]


def test_two_dry_runs_are_compared_by_what_they_show(store, dry):
    other = dry_run(plan_of(), store=store, input={"to": "bob"})
    found = machine.diff_runs(dry.result.run_id, other.result.run_id, store=store)
    pointers = {
        change.pointer: (change.recorded, change.now)
        for state in found.states
        for item in state.items
        for change in item.changes
        if item.name == "mail" and change.pointer.startswith("/request")
    }
    assert pointers == {"/request/to": ("ada", "bob")}
    assert machine.compare(dry.result.run_id, plan=plan_of(), store=store).identical


def test_what_nobody_has_answered_answers_no_other_run(store, dry):
    config = RunConfig(io_mode="replay")
    given = {"store": store, "input": {"to": "ada"}, "facts_from": dry.result.run_id}
    assert machine.run(plan_of(), config=config, **given).error.code == "missing_fact"
    mail = Mail()
    ran = machine.run(plan_of(mail), effects="recorded", **given)
    assert (ran.status, mail.asked) == ("completed", ["ada", "answered"])
