"""The failures that are retried, the delay that is left to chance, and the budget of a whole run."""

from __future__ import annotations

import importlib
import json
import sys

import attrs
import pytest

from machine import (
    ExponentialBackoff,
    Failure,
    FixedBackoff,
    Plan,
    RetryPolicy,
    RunConfig,
    export_run,
    open_bundle,
    replay,
    run,
)
from machine.codec import decode_entry, from_json, to_json
from machine.config import FanOutJoin
from machine.engine.log import LiveLog
from machine.errors import ConfigError, PlanError, RateLimitedError
from machine.events import RetryScheduled, RunCompleted, StateFailed
from machine.stores.memory import MemoryStore
from tests.retry_errors import Broken, Flaky, VeryFlaky

MODES = {"sequential": RunConfig(), "concurrent": RunConfig(execution_mode=FanOutJoin(4))}
modes = pytest.mark.parametrize("mode", MODES)


def always(exc, **options):
    """Return a plan of one state whose every attempt raises an exception."""
    plan = Plan("op")

    @plan.state("step.only", **options)
    async def only():
        raise exc

    return plan


def of(store, run_id, kind):
    entries = (decode_entry(event.seq, event.data) for event in store.read_range(run_id))
    return [entry.event for entry in entries if isinstance(entry.event, kind)]


def attempts_after(exc, **policy):
    """Return how often a state that raises an exception was tried, and check that the run replays."""
    store = MemoryStore()
    plan = always(exc, retry=RetryPolicy(2, **policy))
    result = run(plan, store=store)
    assert result.status == "failed"
    assert replay(result.run_id, plan=plan, store=store).identical
    return len(of(store, result.run_id, StateFailed))


# -- which failures are retried ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exc", "policy", "attempts"),
    [
        (Flaky(), {}, 2),
        (Flaky(), {"retry_on": [Flaky]}, 2),
        (VeryFlaky(), {"retry_on": [Flaky]}, 2),
        (Flaky(), {"retry_on": ["tests.retry_errors:Flaky"]}, 2),
        (Broken(), {"retry_on": [Flaky]}, 1),
        (Flaky(), {"give_up_on": [Broken]}, 2),
        (Broken(), {"give_up_on": [Broken]}, 1),
        (VeryFlaky(), {"retry_on": [Flaky], "give_up_on": [VeryFlaky]}, 1),
        (TimeoutError(), {"retry_on": [OSError]}, 2),
        (Flaky(), {"retry_on": ["handler_error"]}, 2),
        (Failure("no", code="out_of_stock"), {}, 1),
        (Failure("no", code="out_of_stock"), {"retry_on": ["out_of_stock"]}, 2),
        (Failure("no", code="other"), {"retry_on": ["out_of_stock"]}, 1),
        (RateLimitedError("slow", retry_after=0), {"give_up_on": ["rate_limited"]}, 1),
    ],
)
def test_a_failure_is_retried_as_the_policy_says_by_code_and_by_class(exc, policy, attempts):
    assert attempts_after(exc, **policy) == attempts


@pytest.mark.parametrize(
    ("members", "attempts"),
    [([Flaky(), VeryFlaky()], 2), ([Flaky(), Broken()], 1), ([Broken()], 1), ([VeryFlaky()], 2)],
)
def test_a_group_is_retried_only_if_every_leaf_is(members, attempts):
    nested = ExceptionGroup("inner", members)

    assert attempts_after(ExceptionGroup("outer", [nested, Flaky()]), retry_on=[Flaky]) == attempts


@pytest.mark.parametrize(("policy", "attempts"), [({}, 2), ({"give_up_on": ["state_timeout"]}, 1)])
def test_a_timeout_is_retried_as_the_policy_says(policy, attempts):
    plan, store = Plan("op"), MemoryStore()

    @plan.state("step.only", timeout=0.01, retry=RetryPolicy(2, **policy))
    async def only(io):
        await io.sleep(5)

    result = run(plan, store=store)

    assert len(of(store, result.run_id, StateFailed)) == attempts
    assert replay(result.run_id, plan=plan, store=store).identical


