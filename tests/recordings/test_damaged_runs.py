"""A run that is no run is refused by whoever reads it, in the same words, and nothing is written."""

from __future__ import annotations

import pytest
from absurd_logs import Absurd, recorded

import machine
from machine import MachineError, canonical
from machine.errors import BundleError
from machine.stores import MemoryStore


@pytest.fixture(scope="module")
def runs():
    return {run.name: run for run in recorded()}


def at(run, kind, number=0):
    """Return the place of an event among those of its type."""
    return [place for place, (event, _) in enumerate(run.events) if event["type"] == kind][number]


def edited(run, path, kind, number=0, **changes):
    """Return the run with fields of one event, or of its info, changed."""
    place = at(run, kind, number)
    event, info = run.events[place]
    changed = ({**event, **changes}, info) if path == "event" else (event, {**info, **changes})
    return Absurd(run, [*run.events[:place], changed, *run.events[place + 1 :]], None)


def with_artifact(run, path, kind, field, data, of="fact_payload"):
    """Return the run with another artifact where one event names one."""
    artifact_id = canonical.artifact_id(data)
    absurd = edited(run, path, kind, **{field: artifact_id})
    absurd.artifacts[artifact_id] = (of, data)
    return absurd


def with_payload(run, data):
    artifact_id = canonical.artifact_id(data)
    outcome = {"type": "value", "payload_id": artifact_id}
    absurd = edited(run, "event", "fact_recorded", outcome=outcome)
    absurd.artifacts[artifact_id] = ("fact_payload", data)
    return absurd


def moved(run, kind, place):
    here = at(run, kind)
    rest = [*run.events[:here], *run.events[here + 1 :]]
    return Absurd(run, [*rest[:place], run.events[here], *rest[place:]], None)


def with_base(run, number, base):
    """Return the run with one attempt on another base."""
    return edited(run, "event", "state_entered", number, base_snapshot_id=base)


def followed(run):
    """Return the run with an event after its end."""
    return Absurd(run, [*run.events, run.events[-2]], None)


EMPTY = canonical.artifact_id(b'{"entries":{},"type":"leaf"}')

DAMAGE = {
    "goes on after its end": ("failing", followed, "log_after_end"),
    "at a negative time": (
        "failing",
        lambda run: edited(run, "info", "fact_recorded", ts_millis=-1),
        "log_bad_event",
    ),
    "minus one at a time": (
        "concurrent",
        lambda run: edited(run, "event", "run_started", max_concurrency=-1),
        "log_bad_event",
    ),
    "none at a time": (
        "concurrent",
        lambda run: edited(run, "event", "run_started", max_concurrency=0),
        "log_bad_event",
    ),
    "more at a time than its manifest says": (
        "concurrent",
        lambda run: edited(run, "event", "run_started", max_concurrency=3),
        "log_bad_event",
    ),
    "a concurrent state on another base": (
        "concurrent",
        lambda run: with_base(run, 1, EMPTY),
        "log_base_snapshot",
    ),
    "a state out of turn": ("concurrent", lambda run: moved(run, "state_skipped", 1), "log_out_of_turn"),
    "a retry before it failed": (
        "failing",
        lambda run: edited(run, "event", "retry_scheduled", delay_ms=-1),
        "log_retry",
    ),
    "what was read is no list": (
        "concurrent",
        lambda run: edited(run, "info", "state_completed", read="{"),
        "log_bad_event",
    ),
    "a plan that is none": (
        "failing",
        lambda run: with_artifact(run, "event", "run_started", "plan_id", b'{"states":7}', "plan"),
        "artifact_corrupt",
    ),
    "a plan that is not JSON": (
        "failing",
        lambda run: with_artifact(run, "event", "run_started", "plan_id", b"\xff", "plan"),
        "artifact_corrupt",
    ),
    "a plan that is a circle": (
        "failing",
        lambda run: with_artifact(
            run,
            "event",
            "run_started",
            "plan_id",
            canonical.encode({**run.plan.graph.shape(), "edges": [["weak.step.first", "weak.step.first"]]}),
            "plan",
        ),
        "artifact_corrupt",
    ),
    "a manifest that is none": (
        "failing",
        lambda run: with_artifact(run, "event", "run_started", "manifest_id", b"[]", "manifest"),
        "artifact_corrupt",
    ),
    "provenance that is none": (
        "failing",
        lambda run: with_artifact(run, "info", "run_started", "provenance_id", b"[]", "provenance"),
        "artifact_corrupt",
    ),
    "a shared past that is none": (
        "forked",
        lambda run: with_artifact(
            run, "info", "run_started", "shared_past_id", b'{"entries":[1]}', "shared_past"
        ),
        "artifact_corrupt",
    ),
    "a payload that is not JSON": ("concurrent", lambda run: with_payload(run, b"{"), "artifact_corrupt"),
    "a state that its plan does not have": (
        "failing",
        lambda run: edited(run, "event", "state_entered", state_id="weak.step.other"),
        "recovery_state_not_in_plan",
    ),
}

