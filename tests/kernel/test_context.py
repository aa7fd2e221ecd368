"""The context a state sees: a mapping of its own copies, whose writes are explicit or an error."""

from __future__ import annotations

import collections
import copy
import datetime as dt
import decimal
import enum
import uuid

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from strategies import FAST, JSON

from machine import canonical
from machine.errors import CanonicalError, CodecError, ContextError, IdError
from machine.kernel.context import Context
from machine.kernel.snapshot import Snapshot

KEYS = st.integers(0, 30).map("key {}".format) | st.sampled_from(
    ["é", "\U0001f600", "\uf900", '"', "\\", "a.b"]
)


def context_of(**content):
    artifacts = {}
    snapshot, made = Snapshot.empty(artifacts.__getitem__).update(
        {key: canonical.encode(value) for key, value in content.items()}
    )
    artifacts.update((new.id, new.data) for new in made.values())
    return Context(snapshot)


def after(ctx):
    """Return what the next state sees."""
    artifacts = {}
    snapshot, made = ctx._base.update(ctx.staged)
    artifacts.update((new.id, new.data) for new in made.values())
    return Context(snapshot)


def exactly(one, other):
    """Say whether two JSON values are the same, types included."""
    return repr(one) == repr(other)


# -- a mapping -----------------------------------------------------------------------------------------------


class MappingLaws(RuleBasedStateMachine):
    """A context and a dict that are used alike, across the states of a run."""

    @initialize(content=st.dictionaries(KEYS, JSON, max_size=25))
    def begin(self, content):
        self.model = content
        self.ctx = context_of(**content)

    @rule(key=KEYS, value=JSON)
    def write(self, key, value):
        self.ctx[key] = value
        self.model[key] = value

    @rule(key=KEYS)
    def delete(self, key):
        if key in self.model:
            del self.ctx[key]
            del self.model[key]
        else:
            with pytest.raises(KeyError):
                del self.ctx[key]

    @rule(key=KEYS)
    def read(self, key):
        if key in self.model:
            assert self.ctx[key] == self.model[key]
        else:
            with pytest.raises(KeyError):
                self.ctx[key]

    @rule(key=KEYS, value=JSON)
    def set_default(self, key, value):
        assert self.ctx.setdefault(key, value) == self.model.setdefault(key, value)

    @rule(key=KEYS, value=JSON)
    def pop(self, key, value):
        assert self.ctx.pop(key, value) == self.model.pop(key, value)

    @rule(more=st.dictionaries(KEYS, JSON, max_size=3))
    def update(self, more):
        self.ctx.update(more)
        self.model.update(more)

    @rule()
    def clear(self):
        self.ctx.clear()
        self.model.clear()

    @rule(key=KEYS, item=JSON)
    def change_and_write_back(self, key, item):
        if isinstance(self.model.get(key), list):
            value = self.ctx[key]
            value.append(item)
            self.ctx[key] = value
            self.model[key] = [*self.model[key], item]

    @rule()
    def complete_the_state(self):
        self.ctx.check_copies()
        self.ctx = after(self.ctx)

    @invariant()
    def they_are_alike(self):
        if hasattr(self, "model"):
            assert len(self.ctx) == len(self.model)
            assert list(self.ctx) == sorted(self.model)
            assert all(key in self.ctx for key in self.model)
            assert self.ctx == self.model


TestMappingLaws = MappingLaws.TestCase
TestMappingLaws.settings = settings(deadline=None, derandomize=True, max_examples=25, stateful_step_count=20)


@pytest.mark.parametrize("key", [7, None, 1.5, ("a",), b"a", "\ud800", "", "x" * 300], ids=ascii)
def test_a_key_that_cannot_be_written_is_simply_not_there_to_read(key):
    ctx = context_of(a=1)

    assert key not in ctx
    assert ctx.get(key) is None
    with pytest.raises(KeyError):
        ctx[key]
    with pytest.raises(KeyError):
        del ctx[key]


@pytest.mark.parametrize("key", [7, None, True, b"a", "", "x" * 257, "a\nb", "\ud800", "\x7f"], ids=ascii)
def test_a_key_that_is_no_short_printable_text_is_refused_when_it_is_written(key):
    ctx = context_of()
    with pytest.raises(IdError, match=r"ContextKey .* is invalid: 1 to 256 printable characters"):
        ctx[key] = 1
    with pytest.raises(IdError):
        ctx.write_typed(key, 1)

    assert ctx.staged == {}


