"""Answers to what runs wait for: one decision for each wait, in the order of the inbox, whoever drives the run."""

from __future__ import annotations

import asyncio
import functools
import math
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import machine
from machine import Plan, codec
from machine.engine.run_keeper import Keeper
from machine.errors import CanonicalError, Code, NotFoundError, RunError, UsageError
from machine.stores import MemoryStore, SqliteStore
from machine.testing.store_samples import Clock

refund = Plan("refund")


@refund.state("ask.approval")
async def ask(ctx, io):
    """Ask a person."""
    answer = await io.approval("Refund 7 EUR?", data={"amount": 7})
    ctx["answer"] = [answer.approved, answer.by, answer.comment, answer.value]


two = Plan("two")


@two.state("ask.both")
async def both(ctx, io):
    """Ask for two things one after the other, and for a signal."""
    ctx["first"] = (await io.approval("The first?", key="first")).approved
    ctx["paid"] = await io.wait_signal("paid", key="paid")


pair = Plan("pair")


@pair.state("ask.pair")
async def ask_pair(ctx, io):
    """Ask for two things at once."""
    answers = await asyncio.gather(
        io.approval("The left?", key="side/left"), io.approval("The right?", key="side/right")
    )
    ctx["answers"] = [answer.approved for answer in answers]


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    with MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "runs.db") as store:
        yield store


@pytest.fixture
def run_id(store):
    result = machine.run(refund, store=store)
    assert result.status == "suspended"
    return result.run_id


def size(store, run_id):
    return store.latest_seq(run_id), len(store.inbox(run_id))


def refused(store, run_id, code, use, error=RunError):
    """Check that a use is refused with a code and writes nothing, and return the error."""
    before = size(store, run_id)
    with pytest.raises(error) as caught:
        use()
    assert caught.value.code == code
    assert size(store, run_id) == before
    return caught.value


def test_an_approval_is_in_the_log_when_it_returns_and_in_the_handler_after_a_resume(store, run_id):
    given = machine.approve(run_id, store=store, by="Ada", comment="fine", value={"limit": 9})
    assert (given.run_id, given.state_id) == (run_id, "refund.ask.approval")
    said = {"approved": True, "by": "Ada", "comment": "fine", "value": {"limit": 9}}
    assert {**given.answer, "at_ms": 0} == {**said, "at_ms": 0}
    assert machine.waiting(store=store) == []
    assert store.due_runs(0) == [run_id]
    result = machine.resume(run_id, plan=refund, store=store)
    assert result.context["answer"] == [True, "Ada", "fine", {"limit": 9}]
    assert machine.replay(run_id, plan=refund, store=store).identical


def test_a_rejection_is_an_answer_and_the_user_is_known(store, run_id, monkeypatch):
    monkeypatch.setenv("LOGNAME", "grace")
    machine.reject(run_id, store=store)
    assert machine.resume(run_id, plan=refund, store=store).context["answer"] == [False, "grace", None, None]


def test_the_second_answer_is_told_the_first(store, run_id):
    first = machine.approve(run_id, store=store, by="Ada")
    for key in (None, first.key):
        error = refused(
            store,
            run_id,
            Code.WAIT_ANSWERED,
            functools.partial(machine.reject, run_id, key, store=store, by="Bob"),
        )
        assert error.info.details == {"run_id": run_id, "key": first.key, "answer": dict(first.answer)}
        assert "Ada has approved it" in error.message


@pytest.mark.parametrize(("kind", "times"), [("memory", 180), ("sqlite", 20)])
def test_of_two_at_once_one_decides_and_the_other_is_told_so(tmp_path, kind, times):
    first = MemoryStore()
    opened = (
        (lambda: MemoryStore(shared_with=first))
        if kind == "memory"
        else (lambda: SqliteStore(tmp_path / "r"))
    )
    with opened() as store, opened() as other, ThreadPoolExecutor(2) as pool:
        for _ in range(times):
            run_id = machine.run(refund, store=store).run_id
            ready = threading.Barrier(2)

            def decide(name, handle, word, run_id=run_id, ready=ready):
                ready.wait()
                try:
                    return word(run_id, store=handle, by=name)
                except RunError as exc:
                    return exc

            acts = [
                pool.submit(decide, "Ada", store, machine.approve),
                pool.submit(decide, "Bob", other, machine.reject),
            ]
            found = [act.result(timeout=60) for act in acts]
            (given,) = [each for each in found if not isinstance(each, RunError)]
            (told,) = [each for each in found if isinstance(each, RunError)]
            assert told.code == Code.WAIT_ANSWERED
            assert told.info.details["answer"] == dict(given.answer)
            result = machine.resume(run_id, plan=refund, store=store)
            assert result.context["answer"][:2] == [given.answer["approved"], given.answer["by"]]


