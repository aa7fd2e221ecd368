"""The catalogue knows every kind of domain event, and lets through exactly what its classes say."""

from __future__ import annotations

import datetime as dt
import json
import pathlib
import subprocess
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import machine.catalogue
from machine import canonical
from machine.catalogue import (
    STANDARD,
    Catalogue,
    Count,
    Custom,
    ErrorInfo,
    Kind,
    Level,
    ModelTelemetry,
    Provenance,
    Ratio,
    Time,
    ToolCallFailed,
    ToolCallStarted,
    render_markdown,
)
from machine.catalogue.field_types import MAX_INTEGER, field_types
from machine.errors import Code, CodecError, UsageError
from machine.ids import ArtifactId, ContextKey, OpId, OpPath, RunId, StateId

ROOT = pathlib.Path(__file__).parent.parent


def words(text: str) -> list[str]:
    """Split a list that is easier to read as lines of words."""
    return text.split()


ESSENTIAL = words("""
    interrupt_raised approval_received external_event_received
    budget_exceeded token_budget_exceeded cost_budget_exceeded autonomy_limit_reached
    circuit_breaker_tripped escalation_required policy_violation tool_approval_required strategy_limit_hit
""")
VERBOSE = words("coordinator_scoring agent_tool_progress agent_tool_turn")
KERNEL = words("""
    run_started state_entered state_completed state_skipped state_failed retry_scheduled fact_recorded
    effect_intended run_suspended run_resumed run_completed
""")

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
INTEGERS = st.integers(-MAX_INTEGER, MAX_INTEGER)
JSON = st.recursive(
    st.none() | st.booleans() | INTEGERS | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
BY_TYPE: Mapping[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    int: INTEGERS,
    float: FLOATS,
    bool: st.booleans(),
    Any: JSON,
    Count: st.integers(0, MAX_INTEGER),
    Ratio: st.floats(0, 1),
    Time: st.datetimes(timezones=st.just(dt.UTC)).map(dt.datetime.isoformat),
    ArtifactId: st.binary(max_size=4).map(canonical.artifact_id).map(ArtifactId),
    ContextKey: st.sampled_from(["a", "orders/3", "é"]).map(ContextKey),
    OpId: st.sampled_from(["pay", "a_1"]).map(OpId),
    OpPath: st.just(OpPath("pay.collect")),
    RunId: st.uuids().map(str).map(RunId),
    StateId: st.just(StateId("pay.collect.fetch")),
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Generate values of a field's type."""
    if hint in BY_TYPE:
        return BY_TYPE[hint]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        return st.one_of(*(st.none() if arg is type(None) else values(arg) for arg in args))
    if origin is Literal:
        return st.sampled_from(args)
    if origin is tuple:
        return st.lists(values(args[0]), max_size=3).map(tuple)
    if origin is Mapping:
        return st.dictionaries(TEXT, values(args[1]), max_size=3)
    return instances(hint)


def instances(payload: type[Any]) -> st.SearchStrategy[Any]:
    """Generate instances of a payload class from its fields."""
    return st.builds(payload, **{name: values(hint) for name, hint in field_types(payload).items()})


def problems(name: str, payload: Any, catalogue: Catalogue = STANDARD) -> list[str]:
    with pytest.raises(CodecError) as caught:
        catalogue.validate(name, payload)
    assert caught.value.code == Code.MALFORMED
    return caught.value.problems


# -- the standard catalogue ----------------------------------------------------------------------------------


def test_each_kind_has_the_level_of_its_group() -> None:
    assert sorted(kind.name for kind in STANDARD if kind.level is Level.ESSENTIAL) == sorted(ESSENTIAL)
    assert sorted(kind.name for kind in STANDARD if kind.level is Level.VERBOSE) == sorted(VERBOSE)


def test_an_unknown_name_is_normal() -> None:
    assert STANDARD.level("never_heard_of") is Level.NORMAL


def test_a_level_is_its_word() -> None:
    assert [str(level) for level in Level] == ["essential", "normal", "verbose"]


def test_the_order_of_kinds_is_that_of_registration() -> None:
    names = [kind.name for kind in STANDARD]
    assert (names[0], names[-1]) == ("workflow_started", "provenance")
    assert len(STANDARD) == len(names) == len(set(names))
    assert Catalogue(tuple(STANDARD)) == STANDARD


@pytest.mark.parametrize("kind", STANDARD, ids=lambda kind: kind.name)
def test_every_payload_is_a_frozen_slotted_class_with_one_sentence_and_few_required_fields(
    kind: Kind,
) -> None:
    assert attrs.has(kind.payload)
    assert "__slots__" in vars(kind.payload)
    assert kind.payload.__setattr__ is not object.__setattr__
    doc = kind.payload.__doc__ or ""
    assert doc.endswith(".")
    assert "\n" not in doc
    fields = attrs.fields(kind.payload)
    assert sum(field.default is attrs.NOTHING for field in fields) <= 5
    assert all(field.default in {attrs.NOTHING, None} for field in fields) or kind.name == "provenance"


@pytest.mark.parametrize("kind", STANDARD, ids=lambda kind: kind.name)
def test_no_time_and_no_count_is_a_float(kind: Kind) -> None:
    for name, hint in field_types(kind.payload).items():
        if name.endswith(("_ms", "_usd_micros", "_tokens")):
            assert float not in {hint, *typing.get_args(hint)}


@pytest.mark.parametrize("kind", STANDARD, ids=lambda kind: kind.name)
def test_every_kind_survives_the_log(kind: Kind) -> None:
    @settings(max_examples=8, deadline=None, database=None)
    @given(instances(kind.payload))
    def check(instance: Any) -> None:
        payload = STANDARD.validate(kind.name, instance)
        recorded = canonical.decode(canonical.encode(payload))
        assert STANDARD.structure(kind.name, recorded) == instance
        assert STANDARD.validate(kind.name, recorded) == payload
        absent = {field.name for field in attrs.fields(kind.payload) if field.default is None}
        assert not [name for name in absent if name in payload and payload[name] is None]

    check()


@pytest.mark.parametrize("kind", STANDARD, ids=lambda kind: kind.name)
def test_every_kind_is_found_by_its_class(kind: Kind) -> None:
    assert STANDARD.name_of(kind.payload) == kind.name
    assert getattr(machine.catalogue, kind.payload.__name__) is kind.payload


def test_a_class_of_no_kind_has_no_name() -> None:
    with pytest.raises(UsageError, match="Gauge is not the payload of any registered kind"):
        STANDARD.name_of(Gauge)


# -- what is let through -------------------------------------------------------------------------------------


def test_an_instance_and_its_mapping_give_the_same_payload() -> None:
    error = ErrorInfo("offline", "no answer")
    telemetry = ModelTelemetry("acme", "m-2", cost_usd_micros=1_250)
    instance = ToolCallFailed("c1", "search", error, model=telemetry)
    mapping = {
        "tool_call_id": "c1",
        "tool_name": "search",
        "error": {"code": "offline", "message": "no answer"},
        "duration_ms": None,
        "model": {"provider": "acme", "model": "m-2", "cost_usd_micros": 1250},
    }
    expected = {key: item for key, item in mapping.items() if item is not None}
    assert STANDARD.validate("tool_call_failed", instance) == expected
    assert STANDARD.validate("tool_call_failed", mapping) == expected


def test_an_instance_may_stand_inside_a_mapping() -> None:
    mapping = {"output": 1, "state_patch": None, "duration_ms": 3, "provenance": Provenance("m-2")}
    payload = STANDARD.validate("node_completed", mapping)
    assert payload["provenance"] == {"model_id": "m-2", "verified": False, "evidence_refs": []}
    assert payload["state_patch"] is None


def test_identifiers_come_out_as_plain_strings() -> None:
    snapshot = canonical.artifact_id(b"")
    written = {"artifact_id": ArtifactId(snapshot), "kind": "output", "meta": {}}
    payload = STANDARD.validate("artifact_written", written)
    assert type(payload["artifact_id"]) is str
    assert type(STANDARD.structure("artifact_written", payload).artifact_id) is ArtifactId


def test_a_required_value_may_be_null_where_any_json_may_stand() -> None:
    assert STANDARD.validate("custom", Custom("ping", None)) == {"event_type": "ping", "data": None}


def test_a_payload_is_a_copy() -> None:
    data = {"list": [1]}
    payload = STANDARD.validate("custom", {"event_type": "ping", "data": data})
    data["list"].append(2)
    assert payload["data"] == {"list": [1]}


def test_an_unknown_name_takes_any_json_object() -> None:
    payload = {"list": [1, None, {"x": 0.5}], "tuple": (True, "é")}
    expected = {"list": [1, None, {"x": 0.5}], "tuple": [True, "é"]}
    assert STANDARD.validate("my_event", payload) == expected
    assert STANDARD.structure("my_event", payload) == Custom("my_event", expected)


def test_a_number_that_canonical_json_writes_as_an_integer_is_still_a_number() -> None:
    written = b'{"limit_usd":1,"current_usd":26891474302071210}'
    exceeded = {"limit_usd": 1.0, "current_usd": 2.689147430207121e16}
    for recorded in (canonical.decode(canonical.encode(exceeded)), json.loads(written)):
        typed = STANDARD.structure("cost_budget_exceeded", recorded)
        assert (typed.limit_usd, typed.current_usd) == (1.0, 2.689147430207121e16)
        assert {type(typed.limit_usd), type(typed.current_usd)} == {float}


# -- what is refused -----------------------------------------------------------------------------------------


def test_all_problems_are_told_at_once_each_with_its_path() -> None:
    payload = {
        "output": 3,
        "duration_ms": "3",
        "gen_ai_model": 3,
        "state_path": "x",
        "provenance": {"confidence": "1", "evidence_refs": ["a", b"b"], "verified": 1, "by": "me"},
    }
    assert problems("node_completed", payload) == [
        "required field 'state_patch' is missing @ $.state_patch",
        "expected integer, got str @ $.duration_ms",
        "expected string, got int @ $.gen_ai_model",
        "expected number, got str @ $.provenance.confidence",
        "expected boolean, got int @ $.provenance.verified",
        "expected string, got bytes @ $.provenance.evidence_refs[1]",
        "unknown fields: by @ $.provenance",
        "unknown fields: state_path @ $",
    ]


def test_an_instance_is_checked_as_strictly_as_a_mapping() -> None:
    telemetry = ModelTelemetry("acme", None, input_tokens=True, output_tokens=-1)  # type: ignore[arg-type]
    failed = ToolCallFailed("c1", 7, ErrorInfo("offline", "no answer"), model=telemetry)  # type: ignore[arg-type]
    assert problems("tool_call_failed", failed) == [
        "expected string, got int @ $.tool_name",
        "expected string, got NoneType @ $.model.model",
        "expected integer, got bool @ $.model.input_tokens",
        "expected 0 or more, got -1 @ $.model.output_tokens",
    ]


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("text", 3, "expected string, got int"),
        ("text", b"x", "expected string, got bytes"),
        ("text", "\ud800", "a lone surrogate is not JSON"),
        ("integer", "3", "expected integer, got str"),
        ("integer", 3.0, "expected integer, got float"),
        ("integer", True, "expected integer, got bool"),
        ("integer", 2**53, "an integer beyond 2^53-1 is not JSON; write it as a string"),
        ("number", "0.5", "expected number, got str"),
        ("number", True, "expected number, got bool"),
        ("number", float("nan"), "nan is not JSON"),
        ("number", float("-inf"), "-inf is not JSON"),
        ("number", 2**53 + 1, "9007199254740993 is not a JSON number; the nearest is 9007199254740992.0"),
        ("truth", 1, "expected boolean, got int"),
        ("truth", "true", "expected boolean, got str"),
        ("choice", "c", 'expected "a" or "b", got \'c\''),
        ("choice", ["a"], 'expected "a" or "b", got [\'a\']'),
        ("items", "ab", "expected list, got str"),
        ("items", {"a": 1}, "expected list, got dict"),
        ("items", {"a"}, "expected list, got set"),
        ("table", [["a", 1]], "expected object, got list"),
        ("artifact", "00", "ArtifactId '00' is invalid: 64 lowercase hex digits"),
        ("level", "loud", "'loud' is not a valid Level"),
        ("moment", "2026-11-30", "expected RFC 3339 time, got '2026-11-30'"),
        ("moment", "2026-11-30T09:00:00", "expected RFC 3339 time, got '2026-11-30T09:00:00'"),
        ("moment", "2026-02-30T09:00:00Z", "expected RFC 3339 time, got '2026-02-30T09:00:00Z'"),
        ("moment", 1, "expected string, got int"),
        ("anything", {1}, "set is not JSON"),
        ("anything", dt.datetime(2024, 1, 1, tzinfo=dt.UTC), "datetime is not JSON"),
        ("nested", 3, "expected object (Gauge), got int"),
    ],
)
def test_nothing_is_coerced(field: str, value: Any, problem: str) -> None:
    catalogue = STANDARD.register("everything", Everything)
    assert problems("everything", {field: value}, catalogue) == [f"{problem} @ $.{field}"]


