"""The way on from a state that failed: the command that is printed works when it is pasted."""

from __future__ import annotations

import re
import shlex

import pytest

import machine as library
from machine import Plan, RunConfig, export_run, fork, open_store, replay, resume, run
from machine.config import FanOutJoin
from machine.io.transport import BaseTransport
from machine.target import load

PLAN = """
from pathlib import Path
from machine import Plan, RetryPolicy

plan = Plan("pay")


@plan.state("a.ask")
async def ask(ctx, io, rec):
    ctx["asked"] = (await io.exec(["sh", "-c", "echo x >> asked; wc -l < asked"])).stdout.strip()


@plan.state("a.pay", after=[ask], side_effects="apply_side_effect", idempotency="p", retry=RetryPolicy(2))
async def pay(ctx, io, rec):
    paid = (await io.exec(["sh", "-c", "echo x >> paid; wc -l < paid"])).stdout.strip()
    ctx["paid"] = int(paid) / DIVISOR


@plan.state("a.end", after=[pay])
async def end(ctx, io, rec):
    ctx["end"] = True
"""


@pytest.fixture
def broken(write):
    return write("pay.py", PLAN.replace("DIVISOR", "0"))


def pasted(text):
    """Return the words of the command that stands in a note."""
    (command,) = re.findall(r"^once it is repaired: machine (.*)$", text, re.MULTILINE)
    return shlex.split(command)


def lines_of(here, name):
    return len((here / name).read_text().splitlines())


@pytest.mark.parametrize("store", [(), ("--store", "elsewhere.db")])
def test_the_command_that_a_failed_run_prints_goes_on_and_pays_nothing_twice(
    machine, here, broken, write, store
):
    said = machine("run", "pay.py", *store)
    assert said.code == 1
    words = pasted(said.err)
    for command in (("resume", "@last"), ("show", "@last")):
        again = machine(*command, *store)
        assert pasted(again.err) == words
    failing = machine(*words)
    assert failing.code == 1, "nothing was mended yet"
    assert pasted(failing.err)[1] != words[1], "it has a way on of its own"

    write("pay.py", PLAN.replace("DIVISOR", "2"))
    went_on = machine(*words)
    assert went_on.code == 0, went_on.err
    assert (lines_of(here, "asked"), lines_of(here, "paid")) == (1, 1)
    assert machine("replay", "@last", *store).code == 0
    then = machine(*pasted(failing.err))
    assert then.code == 1, "the retry that failed was what the first command retried"
    assert "error[retried_already]" in then.err
    assert lines_of(here, "paid") == 1


def test_the_command_names_the_target_that_was_given_or_asks_for_one(machine, here, broken, write):
    with open_store("sqlite:///.machine/runs.db") as store:
        result = run(load("pay.py", here).plan, store=store)  # which does not say where its plan is
        export_run(result.run_id, "left.run", store=store)
    at = str(result.fork_at)
    assert pasted(machine("show", "@last").err) == ["retry", result.run_id, "--target", "TARGET"]
    assert pasted(machine("show", "left.run").err) == ["fork", "left.run", "--at", at, "--target", "TARGET"]
    words = pasted(machine("resume", "@last", "--target", "pay.py").err)
    assert words == ["retry", result.run_id, "--target", "pay.py"]
    write("pay.py", PLAN.replace("DIVISOR", "1"))
    assert machine(*words).code == 0
    assert machine("fork", "left.run", "--at", at, "--target", "pay.py").code == 0


def test_what_did_not_fail_has_no_way_on(machine, plan_file):
    said = machine("run", "prices.py")
    assert said.code == 0
    for text in (said.err, machine("show", "@last").err, machine("resume", "@last").err):
        assert "once it is repaired" not in text
    assert machine("show", "@last", "--json").json["fork_at"] is None


def test_a_program_is_given_the_event_and_no_note(machine, broken):
    said = machine("run", "pay.py", "--json")
    assert "once it is repaired" not in said.err
    shown = machine("show", "@last", "--json").json
    assert said.json["fork_at"] == shown["fork_at"] == shown["head_seq"] - 5


SECRET = """
from machine import Plan

plan = Plan("ask")


@plan.state("a.ask")
def ask(ctx, io):
    ctx["length"] = len(io.secret("TOKEN_OF_THIS_TEST"))
"""


def test_a_secret_that_is_not_set_has_one_advice_which_works(machine, write, monkeypatch):
    write("ask.py", SECRET)
    said = machine("run", "ask.py")
    assert said.code == 1
    (told,) = (line for line in said.err.splitlines() if line.startswith("error[secret_not_set]"))
    assert told.startswith("error[secret_not_set]: environment variable TOKEN_OF_THIS_TEST is not set (")
    monkeypatch.setenv("TOKEN_OF_THIS_TEST", "a-token-of-some-length")
    went_on = machine(*pasted(said.err))
    assert went_on.code == 0, went_on.err
    assert machine("context", "@last").json == {"length": 22}


DEADLY = """
import os

from machine import Plan

plan = Plan("deadly")


@plan.state("a.first")
async def first(ctx, io, rec):
    ctx["first"] = (await io.exec(["sh", "-c", "echo x >> first"])).stdout


@plan.state("a.dies", after=[first])
def dies(ctx, io, rec):
    os._exit(9)
"""


