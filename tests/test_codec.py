"""The codec: every type and every typed value survives its JSON, and what is not one is refused with paths."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from typing import Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import ERRORS, EVENTS_BY_KIND, FAST, HASHES, OUTCOMES, TEXT

from machine import canonical, codec
from machine.canonical import artifact_id
from machine.errors import CanonicalError, CodecError, ErrorInfo, MachineError
from machine.events import (
    EVENT_TYPES,
    FactError,
    FactRecorded,
    FactValue,
    RunCompleted,
    StateFailed,
)

HASH = artifact_id(b"")
ERROR = {"code": "mine", "category": "rpc", "retryable": True, "message": "it failed"}
FACT = {
    "type": "fact_recorded",
    "key": "k",
    "namespace": "http",
    "request_digest": HASH,
    "outcome": {"type": "value", "payload_id": HASH},
    "state_id": "op.step.a",
    "attempt": 0,
}


def carried(value):
    """Return what canonical bytes keep of a JSON value."""
    return canonical.decode(canonical.encode(value))


def problems_of(value):
    with pytest.raises(CodecError) as caught:
        codec.event_from_json(value)
    return sorted(caught.value.problems)


# -- events --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", EVENT_TYPES.values(), ids=EVENT_TYPES)
def test_canonical_bytes_carry_every_event(kind):
    @FAST
    @given(EVENTS_BY_KIND[kind])
    def holds(event):
        body = codec.encode_event(event)
        assert body == canonical.encode(codec.event_to_json(event))
        again = codec.event_from_json(canonical.decode(body))
        assert again == event
        assert type(again) is kind
        assert codec.encode_event(again) == body
        assert canonical.decode(body)["type"] == kind.type

    holds()


@FAST
@given(ERRORS)
def test_canonical_bytes_carry_every_error(error):
    assert codec.from_json(carried(codec.to_json(error)), ErrorInfo) == error


@FAST
@given(OUTCOMES)
def test_canonical_bytes_carry_every_outcome(outcome):
    fact = FactRecorded("k", "http", HASH, outcome, "op.step.a", 0)

    assert codec.event_from_json(carried(codec.event_to_json(fact))).outcome == outcome


@FAST
@given(HASHES, ERRORS)
def test_an_outcome_is_tagged_with_what_it_is(payload_id, error):
    def written(outcome):
        return codec.event_to_json(FactRecorded("k", "http", HASH, outcome, "op.step.a", 0))["outcome"]

    assert written(FactValue(payload_id)) == {"type": "value", "payload_id": payload_id}
    assert written(FactError("transport", error)) == {
        "type": "error",
        "kind": "transport",
        "error": codec.to_json(error),
    }


def test_an_optional_field_that_is_absent_is_not_written_so_a_new_one_moves_no_old_digest():
    assert codec.event_to_json(RunCompleted("failed")) == {"type": "run_completed", "status": "failed"}
    failed = codec.event_to_json(StateFailed("op.step.a", codec.from_json(ERROR, ErrorInfo)))
    assert failed == {"type": "state_failed", "state_id": "op.step.a", "error": ERROR}


def test_the_bytes_of_an_event_are_these_and_stay_these():
    fact = codec.event_from_json(FACT)

    assert codec.encode_event(fact) == (
        b'{"attempt":0,"key":"k","namespace":"http","outcome":{"payload_id":"%b","type":"value"},'
        b'"request_digest":"%b","state_id":"op.step.a","type":"fact_recorded"}'
    ) % (HASH.encode(), HASH.encode())


@pytest.mark.parametrize("field", sorted(set(FACT) - {"type"}))
def test_a_missing_field_of_an_event_is_named(field):
    assert problems_of({key: value for key, value in FACT.items() if key != field}) == [
        f"required field {field!r} is missing @ $.{field}"
    ]


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({"more": 1}, ["unknown fields: more @ $"]),
        ({"key": 7}, ["expected str, got int @ $.key"]),
        ({"attempt": "0"}, ["expected int, got str @ $.attempt"]),
        ({"attempt": True}, ["expected int, got bool @ $.attempt"]),
        ({"attempt": 0.5}, ["expected int, got float @ $.attempt"]),
        ({"attempt": None}, ["expected int, got NoneType @ $.attempt"]),
        ({"outcome": None}, ["expected object, got NoneType @ $.outcome"]),
        ({"outcome": {}}, ["type must be one of error, value, not None @ $.outcome"]),
        ({"outcome": {"type": "value"}}, ["required field 'payload_id' is missing @ $.outcome.payload_id"]),
        (
            {"outcome": {"type": "value", "payload_id": HASH, "more": 1}},
            ["unknown fields: more @ $.outcome"],
        ),
        (
            {"outcome": {"type": "error", "kind": "other", "error": {**ERROR, "category": "weather"}}},
            [
                (
                    "expected one of parsing_input, on_chain, off_chain, rpc, storage, context, unknown, "
                    "got 'weather' @ $.outcome.error.category"
                )
            ],
        ),
        (
            {"outcome": {"type": "error", "kind": 1, "error": {**ERROR, "retryable": 1}}, "key": 7},
            [
                "expected bool, got int @ $.outcome.error.retryable",
                "expected str, got int @ $.key",
                "expected str, got int @ $.outcome.kind",
            ],
        ),
    ],
    ids=lambda part: str(part)[:50] if isinstance(part, dict) else "",
)
def test_the_problems_of_an_event_are_all_told_with_their_paths(changes, problems):
    assert problems_of({**FACT, **changes}) == problems


@pytest.mark.parametrize("kind", [None, 7, "", "domain", [], {}], ids=repr)
def test_an_event_of_an_unknown_type_is_refused(kind):
    assert problems_of({**FACT, "type": kind}) == [f"unknown event type {kind!r} @ $.type"]


@pytest.mark.parametrize("value", [None, 7, "text", []])
def test_an_event_that_is_no_object_is_refused(value):
    assert problems_of(value)


# -- values a handler types itself ---------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"
    GREEN = 2


class Level(enum.IntEnum):
    LOW = 1


class Mood(enum.StrEnum):
    CALM = "calm"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Odd(enum.Enum):
    PAIR = (1, 2)
    PRICE = decimal.Decimal("1.5")
    RAW = b"\x00"
    DAY = dt.date(2024, 2, 29)


@attrs.frozen
class Line:
    name: str
    price: decimal.Decimal
    count: int = 1
    weight: float = 0.5


@attrs.frozen
class Order:
    id: uuid.UUID
    placed: dt.datetime
    lines: list[Line] = attrs.field(factory=list)
    due: dt.date | None = None
    window: tuple[dt.time, dt.time] | None = None
    grace: dt.timedelta = dt.timedelta(0)
    seal: bytes = b""
    colours: tuple[Colour, ...] = ()
    by_name: dict[str, decimal.Decimal | None] = attrs.field(factory=dict)
    by_id: dict[uuid.UUID, list[dt.date]] = attrs.field(factory=dict)
    parent: Order | None = None
    kind: Literal["new", "old"] = "new"
    paid: bool = False


# resolve the annotation that names its own class
attrs.resolve_types(Order)

# Python 3.11 reads an offset of less than a second as UTC
WHOLE_SECONDS = st.integers(-23 * 3600, 23 * 3600).map(lambda n: dt.timezone(dt.timedelta(seconds=n)))
DATETIMES = st.datetimes() | st.datetimes(timezones=st.just(dt.UTC) | WHOLE_SECONDS)
DECIMALS = st.decimals(allow_nan=False)
INTS = st.integers(-(2**53) + 1, 2**53 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False).map(lambda value: value + 0.0)
LINES = st.builds(Line, TEXT, DECIMALS, INTS, FLOATS)
ORDERS = st.builds(
    Order,
    st.uuids(),
    DATETIMES,
    st.lists(LINES, max_size=2),
    due=st.none() | st.dates(),
    window=st.none() | st.tuples(st.times(), st.times()),
    grace=st.timedeltas(),
    seal=st.binary(),
    colours=st.lists(st.sampled_from(Colour), max_size=2).map(tuple),
    by_name=st.dictionaries(TEXT, st.none() | DECIMALS, max_size=2),
    by_id=st.dictionaries(st.uuids(), st.lists(st.dates(), max_size=2), max_size=2),
    parent=st.none() | st.builds(Order, st.uuids(), DATETIMES),
    kind=st.sampled_from(["new", "old"]),
    paid=st.booleans(),
)
TYPED = {
    "attrs": (Order, ORDERS),
    "datetime": (dt.datetime, DATETIMES),
    "date": (dt.date, st.dates()),
    # time.fromisoformat of Python 3.11 loses an offset of less than a second
    "time": (dt.time, st.times() | st.times(timezones=WHOLE_SECONDS)),
    "timedelta": (dt.timedelta, st.timedeltas()),
    "Decimal": (decimal.Decimal, DECIMALS),
    "bytes": (bytes, st.binary()),
    "UUID": (uuid.UUID, st.uuids()),
    "Enum": (Colour, st.sampled_from(Colour)),
    "IntEnum": (Level, st.sampled_from(Level)),
    "StrEnum": (Mood, st.sampled_from(Mood)),
    "Flag": (Access, st.sampled_from([Access.READ, Access.READ | Access.WRITE])),
    "bool": (bool, st.booleans()),
    "int": (int, INTS),
    "float": (float, FLOATS),
    "str": (str, TEXT),
    "tuple": (tuple[int, decimal.Decimal, bytes], st.tuples(INTS, DECIMALS, st.binary())),
    "tuple of any length": (tuple[dt.date, ...], st.lists(st.dates(), max_size=3).map(tuple)),
    "list": (list[tuple[str, bytes]], st.lists(st.tuples(TEXT, st.binary()), max_size=3)),
    "dict": (dict[str, list[Line]], st.dictionaries(TEXT, st.lists(LINES, max_size=2), max_size=2)),
    "Optional": (list[decimal.Decimal | None], st.lists(st.none() | DECIMALS, max_size=3)),
}


def same(one, other):
    """Say whether two values are equal and of the same types all the way down."""
    if type(one) is not type(other) or one != other:
        return False
    if isinstance(one, list | tuple):
        return all(map(same, one, other))
    if isinstance(one, dict):
        return same(sorted(one.items(), key=repr), sorted(other.items(), key=repr))
    if attrs.has(type(one)):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in attrs.fields(type(one)))
    if isinstance(one, dt.datetime | dt.time):
        return one.utcoffset() == other.utcoffset()
    return True


@pytest.mark.parametrize("kind", TYPED)
def test_a_typed_value_comes_back_equal_and_of_the_same_type(kind):
    asked, values = TYPED[kind]

    @FAST
    @given(values)
    def holds(value):
        again = codec.structure_typed(carried(codec.unstructure_typed(value)), asked)
        assert same(again, value), f"{value!r} came back as {again!r}"

    holds()


@pytest.mark.parametrize("member", Odd)
def test_an_enum_whose_values_are_themselves_typed_comes_back(member):
    assert codec.structure_typed(carried(codec.unstructure_typed(member)), Odd) is member


def test_a_whole_float_comes_back_as_a_float():
    line = Line("pen", decimal.Decimal(1), weight=2.0)
    again = codec.structure_typed(carried(codec.unstructure_typed(line)), Line)

    assert type(again.weight) is float


def test_a_decimal_keeps_its_exponent_and_a_special_one_its_name():
    for text in ("1.50", "1.5E+3", "-0", "Infinity", "sNaN"):
        value = decimal.Decimal(text)
        assert str(codec.structure_typed(carried(codec.unstructure_typed(value)), decimal.Decimal)) == str(
            value
        )


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("x", decimal.Decimal),
        (1.5, decimal.Decimal),
        ("*", bytes),
        ("ä", bytes),
        (7, bytes),
        (None, bytes),
        ("nope", uuid.UUID),
        (7, uuid.UUID),
        (None, uuid.UUID),
        ("2024-02-30", dt.date),
        (7, dt.date),
        ("noon", dt.time),
        (None, dt.datetime),
        ([1], dt.datetime),
        ("ab", dt.timedelta),
        (7, dt.timedelta),
        ([10**12, 0, 0], dt.timedelta),
        ([0, 0, 0, 0, 0, 0, 0, 0], dt.timedelta),
        ("blue", Colour),
        ([], Colour),
        (2, Level),
        ("wild", Mood),
        (8, Mood),
        (1, bool),
        (True, int),
        (1.0, int),
        ("1", float),
        (True, float),
        (7, str),
        (7, list[int]),
        ("ab", list[str]),
        ({"a": 1}, list[str]),
        ([1], dict[str, int]),
        ("ab", dict[str, int]),
        ([1], tuple[int, int]),
        ([1, 2, 3], tuple[int, int]),
        ("ab", tuple[str, str]),
        (None, Line),
        (7, Line),
        ("text", Line),
        ([], Line),
        ({"name": "a"}, Line),
        ("late", Literal["new", "old"]),
        ("x", decimal.Decimal | bytes),
        ([], object),
    ],
    ids=lambda part: str(part)[:40],
)
def test_a_value_that_is_not_of_the_type_asked_for_is_a_codec_error(value, kind):
    with pytest.raises(CodecError) as caught:
        codec.structure_typed(value, kind)

    assert caught.value.problems


def test_the_problems_of_a_typed_value_are_all_told_with_their_paths():
    with pytest.raises(CodecError) as caught:
        codec.structure_typed(
            {"id": 7, "placed": "now", "lines": [{"name": 1, "price": "x"}], "more": 1},
            Order,
        )

    assert sorted(problem.rpartition(" @ ")[2] for problem in caught.value.problems) == [
        "$",
        "$.id",
        "$.lines[0].name",
        "$.lines[0].price",
        "$.placed",
    ]


@pytest.mark.parametrize("value", [{1, 2}, object(), {1: "int key"}, 2**53, float("nan"), "\ud800"])
def test_what_no_type_carries_is_refused_and_not_guessed(value):
    with pytest.raises(CanonicalError):
        carried(codec.unstructure_typed(value))


@FAST
@given(
    st.recursive(
        st.none() | st.booleans() | INTS | FLOATS | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        ),
        max_leaves=5,
    ),
    st.sampled_from(sorted(TYPED)),
)
def test_any_json_read_as_any_type_gives_a_value_or_a_codec_error(value, kind):
    try:
        codec.structure_typed(value, TYPED[kind][0])
    except MachineError as exc:
        assert isinstance(exc, CodecError)  # noqa: PT017 - either outcome is right