def test_what_is_not_json_is_found_at_any_depth() -> None:
    data = {"a": [1, {"b": {2}}], "c": (float("nan"), 2**53), 4: "x"}
    assert problems("custom", {"event_type": "ping", "data": data}) == [
        "set is not JSON @ $.data['a'][1]['b']",
        "nan is not JSON @ $.data['c'][0]",
        "an integer beyond 2^53-1 is not JSON; write it as a string @ $.data['c'][1]",
        "expected string, got int @ $.data[4]",
    ]
    assert problems("my_event", {"a": [b""]}) == ["bytes is not JSON @ $['a'][0]"]


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    assert problems("my_event", loop)[0].startswith("nested too deeply @ $['loop']['loop']")


@pytest.mark.parametrize("payload", [None, [], "text", Provenance("m-2")])
def test_a_payload_must_be_an_object_of_its_own_kind(payload: Any) -> None:
    got = type(payload).__name__
    assert problems("tool_call_started", payload) == [f"expected object (ToolCallStarted), got {got} @ $"]
    assert problems("my_event", payload) == [f"expected object, got {got} @ $"]


def test_structure_refuses_what_validate_refuses() -> None:
    with pytest.raises(CodecError, match=r"payload of tool_called: required field 'tool' is missing"):
        STANDARD.structure("tool_called", {})