def test_without_a_key_there_must_be_one_approval(store):
    run_id = machine.run(pair, store=store).run_id
    for key in (None, "side/", "pair.ask.pair"):
        error = refused(
            store, run_id, Code.WAIT_AMBIGUOUS, lambda key=key: machine.approve(run_id, key, store=store)
        )
        assert error.info.details["waits"] == ["side/left", "side/right"]
    machine.approve(run_id, "side/l", store=store)
    machine.reject(run_id, "pair.ask.pair", store=store)
    assert machine.resume(run_id, plan=pair, store=store).context["answers"] == [True, False]


@pytest.mark.parametrize("key", ["", "@", "other", "paid", "refund.other.state"])
def test_a_wrong_key_is_refused(store, key):
    run_id = machine.run(two, store=store).run_id
    error = refused(store, run_id, Code.NO_OPEN_WAIT, lambda: machine.approve(run_id, key, store=store))
    assert error.info.details["waits"] == ["first"]
    machine.approve(run_id, "first", store=store)
    machine.resume(run_id, plan=two, store=store)
    error = refused(store, run_id, Code.NO_OPEN_WAIT, lambda: machine.approve(run_id, "paid", store=store))
    assert "signal paid" in error.hint


def test_a_run_that_has_ended_or_never_was_takes_no_answer(store, run_id):
    machine.approve(run_id, store=store)
    machine.resume(run_id, plan=refund, store=store)
    for use in (
        lambda: machine.approve(run_id, store=store),
        lambda: machine.signal(run_id, "paid", store=store),
    ):
        error = refused(store, run_id, Code.NO_OPEN_WAIT, use)
        assert "is completed and waits for nothing" in error.message
    for use in (
        machine.approve,
        machine.reject,
        lambda other, store: machine.signal(other, "paid", store=store),
    ):
        with pytest.raises(NotFoundError):
            use("01932d4e-7c1a-7b3f-9a41-3f0c5f1a2b3c", store=store)


@pytest.mark.parametrize("value", [object(), {1: 2}, float("nan"), "\ud800", b"bytes", 2**80])
def test_an_answer_that_is_not_json_is_refused(store, run_id, value):
    for use in (
        lambda: machine.approve(run_id, store=store, value=value),
        lambda: machine.signal(run_id, "paid", value, store=store),
        lambda: machine.signal(None, "paid", value, correlation="7", keep=60, store=store),
    ):
        refused(store, run_id, Code.NOT_JSON, use, CanonicalError)
    assert store.signals() == []


SECRET = "ghp_" + "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY3zA5"


def test_an_answer_that_is_a_secret_is_refused(store, run_id):
    for use, path in (
        (lambda: machine.approve(run_id, store=store, value={"key": [SECRET]}), "$.value.key[0]"),
        (lambda: machine.approve(run_id, store=store, comment=f"use {SECRET}"), "$.comment"),
        (lambda: machine.signal(run_id, "paid", SECRET, store=store), "$.value"),
        (lambda: machine.signal(None, "paid", SECRET, correlation="7", keep=60, store=store), "$.value"),
        (lambda: machine.signal(run_id, SECRET, store=store), "$.name"),
        (lambda: machine.signal(None, SECRET, correlation="7", keep=60, store=store), "$.name"),
        (lambda: machine.signal(None, "paid", correlation=SECRET, keep=60, store=store), "$.correlation"),
    ):
        error = refused(store, run_id, Code.SECRET_IN_ANSWER, use, UsageError)
        assert error.info.details == {"path": path}
    assert store.signals() == []


@pytest.mark.parametrize("more", [{"by": ""}, {"by": 7}, {"comment": ""}, {"comment": "x" * 5000}])
def test_a_name_or_comment_that_is_none_is_refused(store, run_id, more):
    refused(store, run_id, Code.USAGE, lambda: machine.approve(run_id, store=store, **more), UsageError)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": math.nan},
        {"timeout": -1},
        {"timeout": "1"},
        {"timeout": None},
        {"timeout": True},
        {"key": 7},
    ],
)
def test_an_argument_that_is_none_is_refused_before_anything_is_written(store, run_id, options):
    refused(store, run_id, Code.USAGE, lambda: machine.approve(run_id, store=store, **options), UsageError)


def test_an_answer_stays_for_a_driver_that_does_not_read_it(store, run_id):
    with Keeper(store, run_id):  # it drives and never looks
        with pytest.raises(RunError) as caught:
            machine.approve(run_id, store=store, by="Ada", timeout=0.05)
        assert (caught.value.code, caught.value.info.retryable) == (Code.ANSWER_PENDING, True)
    assert len(store.inbox(run_id)) == 1
    assert machine.resume(run_id, plan=refund, store=store).context["answer"][1] == "Ada"


def test_signals_are_kept_and_taken_in_their_order(store):
    run_id = machine.run(two, store=store).run_id
    sent = [machine.signal(run_id, name, name, store=store) for name in ("other", "paid", "paid")]
    assert [(each.run_id, each.number, each.key) for each in sent] == [(run_id, n, None) for n in (1, 2, 3)]
    machine.approve(run_id, store=store)
    result = machine.resume(run_id, plan=two, store=store)
    assert (result.status, result.context["paid"]) == ("completed", "paid")
    assert machine.replay(run_id, plan=two, store=store).identical