def test_a_text_of_another_class_is_the_same_key():
    class Name(enum.StrEnum):
        COMMIT = "commit"

    ctx = context_of()
    ctx[Name.COMMIT] = 1

    assert ctx["commit"] == ctx[Name.COMMIT] == 1
    assert [type(key) for key in ctx.staged] == [str]


def test_a_missing_key_is_a_key_error_that_suggests_a_near_one():
    ctx = context_of(commit="abc", report="x")
    with pytest.raises(ContextError) as caught:
        ctx["comit"]

    assert isinstance(caught.value, KeyError)
    assert caught.value.code == "context_key_missing"
    assert str(caught.value) == "the context has no key 'comit' (did you mean 'commit'?)"
    with pytest.raises(ContextError) as caught:
        ctx.read_typed("zzz", int)
    assert str(caught.value) == "the context has no key 'zzz'"


def test_a_removed_key_is_missing_and_not_suggested():
    ctx = context_of(commit="abc")
    del ctx["commit"]

    with pytest.raises(ContextError) as caught:
        ctx["commit"]
    assert "did you mean" not in str(caught.value)
    assert len(ctx) == 0


def test_a_default_for_a_missing_key_costs_no_search_for_near_ones(monkeypatch):
    ctx = context_of(a=1)
    monkeypatch.setattr("difflib.get_close_matches", lambda *_: pytest.fail("searched"))

    assert ctx.get("b", 2) == 2
    assert ctx.setdefault("c", 3) == 3
    assert ctx.pop("d", 4) == 4


# -- values --------------------------------------------------------------------------------------------------


@FAST
@given(JSON)
def test_what_is_read_back_is_what_a_replay_would_read(value):
    ctx = context_of()
    ctx["k"] = value
    replayed = canonical.decode(canonical.encode(value))

    assert exactly(ctx["k"], replayed)
    assert exactly(after(ctx)["k"], replayed)
    assert ctx["k"] is not value or not isinstance(value, list | dict)


def test_what_was_read_changed_and_written_back_is_read_as_a_replay_would_read_it():
    ctx = context_of(k=[])
    value = ctx["k"]
    value.append((1.0, 2))
    ctx["k"] = value

    assert exactly(ctx["k"], [[1, 2]])
    assert exactly(after(ctx)["k"], [[1, 2]])


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({3: {"price": decimal.Decimal(1)}}, "$.orders"),
        ([0, 0, 0, {"price": decimal.Decimal(1)}], "$.orders[3].price"),
        ({"a b": [float("nan")]}, '$.orders["a b"][0]'),
        (float("inf"), "$.orders"),
        (2**53, "$.orders"),
        (b"x", "$.orders"),
        ([dt.datetime(2024, 1, 1, tzinfo=dt.UTC)], "$.orders[0]"),
        ({"tags": {1, 2}}, "$.orders.tags"),
        ("\ud800", "$.orders"),
    ],
    ids=lambda part: ascii(part)[:40],
)
def test_what_json_cannot_hold_is_refused_with_its_path(value, path):
    ctx = context_of(orders=[])
    with pytest.raises(CanonicalError) as caught:
        ctx["orders"] = value

    assert caught.value.path == path
    assert str(caught.value).startswith(f"{path}: ")
    assert ctx.staged == {}


def test_a_decimal_is_pointed_to_write_typed():
    with pytest.raises(
        CanonicalError, match=r"^\$\.orders\[3\]\.price: Decimal is not JSON; use ctx\.write_typed$"
    ):
        context_of()["orders"] = [0, 0, 0, {"price": decimal.Decimal(1)}]


def test_a_path_spells_an_odd_key_as_paths_below_it_do():
    with pytest.raises(CanonicalError) as caught:
        context_of()["my key"] = {"your key": b""}

    assert caught.value.path == '$["my key"]["your key"]'