# -- registration --------------------------------------------------------------------------------------------


@attrs.frozen
class Gauge:
    """A reading."""

    unit: str
    value: float = 0.0


@attrs.frozen
class GaugeTwo:
    """A reading, with its place."""

    unit: str
    place: str


@attrs.frozen
class Everything:
    """One optional field of each type that JSON can hold."""

    type: ClassVar[str] = "everything"
    text: str | None = None
    integer: int | None = None
    number: float | None = None
    truth: bool | None = None
    choice: Literal["a", "b"] | None = None
    items: tuple[str, ...] | None = None
    table: dict[str, int] | None = None
    artifact: ArtifactId | None = None
    level: Level | None = None
    moment: Time | None = None
    anything: Any = None
    nested: Gauge | None = None
    more: tuple[Everything, ...] | None = None


@attrs.frozen
class Dated:
    """A class that JSON cannot hold."""

    when: dt.datetime


@attrs.frozen
class HoldsDated:
    """A class that JSON cannot hold, one step further down."""

    at: tuple[Dated, ...] | None = None


@attrs.frozen
class Pair:
    """A class with a type that JSON cannot tell from a list."""

    pair: tuple[int, int]


def test_registering_gives_a_new_catalogue_and_leaves_the_old_one_alone() -> None:
    mine = STANDARD.register("gauge_read", Gauge, level=Level.VERBOSE)
    assert "gauge_read" in mine
    assert "gauge_read" not in STANDARD
    assert list(mine) == [*STANDARD, Kind("gauge_read", Gauge, Level.VERBOSE, 1)]
    assert mine.level("gauge_read") is Level.VERBOSE
    assert mine.name_of(Gauge) == "gauge_read"