def test_the_policy_of_the_run_says_it_too():
    store = MemoryStore()
    config = RunConfig(retry_policy=RetryPolicy(3, give_up_on=[Broken]))

    result = run(always(Broken()), store=store, config=config)

    assert len(of(store, result.run_id, StateFailed)) == 1
    assert not result.error.retryable


# -- classes by name --------------------------------------------------------------------------------------------


class OfThisModule(Exception):  # noqa: N818 - a plain name for tests
    pass


def test_a_class_is_in_the_plan_by_its_name_and_defaults_are_absent():
    policy = RetryPolicy(2, retry_on=[OfThisModule, "http_timeout"])

    assert to_json(policy)["retry_on"] == [f"{__name__}:OfThisModule", "http_timeout"]
    assert from_json(to_json(policy), RetryPolicy) == policy
    assert set(to_json(RetryPolicy(3))) == {"max_attempts", "backoff"}
    assert "retry_budget" not in to_json(RunConfig())


def test_a_policy_that_is_read_from_a_recording_imports_nothing(monkeypatch):
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail(f"imported {name}"))

    read = from_json({"max_attempts": 2, "retry_on": ["this_module_is_nowhere:Error"]}, RetryPolicy)

    assert read.retry_on == ("this_module_is_nowhere:Error",)
    assert "this_module_is_nowhere" not in sys.modules


def test_a_class_without_an_importable_name_is_refused():
    class Local(Exception):  # noqa: N818 - a plain name for tests
        pass

    for cls in (Local, int):
        with pytest.raises(PlanError) as caught:
            RetryPolicy(2, retry_on=[cls])
        assert caught.value.code == "retry_class_unknown"


@pytest.mark.parametrize(
    "name",
    ["nowhere_at_all:Error", "json:Nope", "json:loads", "json.decoder:scanner", "json:JSONDecodeError"],
)
def test_a_class_that_cannot_be_imported_by_its_name_is_refused_before_anything_is_written(name):
    store = MemoryStore()
    with pytest.raises(PlanError) as in_plan:
        always(Flaky(), retry=RetryPolicy(2, retry_on=[name]))
    with pytest.raises(PlanError) as in_config:
        run(always(Flaky()), store=store, config=RunConfig(retry_policy=RetryPolicy(2, give_up_on=[name])))

    assert in_plan.value.code == in_config.value.code == "retry_class_unknown"
    assert name in in_plan.value.message
    assert store.list_runs().rows == []


@pytest.mark.parametrize(
    "policy",
    [
        {"retry_on": "http_timeout"},
        {"retry_on": Flaky},
        {"retry_on": ["Not A Code"]},
        {"retry_on": ["module:"]},
        {"retry_on": [lambda: None]},
        {"retry_on": ["run_cancelled"]},
        {"retry_on": [Flaky], "give_up_on": [Flaky]},
        {"jitter": 2, "backoff": FixedBackoff(1)},
        {"jitter": -0.1, "backoff": FixedBackoff(1)},
        {"jitter": 0.5},
        {"jitter": True, "backoff": FixedBackoff(1)},
    ],
)
def test_a_policy_that_means_nothing_is_refused(policy):
    with pytest.raises(ConfigError) as caught:
        RetryPolicy(2, **policy)
    assert caught.value.code == "invalid_config"


# -- jitter -----------------------------------------------------------------------------------------------------


def jittered(chosen, monkeypatch, exc=None, jitter=1.0):
    """Return the recorded delay of a run whose live choices are these, and whether it replays."""
    asked = []

    def choose_ms(self, least, most):
        asked.append((least, most))
        return chosen

    store, policy = MemoryStore(), RetryPolicy(2, ExponentialBackoff(0.005), jitter=jitter)
    plan = always(exc or Flaky(), retry=policy)
    with monkeypatch.context() as patched:
        patched.setattr(LiveLog, "choose_ms", choose_ms)
        result = run(plan, store=store)
    [event] = of(store, result.run_id, RetryScheduled)
    return event.delay_ms, asked, replay(result.run_id, plan=plan, store=store)