def test_a_value_over_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr("machine.kernel.context.MAX_VALUE_BYTES", 10)
    ctx = context_of()
    ctx["k"] = "x" * 8
    with pytest.raises(ContextError) as caught:
        ctx["k"] = "x" * 9

    assert caught.value.code == "context_value_too_large"
    assert ctx["k"] == "x" * 8


# -- copies --------------------------------------------------------------------------------------------------


def test_a_value_that_is_read_is_the_readers_own_copy():
    ctx = context_of(orders=[{"price": 1}])
    written = {"a": [1]}
    ctx["mine"] = written
    ctx["orders"][0]["price"] = 2
    written["a"].append(2)

    assert ctx["mine"] == {"a": [1]}
    assert after(ctx)["mine"] == {"a": [1]}


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["list"].append(1),
        lambda value: value.update(new=1),
        lambda value: value.clear(),
        lambda value: value["list"].append(object()),
        lambda value: value["list"].append(value),
    ],
)
def test_a_copy_changed_in_place_and_not_written_back_is_an_error(change):
    ctx = context_of(orders={"list": []}, other=[1])
    value = ctx["orders"]
    change(value)
    with pytest.raises(ContextError) as caught:
        ctx.check_copies()

    assert caught.value.code == "context_value_mutated"
    assert "'orders'" in str(caught.value)
    assert "ctx['orders'] = value" in str(caught.value)


def test_a_copy_changed_and_written_back_is_no_error():
    ctx = context_of(orders=[1])
    value = ctx["orders"]
    value.append(2)
    ctx["orders"] = value
    ctx.check_copies()

    assert after(ctx)["orders"] == [1, 2]


def test_a_copy_changed_again_after_it_was_written_back_is_an_error():
    ctx = context_of(orders=[1])
    value = ctx["orders"]
    value.append(2)
    ctx["orders"] = value
    value.append(3)

    with pytest.raises(ContextError, match="changed in place"):
        ctx.check_copies()


class Bag(list):
    pass


@attrs.define
class Basket:
    items: list[str] = attrs.field(factory=list)


CHANGED_AFTER_IT_WAS_WRITTEN = {
    "a list": ([], lambda ctx, value: ctx.__setitem__("v", value), lambda value: value.append(1)),
    "a dict": ({}, lambda ctx, value: ctx.__setitem__("v", value), lambda value: value.update(a=1)),
    "a nested list": (
        {"a": {"b": []}},
        lambda ctx, value: ctx.__setitem__("v", value),
        lambda value: value["a"]["b"].append(5),
    ),
    "a list in a tuple": (
        ([],),
        lambda ctx, value: ctx.__setitem__("v", value),
        lambda value: value[0].append(1),
    ),
    "a list of another class": (
        Bag(),
        lambda ctx, value: ctx.__setitem__("v", value),
        lambda value: value.append(1),
    ),
    "a counter": (
        collections.Counter("a"),
        lambda ctx, value: ctx.__setitem__("v", value),
        lambda value: value.update("b"),
    ),
    "what is JSON no longer": (
        [],
        lambda ctx, value: ctx.__setitem__("v", value),
        lambda value: value.append(object()),
    ),
    "what contains itself": (
        [],
        lambda ctx, value: ctx.__setitem__("v", value),
        lambda value: value.append(value),
    ),
    "by update": ([], lambda ctx, value: ctx.update(v=value), lambda value: value.append(1)),
    "by setdefault": ([], lambda ctx, value: ctx.setdefault("v", value), lambda value: value.append(1)),
    "typed": (
        Basket(),
        lambda ctx, value: ctx.write_typed("v", value),
        lambda value: value.items.append("x"),
    ),
    "typed, no longer of its type": (
        Basket(),
        lambda ctx, value: ctx.write_typed("v", value),
        lambda value: value.items.append(object()),
    ),
    "typed, a container": (
        [decimal.Decimal(1)],
        lambda ctx, value: ctx.write_typed("v", value, list[decimal.Decimal]),
        lambda value: value.append(decimal.Decimal(2)),
    ),
}


