"""Configuration: what is taken, what is refused, how long a retry waits, and that JSON carries all of it."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import CONFIGS, FAST, MANIFESTS, PROVENANCES

from machine import canonical, codec
from machine.config import (
    BuildProvenance,
    EventProfile,
    ExponentialBackoff,
    FixedBackoff,
    IoMode,
    RetryPolicy,
    RunConfig,
    RunManifest,
)
from machine.errors import CodecError, ConfigError, IdError

YEAR = 365 * 24 * 3600
MANIFEST = {
    "op_id": "op",
    "op_version": "1",
    "input_params": {},
    "run_config": codec.to_json(RunConfig()),
}


def problems_of(value, kind):
    with pytest.raises(CodecError) as caught:
        codec.from_json(value, kind)
    assert caught.value.code == "malformed"
    return caught.value.problems


@pytest.mark.parametrize(
    ("kind", "values"), [(RunConfig, CONFIGS), (RunManifest, MANIFESTS), (BuildProvenance, PROVENANCES)]
)
def test_canonical_bytes_carry_every_valid_value(kind, values):
    @FAST
    @given(values)
    def holds(value):
        data = canonical.encode(codec.to_json(value))
        again = codec.from_json(canonical.decode(data), kind)
        assert again == value
        assert canonical.encode(codec.to_json(again)) == data

    holds()


def test_what_is_read_back_has_the_types_that_were_written():
    config = RunConfig(skip_tags=["report"], durability="facts", event_profile="minimal")
    again = codec.from_json(canonical.decode(canonical.encode(codec.to_json(config))), RunConfig)

    for field in attrs.fields(RunConfig):
        assert type(getattr(again, field.name)) is type(getattr(config, field.name)), field.name
    assert type(again.skip_tags[0]) is type(config.skip_tags[0])


@FAST
@given(MANIFESTS, MANIFESTS)
def test_equal_manifests_have_equal_ids_and_others_do_not(one, other):
    ids = [canonical.artifact_id(canonical.encode(codec.to_json(manifest))) for manifest in (one, other)]

    assert (ids[0] == ids[1]) == (codec.to_json(one) == codec.to_json(other))


def test_everything_has_the_default_the_documents_promise():
    assert codec.to_json(RunConfig()) == {
        "io_mode": "live",
        "retry_policy": {"max_attempts": 1, "backoff": {"type": "fixed", "delay": 0}},
        "event_profile": {"type": "normal", "name": None, "keep": []},
        "execution_mode": {"type": "sequential"},
        "context_checkpointing": {"type": "after_every_state"},
        "skip_tags": [],
        "durability": "effects",
        "replay_missing_fact_retryable": False,
        "exec_allow": ["/"],
    }


# -- retries -------------------------------------------------------------------------------------------------


@FAST
@given(st.floats(0, YEAR), st.integers(0, 10**6))
def test_a_fixed_delay_is_the_same_after_every_attempt(delay, attempt):
    assert FixedBackoff(delay).seconds(attempt) == delay
    assert RetryPolicy(2, FixedBackoff(delay)).delay_ms(attempt) == round(delay * 1000)


@FAST
@given(st.just(0) | st.floats(1e-6, YEAR), st.floats(0, YEAR), st.integers(0, 1000))
def test_an_exponential_delay_doubles_until_its_cap(base, cap, attempt):
    doubled = base
    for _ in range(attempt):
        doubled = min(doubled * 2, float(YEAR) * 2)

    assert ExponentialBackoff(base, cap).seconds(attempt) == pytest.approx(min(cap, doubled))


def test_delays_are_recorded_in_whole_milliseconds():
    policy = RetryPolicy(9, ExponentialBackoff(0.1, 1))

    assert [policy.delay_ms(attempt) for attempt in range(6)] == [100, 200, 400, 800, 1000, 1000]
    assert all(type(policy.delay_ms(attempt)) is int for attempt in range(6))


# -- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [-1, -0.001, YEAR + 1, float("inf"), float("nan"), True, "1", None, pytest.param(10**400, id="10**400")],
)
@pytest.mark.parametrize(
    "build",
    [FixedBackoff, ExponentialBackoff, lambda value: ExponentialBackoff(1, value)],
    ids=["delay", "base_delay", "max_delay"],
)
def test_a_delay_outside_zero_to_one_year_is_refused(build, value):
    with pytest.raises(ConfigError, match="must be a number of seconds from 0 to one year"):
        build(value)


@pytest.mark.parametrize("value", [0, -1, 1_000_001, 1.0, True, "3", None])
def test_max_attempts_is_a_whole_number_from_one(value):
    with pytest.raises(ConfigError, match="max_attempts must be a whole number from 1 to 1000000, not"):
        RetryPolicy(value)


@pytest.mark.parametrize(
    ("keywords", "problem"),
    [
        ({"type": "loud"}, "must be minimal, normal, verbose or custom, not 'loud'"),
        ({"type": "custom"}, "takes a name and keep exactly when it is custom"),
        ({"type": "normal", "name": "mine"}, "takes a name and keep exactly when it is custom"),
        ({"type": "minimal", "keep": ["tool_called"]}, "takes a name and keep exactly when it is custom"),
    ],
)
def test_an_event_profile_is_one_of_four_and_only_custom_has_a_name(keywords, problem):
    with pytest.raises(ConfigError, match=problem):
        EventProfile(**keywords)


@pytest.mark.parametrize("keep", ["tool_called", [7], None])
def test_the_names_a_custom_profile_keeps_are_a_list_of_strings(keep):
    with pytest.raises(ConfigError):
        EventProfile("custom", name="mine", keep=keep)


@pytest.mark.parametrize(
    "keywords",
    [
        {"io_mode": "dry"},
        {"undeclared_io": "refuse"},
        {"io_mode": []},
        {"durability": "never"},
        {"durability": None},
        {"skip_tags": "report"},
        {"exec_allow": ["bin"]},
        {"exec_allow": [7]},
        {"exec_allow": "/usr/bin"},
        {"exec_allow": "//"},
        {"event_profile": "loud"},
        {"event_profile": 7},
        {"retry_policy": 3},
        {"execution_mode": "fan_out_join"},
        {"context_checkpointing": "custom"},
        {"replay_missing_fact_retryable": "yes"},
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_meant_is_refused_as_a_config_error(keywords):
    with pytest.raises(ConfigError) as caught:
        RunConfig(**keywords)

    assert caught.value.code == "invalid_config"


def test_a_backoff_of_another_type_is_refused_as_a_config_error():
    with pytest.raises(ConfigError):
        RetryPolicy(3, backoff=0.5)


def test_skip_tags_are_a_set_of_valid_tags():
    assert RunConfig(skip_tags=["report", "compute", "report"]).skip_tags == ("compute", "report")
    with pytest.raises(IdError, match="Tag 'Report' is invalid"):
        RunConfig(skip_tags=["Report"])


def test_text_stands_for_a_mode_and_a_profile():
    config = RunConfig(io_mode="replay", event_profile="verbose")

    assert config.io_mode is IoMode.REPLAY
    assert config.event_profile == EventProfile("verbose")


def test_values_cannot_be_changed():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        RunConfig().durability = "facts"


# -- reading JSON --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"op_id": "Op"},
            "OpId 'Op' is invalid: a lowercase letter, then up to 62 of a-z, 0-9 and _ @ $.op_id",
        ),
        ({"op_version": 1}, "expected str, got int @ $.op_version"),
        ({"nope": 1}, "unknown fields: nope @ $"),
        ({"b": 1, "a": 1}, "unknown fields: a, b @ $"),
        (
            {"run_config": {"durability": "never"}},
            "expected one of effects, states, facts, got 'never' @ $.run_config.durability",
        ),
        ({"run_config": {"max_attempts": 3}}, "unknown fields: max_attempts @ $.run_config"),
        (
            {"run_config": {"retry_policy": {"max_attempts": True}}},
            "expected int, got bool @ $.run_config.retry_policy.max_attempts",
        ),
        (
            {"run_config": {"retry_policy": {"max_attempts": 0}}},
            "max_attempts must be a whole number from 1 to 1000000, not 0 @ $.run_config.retry_policy",
        ),
        (
            {"run_config": {"retry_policy": {"backoff": {"type": "linear"}}}},
            "type must be one of exponential, fixed, not 'linear' @ $.run_config.retry_policy.backoff",
        ),
        (
            {"run_config": {"retry_policy": {"backoff": {"type": "fixed", "delay": "1"}}}},
            "expected number, got str @ $.run_config.retry_policy.backoff.delay",
        ),
        (
            {"run_config": {"retry_policy": {"backoff": 1}}},
            "expected object, got int @ $.run_config.retry_policy.backoff",
        ),
        ({"run_config": {"exec_allow": "/"}}, "expected array, got str @ $.run_config.exec_allow"),
        (
            {"run_config": {"execution_mode": {"type": "fan_out_join"}}},
            "required field 'max_concurrency' is missing @ $.run_config.execution_mode.max_concurrency",
        ),
        (
            {"run_config": {"replay_missing_fact_retryable": 1}},
            "expected bool, got int @ $.run_config.replay_missing_fact_retryable",
        ),
    ],
    ids=lambda part: "" if isinstance(part, str) else str(part)[:40],
)
def test_a_problem_in_a_manifest_is_told_with_its_path(changes, problem):
    assert problems_of({**MANIFEST, **changes}, RunManifest) == [problem]


@pytest.mark.parametrize("field", sorted(MANIFEST))
def test_a_missing_field_is_named(field):
    rest = {key: value for key, value in MANIFEST.items() if key != field}

    assert problems_of(rest, RunManifest) == [f"required field {field!r} is missing @ $.{field}"]


def test_all_problems_of_a_document_are_told_at_once():
    problems = problems_of(
        {
            "op_id": "Op",
            "op_version": 1,
            "run_config": {"durability": 7, "retry_policy": {"max_attempts": "3", "backoff": {"type": "x"}}},
            "nope": 1,
        },
        RunManifest,
    )

    assert sorted(problem.rpartition(" @ ")[2] for problem in problems) == [
        "$",  # nope is unknown
        "$.input_params",  # missing
        "$.op_id",
        "$.op_version",
        "$.run_config.durability",
        "$.run_config.retry_policy.backoff",
        "$.run_config.retry_policy.max_attempts",
    ]


def test_every_wrong_item_of_an_array_is_told_with_its_index():
    problems = problems_of({"skip_tags": ["ok", "Bad", 7], "exec_allow": [1, "/", 2]}, RunConfig)

    assert sorted(problem.rpartition(" @ ")[2] for problem in problems) == [
        "$.exec_allow[0]",
        "$.exec_allow[2]",
        "$.skip_tags[1]",
        "$.skip_tags[2]",
    ]


@pytest.mark.parametrize("value", [None, 7, 1.5, True, "text", [], [1]], ids=repr)
@pytest.mark.parametrize("kind", [RunConfig, RunManifest, BuildProvenance])
def test_what_is_no_object_is_refused(kind, value):
    assert problems_of(value, kind)


@FAST
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*MANIFEST, *MANIFEST["run_config"], "type", "x"]), inner, max_size=6
            )
        ),
    )
)
def test_any_json_gives_a_value_or_a_codec_error(value):
    for kind in (RunConfig, RunManifest, BuildProvenance):
        try:
            assert isinstance(codec.from_json(value, kind), kind)
        except CodecError as exc:
            assert exc.problems  # noqa: PT017 - either outcome is right
