"""Typed values: what is written comes back equal and of equal types, or is refused with its path and a remedy."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import ipaddress
import pathlib
import re
import sys
import uuid
from collections.abc import Sequence
from typing import Any, Generic, Literal, NamedTuple, TypeVar
from zoneinfo import TZPATH, ZoneInfo

import attrs
import pydantic
import pytest

from machine import Plan, RunConfig, canonical, codec, replay, run
from machine.errors import CanonicalError, CodecError
from machine.kernel.context import Context
from machine.kernel.snapshot import Snapshot
from machine.stores import MemoryStore

D = decimal.Decimal
NY = ZoneInfo("America/New_York")
T = TypeVar("T")


@attrs.define
class Base:
    x: int = 1


@attrs.define
class Sub(Base):
    y: int = 2


@attrs.define
class Holder:
    base: Base | None = None
    bases: list[Base] = attrs.field(factory=list)
    any: Any = None
    bare: list = attrs.field(factory=list)  # type: ignore[type-arg]
    whole: int = 0
    real: float = 0.0
    text: str = ""
    day: dt.date | None = None
    at: dt.datetime | None = None
    word: int | str | None = None
    path: pathlib.Path | None = None
    few: tuple[int, ...] = ()
    many: Sequence[int] = ()
    said: Literal["a", "b"] = "a"
    counts: collections.Counter[str] = attrs.field(factory=collections.Counter)
    ordered: collections.OrderedDict[str, int] = attrs.field(factory=collections.OrderedDict)


@attrs.define
class Box(Generic[T]):
    value: T


@dataclasses.dataclass
class Plain:
    a: int
    base: Base | None = None
    seen: dict[str, int] = dataclasses.field(default_factory=dict, init=False, compare=False)
    count: int = dataclasses.field(default=0, init=False)


class Named(NamedTuple):
    a: int
    day: dt.date
    price: D | None = None  # by name only: annotations are text in this file


Functional = NamedTuple("Functional", [("a", int), ("price", D)])  # noqa: UP014 - the other form is the point
Untyped = collections.namedtuple("Untyped", "a b")  # noqa: PYI024 - one without types is the point


@attrs.define
class Undecided:
    when: dt.datetime | dt.date | None = None
    counts: dict[int, D] = attrs.field(factory=dict)
    whole: int | None = None
    number: int | float = 0
    word: float | str = ""


@attrs.define
class Cat:
    purrs: int = 1


@attrs.define
class Lion(Cat):
    roars: int = 1


class Level(enum.IntEnum):
    LOW = 1


class Mood(enum.StrEnum):
    CALM = "calm"


class Odd(enum.Enum):
    REAL = 1.0
    PAIR = (1, 2)
    PRICE = D("1.5")


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Text(str):
    __slots__ = ()


class Id(uuid.UUID):
    pass


class Model(pydantic.BaseModel):
    a: int
    at: dt.datetime | None = None
    price: D | None = None
    level: Level | None = None
    data: bytes = b""
    other: int = pydantic.Field(default=0, alias="another")


class InBase64(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    data: bytes


class HalfInBase64(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(ser_json_bytes="base64")
    data: bytes


class Excluding(pydantic.BaseModel):
    a: int
    b: int = pydantic.Field(default=1, exclude=True)


class Requiring(pydantic.BaseModel):
    a: int = pydantic.Field(exclude=True)


class Numbers(pydantic.BaseModel):
    of: list[Requiring] = []
    either: int | float = 1


class Wider(Model):
    z: int = 1


class Nest(pydantic.BaseModel):
    model: Model
    secret: pydantic.SecretStr | None = None


class Private(pydantic.BaseModel):
    a: int
    _seen: int = pydantic.PrivateAttr(default=0)


@attrs.define
class WithModel:
    model: Model
    more: list[Model] = attrs.field(factory=list)


def context_of():
    return Context(Snapshot.empty({}.__getitem__))


def after(ctx):
    """Return what the next state sees."""
    kept = {}
    snapshot, made = Snapshot.empty(kept.__getitem__).update(ctx.staged)
    kept.update((new.id, new.data) for new in made.values())
    return Context(snapshot)


def private():
    value = Private(a=1)
    value._seen = 3
    return value


def counted():
    value = Plain(1)
    value.count = 5
    return value


@dataclasses.dataclass
class Halved:
    number: int

    @functools.cached_property
    def half(self):
        return self.number / 2


class HalvedModel(pydantic.BaseModel):
    number: int

    @functools.cached_property
    def half(self):
        return self.number / 2


def looked_at(value):
    assert value.half == 2
    return value


def with_more(value):
    vars(value)["more"] = 1
    return value


KEPT = [
    (dt.datetime(2026, 3, 7, 9, tzinfo=NY), None),
    (dt.datetime(2026, 11, 1, 1, 30, tzinfo=NY), None),
    (dt.datetime(2026, 11, 1, 1, 30, tzinfo=NY, fold=1), None),
    (dt.datetime(2026, 3, 8, 2, 30, tzinfo=NY), None),
    (dt.datetime(2026, 3, 8, 2, 30, tzinfo=NY, fold=1), None),
    (dt.datetime(1800, 1, 1, tzinfo=NY), None),
    (dt.datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC")), None),
    (dt.datetime(2026, 1, 1, fold=1), None),  # noqa: DTZ001 - a naive one is the point
    (dt.datetime(2026, 1, 1, tzinfo=dt.UTC, fold=1), None),
    (dt.time(1, 2, tzinfo=NY), None),
    (dt.time(1, 2, fold=1), None),
    (dt.time(1, 2, tzinfo=dt.UTC), None),
    ([dt.datetime(2026, 3, 7, 9, tzinfo=NY)], list[dt.datetime]),
    (Holder(at=dt.datetime(2026, 11, 1, 1, 30, tzinfo=NY, fold=1)), None),
    (Holder(base=Base(3), bases=[Base(1)]), None),
    (Holder(any={"list": [1, "a", None, True], "score": 1.5}), None),
    (Holder(word=1), None),
    (Holder(word="1"), None),
    (Holder(path=pathlib.Path("/a/b")), None),
    (Holder(few=(1, 2), many=(1,)), None),
    (Holder(counts=collections.Counter("aab")), None),
    (Holder(ordered=collections.OrderedDict(a=1, b=2)), None),
    (Box(dt.date(2026, 1, 1)), Box[dt.date]),
    (Plain(1, Base(2)), None),
    (Named(1, dt.date(2026, 1, 1)), None),
    ([Named(1, dt.date(2026, 1, 1))], list[Named]),
    (Named(1, dt.date(2026, 1, 1), D(2)), None),
    (Functional(1, D(2)), None),
    (Untyped(1, "a"), None),
    ({-3: D(4), 0: D(0), 1: D(2)}, dict[int, D]),
    ({dt.date(2026, 1, 1): 1}, dict[dt.date, int]),
    ([{n: n for n in sorted(range(1001), key=str)}], list[dict[int, int]]),
    (Undecided(None, {1: D(1)}, 1, 1.5, 1.0), None),
    (Undecided(number=1, word="1"), None),
    (1.0, float | str | None),
    (1.5, int | float),
    ([1, 1.5], list[int | float]),
    ([1, D(1)], list[int | D]),
    (InBase64(data=b"\xff"), None),
    (Excluding(a=1), None),
    (Level.LOW, None),
    (Mood.CALM, None),
    *((member, None) for member in Odd),
    (Access.READ | Access.WRITE, None),
    (Text("a"), None),
    (pathlib.Path("a"), None),
    (D("sNaN"), None),
    (D("1E+3"), None),
    (D("-0.00"), None),
    (dt.date(2026, 1, 1), dt.date | None),
    (Model(a=1), None),
    (
        Model(a=1, at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC), price=D("1.50"), level=Level.LOW, another=4),
        None,
    ),
    ([Model(a=1)], list[Model]),
    ({"a": Model(a=1)}, dict[str, Model]),
    (Nest(model=Model(a=1)), None),
    (looked_at(Halved(4)), None),
    (looked_at(HalvedModel(number=4)), None),
    (collections.deque([1, 2]), collections.deque[int]),
    (WithModel(Model(a=1), [Model(a=2)]), None),
]


def _as_id(part):
    return re.sub(r" at 0x\w+", "", ascii(part))[:60]  # pytest-xdist needs the same ids in every process


@pytest.mark.parametrize(("value", "kind"), KEPT, ids=_as_id)
def test_a_typed_value_comes_back_as_it_was(value, kind):
    ctx = context_of()
    ctx.write_typed("k", value, kind)
    for seen in (ctx, after(ctx)):
        back = seen.read_typed("k", kind or type(value))
        assert type(back) is type(value)
        assert repr(back).replace("TzInfo(0)", "datetime.timezone.utc") == repr(value)
        assert isinstance(value, decimal.Decimal) or back == value
        assert getattr(back, "fold", 0) == getattr(value, "fold", 0)
        again = context_of()
        again.write_typed("k", back, kind)
        assert again.staged == ctx.staged


REFUSED = [
    (Holder(base=Sub()), None, ".base", "declare its own type"),
    (Holder(bases=[Base(), Sub()]), None, ".bases[1]", "declare its own type"),
    ([Sub()], list[Base], "[0]", "declare its own type"),
    (Plain(1, Sub()), None, ".base", "declare its own type"),
    (counted(), None, ".count", "not equal"),
    (Holder(day=dt.datetime(2026, 1, 1)), None, ".day", "datetime is not what is declared"),  # noqa: DTZ001
    (Holder(at=dt.date(2026, 1, 1)), None, ".at", "date would come back as datetime"),
    (dt.datetime(2026, 1, 1), dt.date, "", "datetime is not what is declared"),  # noqa: DTZ001
    (dt.date(2026, 1, 1), dt.datetime, "", "date would come back as datetime"),
    (dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1), "CET")), None, "", "use a ZoneInfo"),
    (Holder(whole=True), None, ".whole", "bool is not what is declared"),
    (Holder(whole=1.0), None, ".whole", "float is not what is declared"),
    (Holder(whole=Level.LOW), None, ".whole", "declare its own type"),
    (Holder(real=True), None, ".real", "bool is not what is declared"),
    (Holder(real=-0.0), None, ".real", "loses its sign"),
    (Holder(real=float("nan")), None, ".real", "use None or a str"),
    (Holder(text=Text("a")), None, ".text", "write a plain str"),
    (Holder(text=Mood.CALM), None, ".text", "write a plain str"),
    (Holder(word=1.5), None, ".word", "declare the type it has"),
    (Holder(said="c"), None, ".said", "declare the type it has"),
    (Holder(few=[1]), None, ".few", "write tuple(value)"),
    (Holder(many=[1]), None, ".many", "write tuple(value)"),
    (Holder(any=dt.date(2026, 1, 1)), None, ".any", "in place of Any"),
    (Holder(any={"a": [b"x"]}), None, ".any.a[0]", "in place of Any"),
    (Holder(any=Base()), None, ".any", "in place of Any"),
    (Holder(any=(1,)), None, ".any", "write list(value)"),
    (Holder(bare=[D(1)]), None, ".bare[0]", "in place of Any"),
    (Holder(any=bytearray(b"x")), None, ".any", "write bytes(value)"),
    (Holder(ordered=collections.OrderedDict(b=1, a=2)), None, ".ordered", "list of pairs"),
    (collections.defaultdict(list, a=[1]), None, "", "write dict(value)"),
    (collections.OrderedDict(b=1, a=2), None, "", "list of pairs"),
    (bytearray(b"x"), None, "", "write bytes(value)"),
    (memoryview(b"x"), None, "", "write bytes(value)"),
    ({1, 2}, None, "", "sorted list"),
    ([frozenset("a")], None, "[0]", "sorted list"),
    (Id(int=1), None, "", "write a plain UUID"),
    (pathlib.PureWindowsPath("a"), None, "", "write str(value)"),
    (array.array("i", [1]), None, "", "value.tolist()"),
    (complex(1), None, "", "value.real"),
    ((1, 2), list[int], "", "write list(value)"),
    (object(), None, "", "write what it is made of"),
    (
        Model(a=1, at=dt.datetime(2026, 3, 7, 9, tzinfo=NY)),
        None,
        ".at",
        "pydantic's JSON cannot keep; write the zone's key beside it",
    ),
    (Model(a=1, data=b"\xff"), None, "", 'set ser_json_bytes="base64" and val_json_bytes="base64"'),
    (WithModel(Model(a=1, data=b"\xff")), None, ".model", 'set ser_json_bytes="base64"'),
    (HalfInBase64(data=b"\xff"), None, ".data", 'val_json_bytes="base64"'),
    (Excluding(a=1, b=2), None, "", "Excluding does not write its field b, which it excludes"),
    ([Excluding(a=1, b=2)], list[Excluding], "[0]", "do not exclude it"),
    (Requiring(a=1), None, "", "Requiring does not write its field a, which it excludes"),
    (Numbers(of=[Requiring(a=1)]), None, "", "Requiring does not write its field a"),
    (Numbers(either=1.0), None, "", "declare float, or write an int"),
    (dt.date(2026, 1, 1), dt.datetime | dt.date, "", "datetime | date cannot be told apart"),
    (Undecided(dt.date(2026, 1, 1)), None, ".when", "declare one of them"),
    (Lion(), Cat | Lion, "", "Cat | Lion cannot be told apart"),
    (dt.date(2026, 1, 1), dt.date | str, "", "or a union"),
    (1.0, int, "", "(expected int, got float)"),
    (Undecided(whole=1.5), None, ".whole", "(expected int | None, got float)"),
    (Undecided(number=1.0), None, ".number", "declare float, or write int(value)"),
    ([1, 2.0], list[int | float], "[1]", "declare float, or write int(value)"),
    (1.0, int | str, "", "(expected int | str, got float)"),
    (1.0, Literal[1], "", "(expected Literal[1], got float)"),
    ({True: 1}, dict[int, int], "", "use str(key)"),
    ([D(1)], None, "[0]", "give kind=list[Decimal]"),
    ({"a": [None, b"x"]}, None, ".a[1]", "give kind=dict[str, list[None | bytes]]"),
    ((1, D(2)), None, "[1]", "give kind=tuple[int, Decimal]"),
    ({dt.date(2026, 1, 1): [1]}, None, '["2026-01-01"]', "give kind=dict[date, list[int]]"),
    ({1: 2}, None, "", "give kind=dict[int, int]"),
    ([(1, 2)], None, "[0]", "give kind=list[tuple[int, int]]"),
    ([Sub()], None, "[0]", "give kind=list[Sub]"),
    ([D(1)], list, "[0]", "in place of Any"),
    ([D(1), "1"], None, "[0]", "declare its type"),
    (Box(dt.date(2026, 1, 1)), None, "", "give them: kind=Box[...]"),
    (ZoneInfo("UTC"), ZoneInfo, "", "write value.key"),
    (dt.UTC, dt.timezone, "", "write its offset"),
    (ipaddress.ip_address("127.0.0.1"), ipaddress.IPv4Address, "", "write str(value)"),
    (Model.model_construct(a="x"), None, "", "a: Input should be a valid integer"),
    (Nest(model=Wider(a=1)), None, ".model", "declare its own type"),
    (Box(with_more(Plain(1))), Box[Plain], ".value", "loses its attribute more, which is no field"),
    ([with_more(Halved(4))], list[Halved], "[0]", "loses its attribute more"),
    (with_more(HalvedModel(number=4)), None, ".more", "does not come back"),
    (collections.deque([1], maxlen=2), collections.deque[int], "", "loses its maxlen"),
    (collections.deque([(1,)]), collections.deque[Any], "[0]", "declare tuple"),
    (1, object, "", "object is no type that can be read"),
    ({"a": 1}, dict[str, object], "", "object is no type that can be read"),
    (Nest(model=Model(a=1), secret="s"), None, ".secret", "io.secret"),
    (private(), None, "", "private attributes"),
]


@pytest.mark.parametrize(("value", "kind", "path", "remedy"), REFUSED, ids=_as_id)
def test_a_typed_value_that_would_not_come_back_is_refused_with_its_path_and_a_remedy(
    value, kind, path, remedy
):
    ctx = context_of()
    with pytest.raises(CanonicalError) as caught:
        ctx.write_typed("k", value, kind)

    assert caught.value.path == f"$.k{path}"
    assert remedy in str(caught.value)
    assert "ctx.write_typed" not in str(caught.value)
    assert ctx.staged == {}


def of_library(library, name, bases=(), **members):
    """Return a class that is named like one of a library that need not be installed."""
    return type(name, bases, {"__module__": library, **members})


@pytest.mark.parametrize(
    ("kind", "arguments", "remedy"),
    [
        (of_library("pandas.core.frame", "DataFrame"), (), "df.to_parquet()"),
        (of_library("pandas", "Series"), (), "value.tolist()"),
        (of_library("polars.dataframe.frame", "DataFrame"), (), "df.to_dicts()"),
        (of_library("pyarrow.lib", "Table"), (), "value.to_pylist()"),
        (of_library("pandas._libs.tslibs.timestamps", "Timestamp"), (), "value.to_pydatetime()"),
        (of_library("pandas._libs.tslibs.timedeltas", "Timedelta"), (), "value.to_pytimedelta()"),
        (of_library("pandas._libs.tslibs.nattype", "NaTType"), (), "use None"),
        (of_library("pandas._libs.missing", "NAType"), (), "use None"),
        (of_library("pandas", "Interval"), (), "str(value)"),
        (of_library("numpy", "int64"), (), "value.item()"),
        (of_library("numpy", "float64", (float,)), (1.5,), "value.item()"),
        (of_library("numpy", "ndarray"), (), "value.tolist()"),
        (of_library("torch", "Tensor"), (), "value.tolist()"),
    ],
)
def test_what_a_library_of_tables_and_numbers_makes_is_refused_with_advice_that_helps(
    kind, arguments, remedy
):
    for value in (
        kind(*arguments),
        Holder(any=kind(*arguments)),
        Holder(whole=kind(*arguments)),
        [kind(*arguments)],
    ):
        with pytest.raises(CanonicalError) as caught:
            context_of().write_typed("k", value)
        assert remedy in str(caught.value)
    if not arguments:
        with pytest.raises(CanonicalError) as caught:
            context_of()["k"] = kind()
        assert remedy in str(caught.value)


def test_no_message_leaks_what_the_converter_says_of_itself():
    for value, kind, *_ in REFUSED:
        with pytest.raises(CanonicalError) as caught:
            context_of().write_typed("k", value, kind)
        assert not re.search(r"[Hh]ook|Unkept|<class|disambiguate|Unsupported", str(caught.value))


def test_a_container_of_plain_json_needs_no_type_and_keeps_its_bytes():
    value = {"a": [1, 1.5, None, True, {"b": []}], "c": {}}
    assert codec.typed_bytes(value) == canonical.encode(value)
    assert codec.structure_typed(value, dict) == value


def test_what_contains_itself_is_refused():
    value: list[Any] = []
    value.append(value)
    with pytest.raises(CanonicalError):
        context_of().write_typed("k", value)


def test_a_class_whose_annotations_name_nothing_is_refused_with_what_they_name():
    class Local:
        pass

    class Row(NamedTuple):
        a: Local

    with pytest.raises(CanonicalError, match=r"name 'Local' is not defined; define it .* in its module"):
        context_of().write_typed("k", Row(Local()))


def test_an_int_where_a_float_is_declared_is_that_float_when_read():
    ctx = context_of()
    ctx.write_typed("k", Holder(real=1))

    assert type(ctx.read_typed("k", Holder).real) is float


def test_what_was_stored_before_zones_had_names_is_read_as_it_was():
    for text, value in (
        ("2026-01-01T00:00:00", dt.datetime(2026, 1, 1)),  # noqa: DTZ001 - the same
        ("2026-01-01T00:00:00+00:00", dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
        ("2026-01-01", dt.datetime(2026, 1, 1)),  # noqa: DTZ001 - the same
    ):
        assert codec.structure_typed(text, dt.datetime) == value


def test_what_came_back_before_has_the_bytes_it_had():
    value = [dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))), dt.time(1), D("1.50"), b"x"]
    assert (
        codec.typed_bytes(tuple(value), tuple[dt.datetime, dt.time, D, bytes])
        == b'["2026-01-01T00:00:00+02:00","01:00:00","1.50","eA=="]'
    )
    assert codec.typed_bytes(Holder(base=Base(2))) == canonical.encode(
        codec.unstructure_typed(Holder(base=Base(2)))
    )


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-07T09:00:00-05:00[Nowhere/Land]",
        "2026-03-07T09:00:00-05:00[../../etc/passwd]",
        "2026-03-07T09:00:00-04:00[America/New_York]",
        "2026-03-07T09:00:00-05:00[America/New_York",
        "2026-03-07T09:00:00[fold=2]",
        "[UTC]",
    ],
)
def test_a_time_that_is_none_is_a_codec_error(text):
    with pytest.raises(CodecError):
        codec.structure_typed(text, dt.datetime)


def test_no_library_is_imported_to_find_out_what_a_value_is(monkeypatch):
    monkeypatch.setitem(
        sys.modules, "pydantic", type(sys)("pydantic")
    )  # half-imported: it has no BaseModel yet
    assert codec.typed_bytes(D(1)) == b'"1"'
    monkeypatch.delitem(sys.modules, "pydantic")
    assert codec.typed_bytes([D(1)], list[D]) == b'["1"]'
    assert "pydantic" not in sys.modules


def test_typed_values_pass_from_state_to_state_and_replay():
    plan = Plan("p")

    @plan.state("a.write")
    async def write(ctx, io, rec):
        ctx.write_typed("at", dt.datetime(2026, 3, 7, 9, tzinfo=ZoneInfo("America/New_York")))
        ctx.write_typed("model", Model(a=1))

    @plan.state("b.read", after=[write])
    async def read(ctx, io, rec):
        ctx["next"] = (ctx.read_typed("at", dt.datetime) + dt.timedelta(days=1)).isoformat()
        ctx["a"] = ctx.read_typed("model", Model).a

    with MemoryStore() as store:
        result = run(plan, store=store, config=RunConfig(undeclared_io="error"))
        assert (result.error, result.context["next"]) == (None, "2026-03-08T09:00:00-04:00")
        ZoneInfo.clear_cache()
        assert replay(result.run_id, plan=plan, store=store).identical


def test_a_time_that_the_clock_shows_twice_is_written_whichever_object_stands_for_its_zone():
    twice = dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))
    ZoneInfo.clear_cache()
    back = codec.structure_typed(canonical.decode(codec.typed_bytes(twice)), dt.datetime)
    assert (back.replace(tzinfo=None), back.fold, back.tzinfo.key) == (
        twice.replace(tzinfo=None),
        1,
        "Europe/Berlin",
    )


def test_a_zone_from_a_file_of_the_users_is_not_that_of_its_key():
    path = next(
        pathlib.Path(folder, "Europe/Berlin")
        for folder in TZPATH
        if pathlib.Path(folder, "Europe/Berlin").exists()
    )
    with path.open("rb") as file:
        own = ZoneInfo.from_file(file, key="Europe/Berlin")
    with pytest.raises(CanonicalError):
        codec.typed_bytes(dt.datetime(2026, 1, 1, tzinfo=own))