@pytest.mark.parametrize("case", CHANGED_AFTER_IT_WAS_WRITTEN)
def test_a_value_changed_in_place_after_it_was_written_is_an_error(case):
    value, write, change = copy.deepcopy(CHANGED_AFTER_IT_WAS_WRITTEN[case])
    ctx = context_of()
    write(ctx, value)
    ctx.check_copies()
    change(value)
    with pytest.raises(ContextError) as caught:
        ctx.check_copies()

    assert caught.value.code == "context_value_mutated"
    assert str(caught.value).startswith(
        "the value of context key 'v' was changed in place after it was written (write it again"
    )
    typed = f"ctx.write_typed('v', value{', kind' if 'container' in case else ''})"
    assert (typed if "typed" in case else "ctx['v'] = value") in str(caught.value)


@pytest.mark.parametrize("case", ["a list", "a nested list", "a list in a tuple", "by update", "typed"])
def test_a_value_changed_after_it_was_written_and_written_again_is_no_error(case):
    value, write, change = copy.deepcopy(CHANGED_AFTER_IT_WAS_WRITTEN[case])
    ctx = context_of()
    write(ctx, value)
    change(value)
    write(ctx, value)
    ctx.check_copies()


def test_only_the_last_write_of_a_key_counts():
    ctx = context_of()
    first, second = [1], [2]
    ctx["v"] = first
    ctx["v"] = second
    first.append(1)
    ctx.check_copies()
    ctx["v"] = "text"
    second.append(2)
    ctx.check_copies()


def test_a_value_written_under_two_keys_and_then_changed_is_told_by_the_key_not_written_again():
    ctx = context_of()
    value = [1]
    ctx["one"] = value
    ctx["two"] = value
    value.append(2)
    ctx["two"] = value
    with pytest.raises(ContextError, match="'one'"):
        ctx.check_copies()
    ctx["one"] = value
    ctx.check_copies()


def test_a_value_changed_and_changed_back_is_the_one_that_was_written():
    ctx = context_of()
    value = [1]
    ctx["v"] = value
    value.append(2)
    value.pop()
    ctx.check_copies()


def test_a_value_whose_key_was_removed_may_be_changed():
    ctx = context_of()
    value = [1]
    ctx["v"] = value
    del ctx["v"]
    value.append(2)
    ctx.check_copies()


def test_leaves_cost_no_second_encoding(monkeypatch):
    ctx = context_of()
    for value in ("text", 1, 1.5, True, None):
        ctx[f"{value}"] = value
    monkeypatch.setattr("machine.canonical.encode", lambda _: pytest.fail("encoded again"))
    ctx.check_copies()


def test_a_copy_whose_key_was_given_another_value_or_removed_may_be_changed():
    ctx = context_of(one=[1], two=[2])
    one, two = ctx["one"], ctx["two"]
    ctx["one"] = [9]
    del ctx["two"]
    one.append(1)
    two.append(2)
    ctx.check_copies()

    assert dict(after(ctx)) == {"one": [9]}


def test_a_default_that_was_set_and_then_changed_is_not_silently_lost():
    ctx = context_of()
    ctx.setdefault("orders", []).append(1)

    with pytest.raises(ContextError, match="changed in place"):
        ctx.check_copies()


def test_a_copy_read_through_the_views_is_watched_too():
    ctx = context_of(orders=[1])
    for value in ctx.values():
        value.append(2)

    with pytest.raises(ContextError, match="changed in place"):
        ctx.check_copies()


def test_reading_stages_nothing():
    ctx = context_of(orders=[1], count=2)
    dict(ctx)
    ctx.get("nothing")

    assert ctx.staged == {}
    assert repr(ctx) == "<Context of 2 keys, 0 staged>"


def test_what_is_staged_are_canonical_bytes_and_removals():
    ctx = context_of(a=1, b=2)
    ctx["c"] = {"z": 1.0, "y": [True]}
    del ctx["a"]

    assert ctx.staged == {"c": b'{"y":[true],"z":1}', "a": None}
    assert dict(ctx) == {"b": 2, "c": {"y": [True], "z": 1}}


# -- typed values --------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


