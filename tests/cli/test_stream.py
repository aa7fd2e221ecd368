"""`machine stream`: what a run has published, once or as it comes."""

from __future__ import annotations

import threading

import pytest
from crashes import left_after

import machine as library
from machine import Plan, open_store

TALKS = """
from machine import Plan

plan = Plan("talks", version="1")


@plan.state("say.it")
async def it(ctx, io):
    for n in range(3):
        await io.publish("log", {"n": n})
    await io.publish("odd", "two\\nlines \\u202e")
"""


@pytest.fixture
def talked(machine, write):
    write("talks.py", TALKS)
    return machine("run", "talks.py", "--json").json["run_id"]


def test_the_values_are_printed_one_a_line(machine, talked):
    said = machine("stream", talked, "log")
    assert (said.code, said.out, said.err) == (0, '1  {"n": 0}\n2  {"n": 1}\n3  {"n": 2}\n', "")
    assert machine("stream", "@last", "log", "--after", "2").out == '3  {"n": 2}\n'
    assert machine("stream", "@last", "odd").out == '1  "two\\nlines \\u202e"\n'


def test_json_is_one_object_with_the_state_and_the_time(machine, talked):
    said = machine("stream", talked, "log", "--after", "1", "--json", "--follow")
    assert said.code == 0
    assert {**said.json, "items": None} == {"run_id": talked, "stream": "log", "ended": True, "items": None}
    assert [(item["offset"], item["value"], item["state_id"]) for item in said.json["items"]] == [
        (2, {"n": 1}, "talks.say.it"),
        (3, {"n": 2}, "talks.say.it"),
    ]


def test_after_the_end_there_is_nothing(machine, talked):
    said = machine("stream", talked, "log", "--after", "99")
    assert (said.code, said.out, said.err) == (0, "", "")
    assert machine("stream", talked, "log", "--after", "99", "--follow").code == 0


def test_a_bundle_has_streams_too(machine, talked):
    machine("export", talked, "-o", "it.run")
    assert machine("stream", "it.run", "log", "--after", "2", "--follow").out == '3  {"n": 2}\n'


def test_an_unknown_stream_is_said_to_be_one(machine, talked):
    said = machine("stream", talked, "lag")
    assert (said.code, said.out) == (5, "")
    assert said.err == (
        f"error[stream_not_found]: run {talked} has no stream 'lag'\nhint: did you mean 'log'?\n"
    )
    assert machine("stream", talked, "zzz", "--follow").code == 5
    assert "hint: it has 'log', 'odd'\n" in machine("stream", talked, "zzz").err


@pytest.mark.parametrize("after", ["-1", "x", ""])
def test_an_offset_that_is_no_number_is_refused(machine, talked, after):
    said = machine("stream", talked, "log", f"--after={after}")
    assert said.code == 2
    assert said.err.startswith("error[usage]: ")


def test_an_unfinished_bundle_is_not_followed_for_ever(machine, talked, crashed_after):
    machine("export", crashed_after(talked, 4), "-o", "half.run")
    assert machine("stream", "half.run", "log", "--follow").out == '1  {"n": 0}\n2  {"n": 1}\n'
    assert machine("stream", "half.run", "odd", "--follow").out == ""


@pytest.fixture
def crashed_after(here):
    def crash(run_id, length):
        with open_store("sqlite:///.machine/runs.db") as store:
            return left_after(store, run_id, length)

    return crash


def test_follow_prints_what_comes_and_ends_with_the_run(machine, here):
    """The run goes on only when the follower has printed what there was before."""
    run_id = str(library.new_run_id())
    url = f"sqlite:///{here}/runs.db"
    begun, printed, results = threading.Event(), threading.Event(), []
    plan = Plan("talks")

    @plan.state("say.first")
    async def first(ctx, io):
        await io.publish("log", "before")

    @plan.state("say.second", after=[first])
    def second(ctx):
        begun.set()
        assert printed.wait(20)

    @plan.state("say.third", after=[second])
    async def third(ctx, io):
        await io.publish("log", "after")

    def drive():
        with open_store(url) as store:
            results.append(library.run(plan, store=store, run_id=run_id))

    def lines(session, offset, value):
        seen.append((offset, value, bool(results)))
        printed.set()

    seen = []
    driver = threading.Thread(target=drive)
    driver.start()
    try:
        assert begun.wait(20)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("machine.cli.stream._print", lines)
            said = machine("stream", run_id, "log", "--follow", "--store", url)
    finally:
        printed.set()
        driver.join(20)
    assert said.code == 0, said.err
    assert [each[:2] for each in seen] == [(1, "before"), (2, "after")]
    assert not seen[0][2], "it was printed while the run went on"
    assert results[0].status == "completed"