def test_a_catalogue_and_its_kinds_cannot_be_changed() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        STANDARD.kinds = ()  # type: ignore[misc]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        STANDARD.kinds[0].level = Level.VERBOSE  # type: ignore[misc]


def test_a_default_that_is_not_none_is_written_out() -> None:
    mine = STANDARD.register("gauge_read", Gauge)
    assert mine.validate("gauge_read", {"unit": "bar"}) == {"unit": "bar", "value": 0.0}


def test_a_payload_class_may_hold_itself() -> None:
    mine = STANDARD.register("everything", Everything)
    payload = mine.validate("everything", Everything(more=(Everything(level=Level.VERBOSE),)))
    assert payload == {"more": [{"level": "verbose"}]}
    assert mine.structure("everything", payload).more[0].level is Level.VERBOSE


def test_a_mapping_is_checked_against_the_latest_version_unless_one_is_named() -> None:
    mine = (
        STANDARD.register("gauge_read", GaugeTwo, version=2, level=Level.ESSENTIAL)
        .register("gauge_read", Gauge, version=1)
    )  # fmt: skip
    assert problems("gauge_read", {"unit": "bar"}, mine) == ["required field 'place' is missing @ $.place"]
    assert mine.validate("gauge_read", {"unit": "bar", "value": 1}, 1) == {"unit": "bar", "value": 1.0}
    assert mine.structure("gauge_read", {"unit": "bar"}, 1) == Gauge("bar")
    assert mine.level("gauge_read") is Level.ESSENTIAL


