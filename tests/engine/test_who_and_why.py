"""Who drove an attempt, who cancelled a run and why, and who answered: beside the log's events, in no digest."""

from __future__ import annotations

import os

import pytest

from machine import (
    Plan,
    approve,
    artifacts,
    cancel,
    codec,
    export_run,
    import_bundle,
    open_store,
    replay,
    resume,
    run,
    verify,
    work,
)
from machine.engine.cancel_reason import cancelled_for
from machine.engine.driver_name import driver_name
from machine.errors import Code, UsageError
from machine.events import CANCELLED_BY, DRIVER, REASON, StateEntered
from machine.stores import MemoryStore


@pytest.fixture
def plan() -> Plan:
    made = Plan("asks")

    @made.state("ask.it")
    async def it(ctx, io):
        ctx["approved"] = (await io.approval("Go?")).approved

    return made


def entries(store, run_id: str):
    return [codec.decode_entry(stored.seq, stored.data) for stored in store.read_range(run_id)]


def test_an_attempt_says_who_drives_it_and_no_digest_knows(plan, store, monkeypatch):
    runs = [run(plan, store=store)]
    monkeypatch.setattr("machine.engine.log.driver_name", lambda: "elsewhere:7 night-shift")
    runs.append(run(plan, store=store))
    found = [
        {
            entry.info[DRIVER]
            for entry in entries(store, result.run_id)
            if isinstance(entry.event, StateEntered)
        }
        for result in runs
    ]
    assert found == [{driver_name()}, {"elsewhere:7 night-shift"}]
    assert driver_name().endswith(f":{os.getpid()}")
    assert runs[0].digest == runs[1].digest
    for result in runs:
        approve(result.run_id, store=store)
        ended = resume(result.run_id, plan=plan, store=store)
        assert ended.status == "completed"
        assert replay(result.run_id, plan=plan, store=store).identical
        assert verify(result.run_id, store=store).ok


def test_a_name_with_any_host_is_read_back(store, plan, monkeypatch):
    for name in ('quo"te:1', "ünï:2", "back\\slash:3"):
        monkeypatch.setattr("machine.engine.log.driver_name", lambda name=name: name)
        result = run(plan, store=store)
        found = [entry.info.get(DRIVER) for entry in entries(store, result.run_id)]
        assert name in found


def test_a_worker_has_its_name_there(tmp_path):
    (tmp_path / "later.py").write_text(
        "from machine import Plan\nplan = Plan('later')\n"
        "@plan.state('wait.it')\nasync def it(ctx, io):\n    await io.wait_signal('go')\n"
        "@plan.state('then.it', after=[it])\ndef then(ctx): ctx['done'] = True\n"
    )
    from machine import signal
    from machine.config import Target
    from machine.target import load

    spec = f"{tmp_path}/later.py:plan"
    with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        loaded = load(spec, None)
        result = run(loaded.plan, store=store, target=Target(spec, str(tmp_path)))
        signal(result.run_id, "go", store=store)
        work([spec], store=store, until_idle=True, name="night-shift")
        found = {
            entry.event.state_id: entry.info[DRIVER]
            for entry in entries(store, result.run_id)
            if isinstance(entry.event, StateEntered)
        }
        assert found["later.then.it"] == f"{driver_name()} night-shift"
        with pytest.raises(UsageError) as caught:
            work([spec], store=store, until_idle=True, name="night shift")
        assert caught.value.code == Code.INVALID_WORKER_NAME


def test_the_log_of_a_cancelled_run_says_who_and_why(plan, store, tmp_path):
    result = run(plan, store=store)
    cancelled = cancel(result.run_id, reason="the order was withdrawn", by="ada", store=store)
    assert cancelled.status == "cancelled"
    info = entries(store, result.run_id)[-1].info
    assert (info[REASON], info[CANCELLED_BY]) == ("the order was withdrawn", "ada")
    assert replay(result.run_id, plan=plan, store=store).identical
    export_run(result.run_id, tmp_path / "one.run", store=store)
    with MemoryStore() as other:
        import_bundle(tmp_path / "one.run", store=other)
        assert entries(other, result.run_id)[-1].info[REASON] == "the order was withdrawn"
    assert artifacts(result.run_id, store=store) == []


def test_a_reason_makes_no_difference_to_the_digest(plan, store):
    digests = set()
    for reason in (None, "one", "two"):
        digests.add(cancel(run(plan, store=store).run_id, reason=reason, store=store).digest)
    assert len(digests) == 1


def test_the_first_who_asks_is_the_one(plan, store):
    result = run(plan, store=store)
    store.post(result.run_id, "cancel", {REASON: "first", CANCELLED_BY: "ada"})
    store.post(result.run_id, "cancel", {REASON: "second", CANCELLED_BY: "bob"})
    assert cancelled_for(store, result.run_id) == {REASON: "first", CANCELLED_BY: "ada"}
    assert resume(result.run_id, plan=plan, store=store).status in {"cancelled", "suspended"}


@pytest.mark.parametrize("data", [{}, [], "x", None, {REASON: 7}, {CANCELLED_BY: None}])
def test_a_message_of_an_older_program_says_nothing(plan, store, data):
    result = run(plan, store=store)
    store.post(result.run_id, "cancel", data)
    assert cancelled_for(store, result.run_id) == {}


@pytest.mark.parametrize(
    "given", [{"reason": ""}, {"reason": 7}, {"reason": "x" * 1025}, {"by": ""}, {"by": "a\n"}]
)
def test_a_reason_that_is_none_is_refused_and_nothing_is_sent(plan, store, given):
    result = run(plan, store=store)
    with pytest.raises(UsageError, match="is a text of 1 to 1024"):
        cancel(result.run_id, store=store, **given)
    assert store.inbox(result.run_id) == []
    assert store.run_row(result.run_id).status == "suspended"


def test_a_secret_in_a_reason_is_replaced(plan, store):
    result = run(plan, store=store)
    cancel(result.run_id, reason="ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8", by="ada", store=store)
    assert "ghp_" not in entries(store, result.run_id)[-1].info[REASON]
