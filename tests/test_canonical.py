"""Canonical JSON: the bytes of `rfc8785` for every value, a path for every refusal, and a true way back."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime as dt
import decimal
import enum
import json
import random
import struct
import sys
import tracemalloc
import uuid

import attrs
import orjson
import pytest
import rfc8785
from campaign import FULL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machine import canonical
from machine.canonical import MAX_DEPTH, artifact_id, decode, encode
from machine.errors import CanonicalError, CodecError


class Plain(enum.Enum):
    RED = 1
    WORD = "word"


class Word(str, enum.Enum):  # noqa: UP042 - whose own str() is not its text
    ODD = "odd word"


class Number(enum.IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Real(float):
    pass


class Array(list):
    pass


class Mapping(dict):
    pass


Pair = collections.namedtuple("Pair", "left right")  # noqa: PYI024 - the untyped kind is what is tested


@attrs.frozen
class Attrs:
    x: int = 1


@dataclasses.dataclass
class Data:
    x: int = 1


ID = uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
NAN, INF = float("nan"), float("inf")

# what looks like a float to be respelled, and is text
LOOK_ALIKES = [
    *["1.0", "1.0,", "-0.0]", "1.0}", ".0", ",1.0,", ":1.0,", "v2.0,", "1e-06", "1e-6", "2.5e-6,", "1e+16,"],
    *[
        "e+20]",
        "1e16",
        "1e21",
        "null",
        "[null,1.0]",
        '{"a":1.0}',
        '"',
        '\\"',
        "\\",
        "\\\\",
        '\\\\"1.0,',
        '"1.0,',
    ],
    *['":1.0,', '":', ':"', ",", '1.0\\",', "NaN", str(ID), "\x00", "\x1f\n\t", "\x7f", "/", "\u2028"],
    *[
        "\xe9",
        "\ue000",
        "\uffff",
        "\uff0c",
        "\U0001f389",
        "\U00010000",
        "\U0010ffff",
        "g\x7f\xff",
        "gggggg\xf8\x7f",
    ],
]
FLOATS = [
    *[
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        0.05,
        1.05,
        100.0,
        -2.0,
        1e15,
        1e16,
        1.5e16,
        -1e17,
        1e20,
        1e21,
        1.5e300,
        5e-324,
    ],
    *[
        123456789012345680000.0,
        999999999999999900000.0,
        1e-4,
        1e-5,
        -1.5e-5,
        1e-6,
        -1.25e-6,
        9.999e-6,
        1e-7,
        1e-60,
    ],
    *[
        sys.float_info.max,
        sys.float_info.min,
        2.0**53,
        2.0**53 + 2,
        2.0**63,
        -(2.0**64),
        0.1,
        1 / 3,
        4.35,
        6e-61,
    ],
]
INTS = [0, 1, -1, 127, 255, -256, 2**31, 2**53 - 1, -(2**53) + 1]
SUBCLASSES = [
    *[Text("a"), Text("1.0,"), Whole(7), Real(1.0), Real(1e16), Array([1.0]), Mapping(b=1, a=2.0), Word.ODD],
    *[Number.ONE, Pair(1, 2.0), collections.OrderedDict(b=1, a=2), collections.Counter("ab"), True],
]
REFUSED = [
    *[
        NAN,
        INF,
        -INF,
        Real("nan"),
        2**53,
        -(2**53),
        2**63,
        2**64,
        10**400,
        Whole(2**60),
        b"x",
        bytearray(b"x"),
    ],
    *[decimal.Decimal("1.5"), dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.date(2026, 1, 1), dt.time(1), {1}],
    *[
        frozenset(),
        ID,
        Plain.RED,
        Plain.WORD,
        Attrs(),
        Data(),
        Attrs,
        object(),
        1j,
        ...,
        orjson.Fragment(b"1"),
        range(2),
    ],
    *[
        "\ud800",
        "a\udfff",
        {"\ud800": 1},
        {1: 1},
        {None: 1},
        {True: 1},
        {1.5: 1},
        {b"k": 1},
        {("k",): 1},
        {ID: 1},
    ],
    *[{"a": 1, 2: 3}, Mapping({1: 2}), {Plain.WORD: 1}, {Number.ONE: 1}, len, iter([]), memoryview(b"x")],
]


def reference(value):
    """Return the bytes of `rfc8785`, or None if it refuses the value in whatever way."""
    try:
        return rfc8785.dumps(value)
    except Exception:  # noqa: BLE001 - a UnicodeEncodeError, for one
        return None


def check(value):
    """Compare one value with `rfc8785`, and the way back with the way there."""
    expected = reference(value)
    try:
        got = encode(value)
    except CanonicalError:
        got = None
    assert got == expected, value
    if got is not None:
        assert encode(decode(got)) == got, value


def check_in_every_place(value):
    """Compare a value alone, in short and long containers, and beside what else changes the way it is written."""
    for beside in (None, "1.0,", 1.0, -0.0, 1e16, 1e-6, 2.5, "\U0001f389", '\\"', "a+-b", -1, NAN, []):
        check([value, beside])
        check([beside, value])
        check({"a": value, "b": beside})
        check([value, *[beside] * 17])
    check(value)
    check((value,))
    check({"k": [value], "1.0,": {"x": value}})
    check(Array([value]))
    check({Text("k"): value})


# -- against the reference -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [*LOOK_ALIKES, *FLOATS, *INTS, *SUBCLASSES, None, True, False, [], {}, (), ""], ids=ascii
)
def test_what_rfc8785_writes_is_written_alike_wherever_it_stands(value):
    assert encode(value) == rfc8785.dumps(value)
    check_in_every_place(value)


@pytest.mark.parametrize("value", REFUSED)
def test_what_rfc8785_refuses_is_refused_wherever_it_stands(value):
    assert reference(value) is None
    check_in_every_place(value)


def tree(rng: random.Random, depth: int):
    """Return a random value, mostly JSON, with odd members now and then."""
    roll = rng.random()
    if depth and roll < 0.28:
        keys = (
            rng.choice(LOOK_ALIKES) if rng.random() < 0.4 else f"key{rng.randrange(9)}"
            for _ in range(rng.randrange(6))
        )
        return {key: tree(rng, depth - 1) for key in keys}
    if depth and roll < 0.46:
        size = rng.choice((0, 1, 2, 3, 5, 18))
        return [tree(rng, depth - 1) for _ in range(size)]
    if depth and roll < 0.48:
        return tuple(tree(rng, depth - 1) for _ in range(rng.randrange(3)))
    if roll < 0.60:
        return rng.choice(LOOK_ALIKES)
    if roll < 0.66:
        return rng.choice(LOOK_ALIKES) + rng.choice(LOOK_ALIKES) + rng.choice(LOOK_ALIKES)
    if roll < 0.76:
        return rng.choice(FLOATS)
    if roll < 0.84:
        return rng.choice(
            (rng.uniform(-10, 10), float(rng.randrange(-99, 99)), rng.randrange(-9999, 9999) / 100)
        )
    if roll < 0.985:
        return rng.choice((None, True, False, rng.choice(INTS), rng.randrange(-(10**6), 10**6), ""))
    return rng.choice(SUBCLASSES if rng.random() < 0.4 else REFUSED)


def any_double(rng: random.Random) -> float:
    """Return a float of 64 random bits: NaNs and infinities are among them."""
    return struct.unpack("<d", rng.randbytes(8))[0]


def test_random_values_are_written_as_rfc8785_writes_them(capsys):
    rng = random.Random(8785)
    compared = refused = 0
    trees = 80_000 if FULL else 16_000
    for _ in range(trees):
        value = tree(rng, 3)
        check(value)
        compared += 1
        refused += reference(value) is None
    for _ in range(100_000 if FULL else 20_000):
        check(any_double(rng))
        compared += 1
    for power in range(-324, 309):
        for digits in (1, -1, 1.5, 9.999999999999999, 1.2345678901234567):
            for number in (float(f"{digits}e{power}"), float(f"{int(digits)}e{power}")):
                check(number)
                check([number, "1.0,"])
                compared += 2
    for _ in range(20_000 if FULL else 4_000):  # across the borders of every spelling
        check(rng.choice((-1, 1)) * rng.uniform(1, 10) * 10.0 ** rng.randrange(-9, 24))
        check(float(rng.randrange(2**53 - 2**8, 2**53 + 2**8) << rng.randrange(12)))
        compared += 2
    with capsys.disabled():
        print(f" [{compared} values, {refused} trees refused]", end="")
    assert compared > 2.5 * trees
    assert trees / 40 < refused < trees / 2


TEXT = st.one_of(
    st.sampled_from(LOOK_ALIKES),
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.text(st.sampled_from('\\"1.0,e+-6:{}[]\U0001f389\uffff\ue000'), max_size=8),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53) + 1, 2**53 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(FLOATS),
    TEXT,
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(TEXT, inner, max_size=8),
    max_leaves=30,
)
WITH_ODD = st.recursive(
    SCALARS
    | st.sampled_from([*REFUSED, *SUBCLASSES])
    | st.text(st.characters(exclude_categories=()), max_size=3),
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(TEXT | st.text(st.characters(exclude_categories=()), max_size=2), inner, max_size=4)
    ),
    max_leaves=12,
)
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=1200 if FULL else 300, deadline=None, suppress_health_check=QUIET)
@given(JSON)
def test_any_json_has_the_bytes_of_rfc8785_and_comes_back_equal(value):
    data = encode(value)
    assert data == rfc8785.dumps(value)
    assert decode(data) == value
    assert encode(decode(data)) == data


@settings(max_examples=2000 if FULL else 500, deadline=None, suppress_health_check=QUIET)
@given(WITH_ODD)
def test_anything_else_is_refused_when_rfc8785_refuses_it_and_only_then(value):
    check(value)


@settings(max_examples=300 if FULL else 100, deadline=None, suppress_health_check=QUIET)
@given(WITH_ODD)
def test_the_exact_way_alone_gives_the_same_bytes(value):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canonical, "_OPTIONS", -1)  # what orjson refuses
        check(value)


def test_an_orjson_that_spells_floats_otherwise_is_not_used(monkeypatch):
    assert canonical._options() > 0
    monkeypatch.setattr(orjson, "dumps", lambda value, *_: json.dumps(value).encode())
    assert canonical._options() == -1


def test_rfc8785_appendix_vectors():
    """RFC 8785 section 3.2.2 and 3.2.3, as printed there."""
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    assert encode(value).decode() == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    ordered = ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    assert list(json.loads(encode(dict.fromkeys(keys, 0)))) == ordered


def test_canonical_bytes_hold_no_more_memory_than_they_need():
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        kept = [encode({"number": number, "text": "x" * 100}) for number in range(1000)]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 2 * sum(map(sys.getsizeof, kept))


def test_the_input_is_left_as_it_was():
    value = {"b": [1.0, -0.0, 1e16, {"z": (1, 2.0), "a": None}], "a": Array([Mapping(x=1.0)])}
    before = copy.deepcopy(value)
    encode(value)
    assert repr(value) == repr(before)


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, None, True, "x"], "b": {"c": (1.0, -0.0, 1e16, 1e-6, "1.0,")}},
        [(1, 2.5), [((),)], {}],
        ['\\"', 1.0, "\xe9", 2.0],
        [1.5] * 100,
        # only keys are sorted, so only keys may ask for the sort orjson does not have
        {"\uff0ckey": "\U0001f389 \uff0c", "b": ['\U0001f389\\":', "\uff0c\\"]},
        {"\U0001f389": "\uff0c", "a\\": '":'},
    ],
)
def test_common_values_need_no_exact_way(value, monkeypatch):
    monkeypatch.setattr(canonical, "_encode_exactly", None)
    assert encode(value) == rfc8785.dumps(value)


# -- depth and cycles ----------------------------------------------------------------------------------------


def nested(depth, wrap, value=1.0):
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize("depth", [1, 100, 252, 253, 254, 255, 256, 500, MAX_DEPTH])
def test_depth_up_to_the_limit_is_written_and_read_back(depth):
    assert encode(nested(depth, lambda v: [v])) == b"[" * depth + b"1" + b"]" * depth
    data = encode(nested(depth, lambda v: {"k": v}))
    assert data == b'{"k":' * depth + b"1" + b"}" * depth
    assert encode(decode(data)) == data


WRAPS = [
    lambda v: [v],
    lambda v: {"k": v},
    lambda v: (v, "1.0,]]"),
    lambda v: ({"a\\": "[", "k": v},),
    lambda v: (*[0] * 17, v),
]


@pytest.mark.parametrize("depth", [1, 100, 126, 127, 128, 300, MAX_DEPTH // 2])
@pytest.mark.parametrize("wrap", WRAPS)
def test_every_kind_of_nest_up_to_the_limit_is_written_as_json_writes_it(depth, wrap):
    value = nested(depth, wrap, "leaf")
    assert encode(value).decode() == json.dumps(value, separators=(",", ":"), sort_keys=True)
    assert encode(decode(encode(value))) == encode(value)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 950, 1100, 1990, 5000, 100_000])
@pytest.mark.parametrize("wrap", WRAPS)
def test_depth_beyond_the_limit_is_refused_without_a_recursion_error(depth, wrap):
    """Tuples among them: orjson 3.13 counts those not, and overruns its memory at about 1000."""
    with pytest.raises(CanonicalError, match="nested too deep, more than 900 containers") as caught:
        encode(nested(depth, wrap))
    assert caught.value.code == "not_json"


def test_the_depth_that_is_written_does_not_depend_on_the_caller():
    deep = nested(MAX_DEPTH, lambda v: [v])

    def call(frames):
        return call(frames - 1) if frames else encode(deep)

    assert call(500) == encode(deep)


def test_what_contains_itself_is_refused_where_it_does():
    array, members = [1], {"big": [0] * 50}
    array.append({"again": array})
    members["x y"] = members
    for value, path, kind in ((array, "$[1].again", "list"), (members, '$["x y"]', "dict")):
        with pytest.raises(CanonicalError, match=f"{kind} contains itself") as caught:
            encode(value)
        assert caught.value.path == path


def test_what_occurs_twice_does_not_contain_itself():
    shared = [decimal.Decimal(1) and 1, {}]
    value = Array([shared, shared, {"k": shared}])
    assert encode(value) == rfc8785.dumps(value)


# -- what a refusal says -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (
            {"orders": [1, 2, 3, {"price": decimal.Decimal(1)}]},
            "$.orders[3].price: Decimal is not JSON; use ctx.write_typed",
        ),
        (b"x", "$: bytes is not JSON; use ctx.write_typed"),
        ({"odd key": (ID,)}, '$["odd key"][0]: UUID is not JSON; use ctx.write_typed'),
        ({'a"b': [dt.date(2026, 1, 1)]}, '$["a\\"b"][0]: date is not JSON; use ctx.write_typed'),
        ({"no\u200bspace": [ID]}, '$["no\\u200bspace"][0]: UUID is not JSON; use ctx.write_typed'),
        ({"": Attrs()}, '$[""]: Attrs is not JSON; use ctx.write_typed'),
        ({"größe": Data()}, "$.größe: Data is not JSON; use ctx.write_typed"),
        ([Plain.RED], "$[0]: Plain is an Enum and not JSON; use its .value, or ctx.write_typed"),
        ({Word.ODD: [{1}]}, '$["odd word"][0]: set is not JSON, it has no order; use a sorted list'),
        ({"a": [0.5, NAN]}, "$.a[1]: float nan is not JSON; use None or a str"),
        ([None] * 20 + [-INF], "$[20]: float -inf is not JSON; use None or a str"),
        ({"n": 2**53}, "$.n: int beyond +-(2**53 - 1) is not JSON that every reader keeps exact; use a str"),
        ([10**5000], "$[0]: int beyond +-(2**53 - 1) is not JSON that every reader keeps exact; use a str"),
        ({"a": {1: 2}}, "$.a: key 1 is int, and JSON keys are strings; use str(key)"),
        ([{None: 2}], "$[0]: key None is NoneType, and JSON keys are strings; use str(key)"),
        (["\ud800"], "$[0]: str holds a lone surrogate, which UTF-8 cannot; use well-formed text, or bytes"),
        (
            {"a": {"\ud800": 1}},
            "$.a: key '\\ud800' holds a lone surrogate, which UTF-8 cannot; use well-formed text",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refusal_names_the_path_the_type_and_the_remedy(value, sentence):
    with pytest.raises(CanonicalError) as caught:
        encode(value)
    error = caught.value
    assert str(error) == sentence
    assert f"{error.path}: {error.problem}" == sentence
    assert error.code == "not_json"
    assert error.info.details == {"path": error.path}
    str(error).encode()  # can be printed, whatever was wrong


def test_the_first_in_canonical_order_is_named_whatever_the_order_of_insertion():
    for value in ({"b": {1}, "a": [1, ID]}, {"a": [1, ID], "b": {1}}):
        with pytest.raises(CanonicalError) as caught:
            encode(value)
        assert caught.value.path == "$.a[1]"


def test_a_subclass_that_cannot_be_read_is_refused_with_its_own_words():
    class Broken(list):
        def __iter__(self):
            raise RuntimeError("not today")

    with pytest.raises(CanonicalError, match=r"^\$\.a: Broken cannot be read: RuntimeError: not today$"):
        encode({"a": Broken([1])})


def test_an_enum_whose_value_raises_is_refused_before_orjson_meets_it():
    """With orjson 3.13 this takes the interpreter down."""

    class Trap(enum.Enum):
        A = 1

        @property
        def value(self):
            raise RuntimeError

    for value in (Trap.A, [Trap.A], {"k": Trap.A}, [1.5] * 20 + [Trap.A]):
        with pytest.raises(CanonicalError, match="Trap is an Enum"):
            encode(value)


# -- the way back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text", "back"),
    [
        (1.0, b"1", 1),
        (-0.0, b"0", 0),
        (2.0**53, b"9007199254740992", 2.0**53),
        (-(2.0**53), b"-9007199254740992", -(2.0**53)),
        (float(2**53 - 1), b"9007199254740991", 2**53 - 1),
        (1e16, b"10000000000000000", 1e16),
        (2.0**63, b"9223372036854776000", 2.0**63),
        (1e20, b"100000000000000000000", 1e20),
        (1e21, b"1e+21", 1e21),
        ((1, (2,)), b"[1,[2]]", [1, [2]]),
    ],
)
def test_numbers_come_back_as_ints_where_ints_are_exact_and_as_floats_beyond(value, text, back):
    assert encode(value) == text
    for wrap in (lambda v: v, lambda v: [v], lambda v: {"k": [v, {"l": v}]}):
        got = decode(encode(wrap(value)))
        assert got == wrap(back)
        assert repr(got) == repr(wrap(back))


def test_a_large_int_is_found_below_the_depth_orjson_writes():
    data = b"[" * 400 + b'{"k":10000000000000000}' + b"]" * 400
    assert encode(decode(data)) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"NaN",
        b"[1,]",
        b"'a'",
        b"\xff",
        b'"\\ud800"',
        b"1e400",
        b"[" * 2000,
        b'{"a":1}x',
        b"\xef\xbb\xbf1",
    ],
)
def test_what_is_not_json_is_refused(data):
    with pytest.raises(CodecError, match=r"^JSON: ") as caught:
        decode(data)
    assert caught.value.code == "malformed"
    assert len(caught.value.problems) == 1


def test_an_artifact_id_is_blake3_in_lowercase_hex():
    """The first of the test vectors BLAKE3 publishes: no bytes at all."""
    assert artifact_id(b"") == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