def test_an_instance_is_checked_against_the_version_it_is_made_of() -> None:
    mine = STANDARD.register("gauge_read", Gauge).register("gauge_read", GaugeTwo, version=2)
    assert mine.validate("gauge_read", Gauge("bar", 2.5)) == {"unit": "bar", "value": 2.5}
    assert mine.validate("gauge_read", GaugeTwo("bar", "roof")) == {"unit": "bar", "place": "roof"}
    assert mine.name_of(Gauge) == mine.name_of(GaugeTwo) == "gauge_read"


def test_a_version_nobody_registered_is_refused() -> None:
    with pytest.raises(CodecError, match="no version 3, known are: 1"):
        STANDARD.validate("timer_fired", {"timer_id": "t"}, 3)


@pytest.mark.parametrize("name", KERNEL)
def test_no_domain_event_can_carry_a_kernel_event_s_name(name: str) -> None:
    calls = (
        lambda: STANDARD.register(name, Gauge),
        lambda: STANDARD.validate(name, {}),
        lambda: STANDARD.structure(name, {}),
        lambda: Catalogue((Kind(name, Gauge),)),
    )
    for call in calls:
        with pytest.raises(UsageError, match="kernel event") as caught:
            call()
        assert caught.value.code == Code.INVALID_DOMAIN_EVENT


@pytest.mark.parametrize("name", ["", "A", "1a", "_a", "a-b", "a.b", "a b", "é", "a\n", "a" * 64, 3, None])
def test_an_invalid_name_is_refused(name: Any) -> None:
    for call in (lambda: STANDARD.register(name, Gauge), lambda: STANDARD.validate(name, {})):
        with pytest.raises(UsageError, match="is invalid: a lowercase letter") as caught:
            call()
        assert caught.value.code == Code.INVALID_DOMAIN_EVENT