def test_a_message_of_no_use_does_not_keep_a_run_due(store):
    run_id = machine.run(two, store=store).run_id
    machine.signal(run_id, "other", store=store)
    assert store.due_runs(0) == []
    store.post(run_id, "signal", {"name": "other"})  # by somebody who does not look
    assert store.due_runs(0) == [run_id]
    before = store.head(run_id)
    assert machine.resume(run_id, plan=two, store=store).status == "suspended"
    assert (store.head(run_id), store.due_runs(0)) == (before, [])
    store.post(run_id, "answer", {"key": "first", "answer": {"approved": True}})
    assert store.due_runs(0) == [run_id]


def test_an_answer_to_an_attempt_that_a_crash_left_open_is_in_the_log_too(store):
    run_id = machine.run(refund, store=store).run_id
    whole = list(store.read_range(run_id))
    cut = next(
        seq for seq, stored in enumerate(whole) if b'"type":"state_failed"' in stored.data
    )  # the process died while it waited
    with MemoryStore() as left:
        for stored in whole[:cut]:
            entry = codec.decode_entry(stored.seq, stored.data)
            for artifact_id in re.findall(rb"[0-9a-f]{64}", entry.body):
                if store.exists(artifact_id.decode()):
                    left.put(store.kind(artifact_id.decode()), store.get(artifact_id.decode()))
        for artifact_id in re.findall(rb'"provenance_id":"([0-9a-f]{64})"', whole[0].data):
            left.put("provenance", store.get(artifact_id.decode()))
        left.append(run_id, 0, whole[:cut])
        assert [wait.kind for wait in machine.waiting(store=left)] == ["approval"]
        machine.approve(run_id, store=left, by="Ada")
        result = machine.resume(run_id, plan=refund, store=left)
        assert (result.status, result.context["answer"][1]) == ("completed", "Ada")
        assert machine.replay(run_id, plan=refund, store=left).identical


def test_a_signal_that_a_run_waits_for_says_which_wait_took_it(store):
    run_id = machine.run(two, store=store).run_id
    machine.approve(run_id, store=store)
    assert machine.resume(run_id, plan=two, store=store).status == "suspended"
    assert machine.signal(run_id, "paid", 1, store=store).key == "paid"


@pytest.mark.parametrize(
    "arguments",
    [
        {"run_id": None},
        {"run_id": "RUN", "correlation": "7"},
        {"run_id": "RUN", "keep": 7},
        {"run_id": "RUN", "name": ""},
        {"run_id": None, "correlation": ""},
        {"run_id": None, "correlation": "7", "keep": 0},
        {"run_id": None, "correlation": "7", "keep": "1"},
        {"run_id": None, "correlation": "7", "keep": float("inf")},
    ],
)
def test_a_signal_to_nobody_is_refused(store, run_id, arguments):
    given = {"name": "paid", **arguments, **({"run_id": run_id} if arguments["run_id"] else {})}
    refused(store, run_id, Code.USAGE, lambda: machine.signal(store=store, **given), UsageError)
    assert store.signals() == []


def test_a_signal_by_correlation_needs_a_wait_unless_it_is_to_be_kept(store, run_id):
    refused(
        store, run_id, Code.NO_OPEN_WAIT, lambda: machine.signal(None, "paid", correlation="7", store=store)
    )
    assert store.signals() == []
    store.clock = Clock()
    assert machine.signal(None, "paid", 9, correlation="7", keep=60, store=store).number == 1
    (kept,) = store.signals("paid", "7")
    assert (kept.value, kept.expires_ms - kept.ts_millis) == (9, 60_000)


def test_what_is_waited_for_is_listed_with_the_commands_that_answer_it(store, run_id):
    other = machine.run(two, store=store).run_id
    sides = machine.run(pair, store=store).run_id
    left, _, first, ask = machine.waiting(store=store)
    assert (ask.run_id, ask.op, ask.kind, ask.state_id) == (
        run_id,
        "refund",
        "approval",
        "refund.ask.approval",
    )
    assert (ask.prompt, ask.data, ask.due_ms, ask.since_ms > 0) == (
        "Refund 7 EUR?",
        {"amount": 7},
        None,
        True,
    )
    assert ask.commands == (("approve", run_id), ("reject", run_id))
    assert (first.run_id, first.key, first.commands[0]) == (other, "first", ("approve", other))
    assert left.commands[0] == ("approve", sides, "side/left")
    machine.approve(other, store=store)
    machine.resume(other, plan=two, store=store)
    paid = machine.waiting(store=store)[2]
    assert (paid.kind, paid.name, paid.commands) == ("signal", "paid", (("signal", other, "paid"),))
