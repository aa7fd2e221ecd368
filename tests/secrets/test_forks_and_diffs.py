"""Forks and diffs of runs with secrets: what is made of a run, or said of two, has no more of them than the run."""

from __future__ import annotations

import json

import pytest
from campaign import FULL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machine import RunConfig, diff_runs, fork, open_store, replay, run
from machine.recordings import diff_text
from tests.secrets.engine_world import Outside, elsewhere, stored
from tests.secrets.test_concurrent import (
    CONCURRENT,
    SIDE_BY_SIDE,
    TOKENS,
    VALUES,
    answer_of,
    facts_of,
    paced_plan,
)

SECRETS = (*VALUES, *TOKENS)
OTHER = str.maketrans("0123456789", "9876543210")
"""Makes another secret of the same form."""

drawn = settings(
    max_examples=100 if FULL else 6,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def shown(data):
    """Return which of the secrets, and of the other ones, stand in some bytes."""
    return {value for each in SECRETS for value in (each, each.translate(OTHER)) if value.encode() in data}


def other(value):
    """Return a JSON value with other secrets in the same places."""
    text = json.dumps(value)
    for each in SECRETS:
        text = text.replace(each, each.translate(OTHER))
    return json.loads(text)


def set_secrets(monkeypatch, make=str):
    for number, value in enumerate(VALUES):
        monkeypatch.setenv(f"KEY{number}", make(value))


@pytest.mark.parametrize("config", [RunConfig(), CONCURRENT], ids=["sequential", "concurrent"])
@drawn
@given(states=SIDE_BY_SIDE)
def test_a_fork_at_any_event_shows_no_more_and_replays_with_the_key_and_without(
    monkeypatch, tmp_path_factory, config, states
):
    set_secrets(monkeypatch)
    store, transports = open_store("memory://"), {"api": Outside(answer_of)}
    plan = paced_plan(states, [])
    whole = run(plan, store=store, config=config, transports=transports)
    told = shown(stored(store, whole.run_id))
    for at in range(1, whole.head_seq + 1):
        forked = fork(whole.run_id, at=at, plan=plan, store=store, transports=transports)
        assert (forked.result.error, forked.result.context) == (whole.error, whole.context), at
        assert facts_of(store, forked.run_id) == facts_of(store, whole.run_id), at
        assert shown(stored(store, forked.run_id)) <= told, at
        there = elsewhere(store, forked.run_id, tmp_path_factory.mktemp("a"))
        for place in (store, there):
            again = replay(forked.run_id, plan=plan, store=place)
            assert again.identical, (at, again.divergence)


@drawn
@given(states=SIDE_BY_SIDE, differs=st.booleans())
def test_a_diff_of_runs_with_other_secrets_finds_none_and_says_none(monkeypatch, states, differs):
    store, runs = open_store("memory://"), []
    for make in (str, other):
        set_secrets(monkeypatch, make)
        more = {"plain": make is str} if differs else {}

        def answer(request, make=make, more=more):
            return {**(answer_of(request) if make is str else other(answer_of(request))), **more}

        outside = {"api": Outside(answer)}
        result = run(paced_plan(states, []), store=store, config=CONCURRENT, transports=outside)
        runs.append(result.run_id)
    clear = shown(b"".join(stored(store, run_id) for run_id in runs))
    found = diff_runs(*runs, store=store)
    text = "\n".join(line for _, line in diff_text.marked(found))
    assert shown(f"{text}{json.dumps(found.to_json())}".encode()) <= clear
    calls = any(call not in ("read", "event", "literal") for calls, _ in states for call, _ in calls)
    if not clear:
        assert found.identical == (not (differs and calls)), text