@attrs.frozen
class Quote:
    price: decimal.Decimal
    at: dt.datetime
    tags: tuple[str, ...] = ()
    colour: Colour | None = None


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (
            Quote(decimal.Decimal("1.50"), dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC), ("a",), Colour.RED),
            Quote,
        ),
        (dt.datetime(2024, 2, 29, 12), dt.datetime),  # noqa: DTZ001 - a naive one is the point
        (dt.date(2024, 2, 29), dt.date),
        (dt.time(12, 30), dt.time),
        (dt.timedelta(days=-1, microseconds=3), dt.timedelta),
        (decimal.Decimal("-0.00"), decimal.Decimal),
        (b"\x00\xff", bytes),
        (uuid.UUID(int=7), uuid.UUID),
        (Colour.RED, Colour),
        ((1, decimal.Decimal(2)), tuple[int, decimal.Decimal]),
        ({"a": [None, b"x"]}, dict[str, list[bytes | None]]),
    ],
    ids=lambda part: ascii(part)[:40],
)
def test_a_typed_value_is_read_back_as_it_was_by_this_state_and_the_next(value, kind):
    ctx = context_of()
    ctx.write_typed("k", value, kind)

    for seen in (ctx, after(ctx)):
        again = seen.read_typed("k", kind)
        assert again == value
        assert type(again) is type(value)
        assert repr(again) == repr(value)


def test_reading_a_value_as_another_type_is_a_codec_error():
    ctx = context_of(k="x")
    with pytest.raises(CodecError):
        ctx.read_typed("k", decimal.Decimal)


def test_what_no_type_carries_is_refused_with_its_path():
    with pytest.raises(CanonicalError, match=r"^\$\.k\.a: set is not JSON"):
        context_of().write_typed("k", {"a": {1}})


def test_a_typed_read_is_a_copy_that_may_be_changed():
    ctx = context_of(k=[1])
    ctx.read_typed("k", list[int]).append(2)
    ctx.check_copies()

    assert ctx["k"] == [1]


# -- what it costs -------------------------------------------------------------------------------------------


def stored(content):
    """Return the id of a snapshot, its artifacts, and a list of those that are loaded."""
    artifacts, asked = {}, []
    snapshot, made = Snapshot.empty(artifacts.__getitem__).update(
        {key: canonical.encode(value) for key, value in content.items()}
    )
    artifacts.update((new.id, new.data) for new in made.values())

    def load(artifact_id):
        asked.append(artifact_id)
        return artifacts[artifact_id]

    return snapshot.id, load, asked


@pytest.mark.parametrize("size", [1_000, 100_000])
def test_only_a_read_loads_a_value(size):
    snapshot_id, load, asked = stored({"large": "x" * size, "other": 1})
    ctx = Context(Snapshot.open(snapshot_id, load))
    assert "large" in ctx
    assert len(ctx) == 2
    assert list(ctx) == list(ctx.keys()) == ["large", "other"]
    ctx["large"] = 7
    assert len(ctx) == 2
    del ctx["large"]
    assert (len(ctx), "large" in ctx, list(ctx)) == (1, False, ["other"])
    assert asked == [snapshot_id]
    assert Context(Snapshot.open(snapshot_id, load))["large"] == "x" * size
    assert len(asked) > 2


def test_iterating_many_keys_loads_each_node_once_for_all_states():
    content = {f"key {n:05}": n for n in range(5_000)}
    snapshot_id, load, asked = stored(content)
    snapshot = Snapshot.open(snapshot_id, load)
    assert dict(Context(snapshot).items()) == content
    assert len(asked) == len(set(asked))
    asked.clear()
    for n in range(5):
        ctx = Context(snapshot)
        ctx[f"key {n:05}"] = content[f"key {n:05}"] = -n
        ctx[f"new {n}"] = content[f"new {n}"] = n
        del ctx[f"key {4_000 + n:05}"], content[f"key {4_000 + n:05}"]
        assert list(ctx) == list(ctx.keys()) == sorted(content)
        assert len(ctx) == len(content)
        snapshot, _ = snapshot.update(ctx.staged)
        assert dict(Context(snapshot).items()) == content
        assert all(key in Context(snapshot) for key in content)
    assert len(asked) <= 5 * 3 * 4  # the paths to what was written, of which the walk has kept no nodes


def test_a_context_may_be_written_while_it_is_iterated():
    ctx = context_of(**{f"k{n}": n for n in range(50)})
    for key in ctx:
        ctx[key] = 0
        ctx[f"{key} too"] = 1
        if key == "k7":
            del ctx[key]
    assert len(ctx) == 99