def test_the_delay_that_was_chosen_is_recorded_and_a_replay_takes_it(monkeypatch):
    for chosen in (0, 2, 5):
        delay_ms, asked, replayed = jittered(chosen, monkeypatch)
        assert (delay_ms, asked, replayed.identical) == (chosen, [(0, 5)], True)


def test_a_delay_that_the_policy_cannot_have_chosen_is_a_divergence(monkeypatch):
    assert not jittered(6, monkeypatch)[2].identical
    assert not jittered(1, monkeypatch, jitter=0.5)[2].identical


def test_a_retry_is_never_before_the_time_that_a_service_asked_for(monkeypatch):
    asked = jittered(20, monkeypatch, exc=RateLimitedError("slow", retry_after=0.02))[1]

    assert asked == [(20, 20)]


def test_chance_stays_within_the_share_and_is_no_seed_of_a_handler():
    log = LiveLog.__new__(LiveLog)
    chosen = {log.choose_ms(3, 7) for _ in range(400)}

    assert chosen == {3, 4, 5, 6, 7}
    assert log.choose_ms(4, 4) == 4


# -- the budget of a run ----------------------------------------------------------------------------------------


@modes
@pytest.mark.parametrize("budget", [1, 2, 5])
def test_a_run_makes_exactly_as_many_retries_as_its_budget(mode, budget):
    store = MemoryStore()
    plan = Plan("op")
    for each in range(3):

        @plan.state(f"step.s{each}")
        async def state():
            raise Flaky

    config = attrs.evolve(MODES[mode], retry_budget=budget, retry_policy=RetryPolicy(9))
    result = run(plan, store=store, config=config)

    assert (result.status, result.error.code) == ("failed", "retry_budget_spent")
    assert len(of(store, result.run_id, RetryScheduled)) == budget
    assert result.error.details["retry_budget"] == budget
    assert result.error.details["code"] == "handler_error"
    replayed = replay(result.run_id, plan=plan, store=store)
    assert replayed.identical, replayed
    assert replayed.digest == result.digest


@modes
def test_a_failure_that_is_not_retried_anyway_uses_no_budget(mode):
    store = MemoryStore()
    config = attrs.evolve(MODES[mode], retry_budget=1)

    result = run(always(Flaky(), retry=RetryPolicy(2)), store=store, config=config)

    assert result.error.code == "handler_error"
    [ended] = of(store, result.run_id, RunCompleted)
    assert ended.error is None


@pytest.mark.parametrize("budget", [0, -1, True, 1.5, "2"])
def test_a_budget_that_is_none_is_refused(budget):
    with pytest.raises(ConfigError) as caught:
        RunConfig(retry_budget=budget)
    assert caught.value.code == "invalid_config"


# -- bundles ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(retry_budget=3),
        RunConfig(retry_policy=RetryPolicy(2, retry_on=["http_timeout"])),
        RunConfig(retry_policy=RetryPolicy(2, FixedBackoff(0.001), jitter=0.5)),
        RunConfig(),
    ],
    ids=["budget", "retry_on", "jitter", "none"],
)
def test_an_older_program_refuses_the_bundle_of_a_run_that_it_cannot_judge(config, tmp_path):
    store = MemoryStore()
    result = run(always(Failure("no", code="no")), store=store, config=config)
    path = tmp_path / "of.run"
    data = export_run(result.run_id, path, store=store)

    assert json.loads(data.split(b"\n")[0])["bundle"]["version"] == (1 if config == RunConfig() else 6)
    with open_bundle(path) as bundle:
        assert replay(bundle.run_id, plan=always(Failure("no", code="no")), store=bundle.store).identical