def test_the_longest_name_is_63_characters() -> None:
    assert STANDARD.validate("a" * 63, {}) == {}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("timer_fired", Gauge), "version 1 of 'timer_fired' is registered already"),
        (("gauge_read", ToolCallStarted), "ToolCallStarted is the payload of 'tool_call_started' already"),
        (("gauge_read", Gauge, 0), "versions count from 1"),
        (("gauge_read", dict), "must be an attrs class, not <class 'dict'>"),
        (("gauge_read", Dated), "Dated.when: datetime is not a type that JSON can hold exactly"),
        (("gauge_read", HoldsDated), "HoldsDated.at: Dated.when: datetime is not a type"),
        (("gauge_read", Pair), "Pair.pair: tuple is not a type"),
    ],
)
def test_what_cannot_be_registered_is_told(arguments: tuple[Any, ...], problem: str) -> None:
    name, payload, *version = arguments
    with pytest.raises(UsageError, match=problem) as caught:
        STANDARD.register(name, payload, version=version[0] if version else 1)
    assert caught.value.code == Code.INVALID_DOMAIN_EVENT


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="'loud' is not a valid Level"):
        STANDARD.register("gauge_read", Gauge, level="loud")  # type: ignore[arg-type]


# -- the page and the package --------------------------------------------------------------------------------


def test_the_page_of_domain_events_is_up_to_date() -> None:
    remake = (
        "python -c 'from machine.catalogue import *; print(render_markdown(STANDARD), end=str())' "
        "> docs/domain-events.md"
    )
    page = (ROOT / "docs" / "domain-events.md").read_text(encoding="utf-8")
    assert page == render_markdown(STANDARD), f"remake it: {remake}"


def test_the_page_tells_versions_apart() -> None:
    page = render_markdown(Catalogue().register("gauge", Gauge).register("gauge", GaugeTwo, version=2))
    assert "## gauge\n" in page
    assert "## gauge version 2\n" in page
    assert "(#gauge-version-2)" in page


def test_every_public_name_can_be_imported() -> None:
    for name in machine.catalogue.__all__:
        assert getattr(machine.catalogue, name) is not None
    payloads = {kind.payload.__name__ for kind in STANDARD}
    others = {"STANDARD", "Catalogue", "Count", "Kind", "Level", "Ratio", "Time", "render_markdown"}
    others |= {"ErrorInfo", "Parent"}
    assert set(machine.catalogue.__all__) == payloads | others
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        _ = machine.catalogue.Nonsense


def test_a_run_without_domain_events_makes_no_standard_kind():
    code = (
        "import sys; from machine import Plan, replay, run\nfrom machine.stores import MemoryStore\n"
        "plan = Plan('demo')\n@plan.state('a.b')\nasync def b(ctx): pass\n"
        "with MemoryStore() as store: replay(run(plan, store=store).run_id, plan=plan, store=store)\n"
        "print('machine.catalogue.kinds' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "False\n"


def test_importing_the_package_loads_neither_cattrs_nor_the_payload_classes() -> None:
    late = ["cattrs", "machine.catalogue.kinds", "machine.catalogue.payload_converter"]
    probe = f"import sys, machine.catalogue; print([name for name in {late} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_all_threads_have_the_same_payload_classes() -> None:
    code = (
        "import sys, threading, machine.catalogue as catalogue\n"
        "sys.setswitchinterval(1e-6)\n"
        "barrier, found = threading.Barrier(6), []\n"
        "def look():\n"
        "    barrier.wait()\n"
        "    found.append((catalogue.STANDARD, catalogue.ToolCalled))\n"
        "threads = [threading.Thread(target=look) for _ in range(6)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "print(len(found), [len(set(map(id, each))) for each in zip(*found)])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "6 [1, 1]"