RULES_ALONE = sorted(set(DAMAGE) - {"a payload that is not JSON"})
"""What is found without a look at every payload."""


@pytest.fixture(params=DAMAGE.values(), ids=DAMAGE)
def damaged(runs, tmp_path, request):
    name, change, code = request.param
    absurd = change(runs[name])
    absurd.path = tmp_path / "some.run"
    return absurd, code


def test_verify_import_and_replay_refuse_it_in_the_same_words(damaged, tmp_path):
    absurd, code = damaged
    run = absurd.run
    with absurd.store() as store:
        assert code in [problem.code for problem in machine.verify(run.run_id, store=store).problems]
        found = machine.replay(run.run_id, plan=run.plan, store=store, transports=run.transports).divergence
        assert (found.kind, found.now["code"]) == ("corrupt", code)
        with pytest.raises(MachineError) as failure:
            machine.export_run(run.run_id, store=store)
        assert failure.value.code == code
    assert not absurd.imports()
    for read in (machine.open_bundle, lambda path: machine.import_bundle(path, store=MemoryStore())):
        with pytest.raises(BundleError) as failure:
            read(absurd.path)
        assert failure.value.code == "bundle_invalid"


@pytest.mark.parametrize("name", RULES_ALONE)
def test_whoever_reads_a_log_refuses_one_that_breaks_a_rule(runs, name):
    which, change, code = DAMAGE[name]
    absurd = change(runs[which])
    run_id, plan, doors = absurd.run.run_id, absurd.run.plan, absurd.run.transports
    state_id = plan.graph.order[0]
    readers = {
        "compare": lambda store: machine.compare(run_id, plan=plan, store=store, transports=doors),
        "diff": lambda store: machine.diff_runs(run_id, run_id, store=store),
        "blame": lambda store: machine.blame(run_id, "/at", store=store),
        "fork": lambda store: machine.fork(run_id, plan=plan, store=store, at=2, transports=doors),
        "resume": lambda store: machine.resume(run_id, plan=plan, store=store, transports=doors),
        "cancel": lambda store: machine.cancel(run_id, store=store),
        "export": lambda store: machine.export_run(run_id, store=store),
    }
    for reader, read in readers.items():
        with absurd.store() as store:
            before = list(store.read_range(run_id)), store.list_runs().rows
            with pytest.raises(MachineError) as failure:
                read(store)
            assert (reader, failure.value.code) == (reader, code), state_id
            assert (list(store.read_range(run_id)), store.list_runs().rows) == before


def one_step():
    plan = machine.Plan("weak")

    @plan.state("step.first")
    async def first(ctx, io, rec):
        ctx["a"] = 1

    return plan


def test_a_plan_that_the_program_has_is_not_made_again_from_its_recording(monkeypatch):
    plan, made = one_step(), []
    monkeypatch.setattr("machine.plan.shape_of", lambda *asked: made.append(asked))
    with MemoryStore() as store:
        run_id = machine.run(plan, store=store).run_id
        assert machine.replay(run_id, plan=plan, store=store).identical
        assert machine.resume(run_id, plan=plan, store=store).status == "completed"
    assert not made


def test_a_plan_that_the_store_has_lost_is_damage_though_the_program_has_it():
    plan = one_step()
    with MemoryStore() as store:
        run_id = machine.run(plan, store=store).run_id
        del store._contents.artifacts[plan.graph.plan_id]
        assert machine.replay(run_id, plan=plan, store=store).divergence.kind == "corrupt"
        with pytest.raises(MachineError) as failure:
            machine.resume(run_id, plan=plan, store=store)
        assert failure.value.code == "artifact_not_found"