@pytest.mark.slow
def test_a_run_that_kills_its_process_has_a_way_on(machine, process, here, write):
    write("deadly.py", DEADLY)
    write("two.json", '{"recoveries": 2}')
    process("run", "deadly.py", "--config", "two.json", "--undeclared-io", "allow")
    said = next(said for _ in range(9) if (said := process("resume", "@last")).code != 9)
    assert said.code == 1
    assert "error[recovery_limit]" in said.err
    words = pasted(said.err)
    for command in (("resume", "@last"), ("show", "@last")):
        assert pasted(machine(*command).err) == words
        assert machine(*command, "--json").json["fork_at"] is not None
    shown = machine("show", "@last").out
    assert shown.count("error[") == shown.count("error[recovery_limit]") == 1

    before = lines_of(here, "first")
    write("deadly.py", DEADLY.replace("os._exit(9)", "pass"))
    went_on = machine(*words)
    assert went_on.code == 0, went_on.err
    assert lines_of(here, "first") == before
    assert machine("replay", "@last").code == 0


def test_the_fork_does_not_tell_of_a_crash_where_there_was_none(machine, broken, write):
    said = machine("run", "pay.py")
    write("pay.py", PLAN.replace("DIVISOR", "2"))
    told = machine(*pasted(said.err)).err
    assert re.search(r"a\.pay +made again +- +the fork begins within its last attempt\n", told)
    assert "crash" not in told
    assert "recovered" not in told


@pytest.fixture
def store():
    with open_store("memory://") as opened:
        yield opened


def test_where_the_outside_is_what_failed_it_is_asked_again(machine, here, write):
    write(
        "ask.py",
        """
        from machine import Plan, RetryPolicy

        plan = Plan("ask")


        @plan.state
        async def first(ctx, io, rec):
            ctx["first"] = (await io.exec(["sh", "-c", "echo x >> first"])).stdout


        @plan.state(after=[first], retry=RetryPolicy(2))
        async def ask(ctx, io, rec):
            (await io.exec(["sh", "-c", "test -e there"])).check()
        """,
    )
    said = machine("run", "ask.py")
    assert said.code == 1
    assert "error[exec_status]" in said.err
    write("there", "")
    went_on = machine(*pasted(said.err))
    assert went_on.code == 0, went_on.err
    assert lines_of(here, "first") == 1
    assert machine("replay", "@last").code == 0


def test_a_result_says_where_to_fork_from_python(store):
    mended = []
    plan = Plan("op")

    @plan.state("a.first")
    async def first(ctx, io, rec):
        ctx["at"] = await io.now()
        if not mended:
            raise ValueError("broken")

    result = run(plan, store=store, config=RunConfig(retry_policy=library.RetryPolicy(3)))
    assert resume(result.run_id, plan=plan, store=store).fork_at == result.fork_at
    mended.append(True)
    forked = fork(result.run_id, plan=plan, store=store, at=result.fork_at).result
    assert (forked.status, forked.fork_at) == ("completed", None)
    assert replay(forked.run_id, plan=plan, store=store).identical


def test_an_effect_that_only_a_later_attempt_came_to_is_not_sent_again(store):
    sent, broken = [], [True]

    class Receiver(BaseTransport):
        def is_effect(self, namespace, request):
            return True

        async def perform(self, namespace, request):
            sent.append(request)
            return len(sent)

    plan = Plan("op", transports={"pay": Receiver()})
    tries = iter([True])

    @plan.state("a.pay", side_effects="apply_side_effect", idempotency="k")
    async def pay(ctx, io, rec):
        if next(tries, False):
            raise ValueError("before it paid")
        ctx["paid"] = (await io.call("pay", {})).response
        if broken:
            raise ValueError("after it paid")

    result = run(plan, store=store, config=RunConfig(retry_policy=library.RetryPolicy(4)))
    assert (result.status, sent) == ("failed", [{}])
    broken.clear()
    forked = fork(result.run_id, plan=plan, store=store, at=result.fork_at).result
    assert (forked.status, forked.context, sent) == ("completed", {"paid": 1}, [{}])


def test_of_several_that_failed_all_are_made_again(store):
    mended = []
    plan = Plan("op")

    def failing(ctx, io, rec):
        if not mended:
            raise ValueError("broken")

    for name in ("a.one", "a.two", "a.three"):
        plan.state(name)(failing)
    result = run(plan, store=store, config=RunConfig(execution_mode=FanOutJoin(3)))
    assert result.status == "failed"
    mended.append(True)
    assert fork(result.run_id, plan=plan, store=store, at=result.fork_at).result.status == "completed"


def test_a_state_that_timed_out_has_a_way_on_and_a_cancelled_run_has_none(store):
    slow = [5]
    plan = Plan("op")

    @plan.state("a.first", timeout=0.1)
    async def first(ctx, io, rec):
        await io.sleep(slow[0])

    result = run(plan, store=store)
    assert result.error.code == "state_timeout"
    slow[0] = 0
    assert fork(result.run_id, plan=plan, store=store, at=result.fork_at).result.status == "completed"


def test_a_run_that_failed_where_no_state_did_has_no_way_on(store):
    plan = Plan("op")
    plan.state("a.one")(lambda ctx, io, rec: ctx.__setitem__("k", 1))
    plan.state("a.two")(lambda ctx, io, rec: ctx.__setitem__("k", 2))
    result = run(plan, store=store, config=RunConfig(execution_mode=FanOutJoin(2)))
    assert (result.error.code, result.fork_at) == ("context_conflict", None)
