"""A plan with a class for its input refuses what does not fit, before anything is written."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import attrs
import pytest

from machine import Plan, dry_run, replay, run
from machine.cron.schedules import add_schedule
from machine.errors import Code, PlanError, UsageError
from machine.input_schema import DIALECT, schema_of, words_of
from machine.plan_input import checked_input
from machine.recordings.run_contents import gather
from machine.stores import MemoryStore

pydantic = pytest.importorskip("pydantic")


@attrs.frozen
class Item:
    """One line of an order."""

    sku: str
    count: int = 1


@attrs.frozen
class Order:
    """What somebody bought."""

    customer: str
    items: tuple[Item, ...]
    express: bool = False


@dataclass
class DataItem:
    sku: str
    count: int = 1


@dataclass
class DataOrder:
    customer: str
    items: list[DataItem]
    express: bool = False


class ModelItem(pydantic.BaseModel):
    sku: str
    count: int = 1


class ModelOrder(pydantic.BaseModel):
    customer: str
    items: list[ModelItem]
    express: bool = False


CLASSES = pytest.mark.parametrize("kind", [Order, DataOrder, ModelOrder])
GIVEN = {"customer": "ada", "items": [{"sku": "tea"}]}
STORED = {"customer": "ada", "items": [{"sku": "tea", "count": 1}], "express": False}


def plan_of(kind: Any) -> Plan:
    plan = Plan("orders", input=kind)

    @plan.state("take.order")
    async def order(ctx, io):
        ctx["seen"] = ctx["items"]

    return plan


def problems_of(kind: Any, given: Any) -> list[str]:
    with pytest.raises(UsageError) as caught:
        checked_input(kind, given)
    assert caught.value.code == Code.INVALID_INPUT
    assert caught.value.info.details["class"] == kind.__name__
    return caught.value.info.details["problems"]


@CLASSES
def test_what_handlers_see_is_json_with_the_defaults_of_the_class(kind, store):
    plan = plan_of(kind)
    result = run(plan, store=store, input=GIVEN)
    assert result.status == "completed", result.error
    assert result.context == {**STORED, "seen": STORED["items"]}
    assert replay(result.run_id, plan=plan, store=store).identical
    same = run(plan, store=store, input=result.context and STORED)
    assert same.digest == result.digest


@CLASSES
def test_an_instance_may_be_given(kind, store):
    item = {Order: Item, DataOrder: DataItem, ModelOrder: ModelItem}[kind]
    items = (item(sku="tea"),) if kind is Order else [item(sku="tea")]
    result = run(plan_of(kind), store=store, input=kind(customer="ada", items=items))
    assert result.context == {**STORED, "seen": STORED["items"]}


@CLASSES
@pytest.mark.parametrize(
    ("given", "paths"),
    [
        (None, ["$.customer", "$.items"]),
        ({}, ["$.customer", "$.items"]),
        ({"customer": "ada"}, ["$.items"]),
        ({**GIVEN, "customer": 7}, ["$.customer"]),
        ({**GIVEN, "items": "tea"}, ["$.items"]),
        ({**GIVEN, "items": [{"sku": "tea"}, {"count": 2}]}, ["$.items[1].sku"]),
        ({**GIVEN, "items": [{"sku": "tea", "count": "many"}]}, ["$.items[0].count"]),
        ({**GIVEN, "expres": True}, ["$"]),
        ({**GIVEN, "items": [{"sku": "tea", "cuont": 2}]}, ["$.items[0]"]),
        ([], ["$"]),
        ("x", ["$"]),
        ({"customer": {1}, "items": []}, ["$.customer"]),
    ],
)
def test_what_does_not_fit_is_refused_with_its_path_and_nothing_is_written(kind, given, paths, store):
    problems = problems_of(kind, given)
    assert [problem.rpartition(" @ ")[2] for problem in problems] == paths
    with pytest.raises(UsageError):
        run(plan_of(kind), store=store, input=given)
    with pytest.raises(UsageError):
        dry_run(plan_of(kind), store=store, input=given)
    assert store.list_runs().rows == []


@pytest.mark.parametrize("kind", [dict, int, 7, "Order", Order("ada", ()), list[int]])
def test_a_class_whose_fields_nobody_knows_is_refused(kind):
    with pytest.raises(PlanError, match="must be an attrs class, a dataclass or a model of pydantic"):
        Plan("orders", input=kind)


def test_the_class_is_no_part_of_the_plan():
    assert plan_of(Order).graph.plan_id == plan_of(None).graph.plan_id


def test_a_child_run_is_checked_too(store):
    parent, child = Plan("parent"), plan_of(Order)

    @parent.state("begin.it")
    async def it(ctx, io):
        good = await io.run_child(child, GIVEN)
        ctx["good"] = good.context["items"]
        await io.run_child(child, {"customer": 7})

    result = run(parent, store=store, wait=5)
    assert (result.status, result.error.code) == ("failed", Code.IO_INVALID_REQUEST)
    assert "$.customer" in result.error.message
    assert [row.op_id for row in store.list_runs().rows] == ["orders", "parent"]
    assert gather is not None


def test_a_schedule_is_checked_too(tmp_path, monkeypatch):
    (tmp_path / "scheduled.py").write_text(
        "import attrs\nfrom machine import Plan\n"
        "@attrs.frozen\nclass Night:\n    day: int\n"
        "plan = Plan('night', input=Night)\n"
        "@plan.state('do.it')\ndef it(ctx): ...\n"
    )
    target = f"{tmp_path}/scheduled.py:plan"
    with MemoryStore() as store:
        with pytest.raises(UsageError) as caught:
            add_schedule("one", "@daily", target, input={"day": "x"}, store=store)
        assert caught.value.code == Code.INVALID_INPUT
        assert store.schedules() == []
        assert add_schedule("one", "@daily", target, input={"day": 1}, store=store).input == {"day": 1}


# -- the schema ----------------------------------------------------------------------------------------------


class Size(enum.Enum):
    """A size."""

    SMALL = "s"
    LARGE = "l"


@attrs.frozen
class Node:
    """A class that holds itself."""

    name: str
    more: tuple[Node, ...] = ()


@attrs.frozen
class Everything:
    """A field of each type.

    More of it.
    """

    text: str
    number: float
    maybe: int | None = None
    choice: Literal["a", "b"] = "a"
    size: Size = Size.SMALL
    pair: tuple[int, str] = (1, "x")
    table: dict[str, int] = attrs.field(factory=dict)
    mapping: Mapping[str, Any] = attrs.field(factory=dict)
    when: dt.datetime | None = None
    day: dt.date = dt.date(2026, 11, 30)
    money: decimal.Decimal = decimal.Decimal("1.50")
    key: uuid.UUID | None = None
    raw: bytes = b"\xff"
    anything: Any = None
    node: Node | None = None
    _hidden: int = 3
    computed: int = attrs.field(init=False, default=7)


def test_the_schema_of_a_class():
    assert schema_of(Order) == {
        "$schema": DIALECT,
        "title": "Order",
        "description": "What somebody bought.",
        "type": "object",
        "properties": {
            "customer": {"type": "string"},
            "items": {"type": "array", "items": {"$ref": "#/$defs/Item"}},
            "express": {"type": "boolean", "default": False},
        },
        "required": ["customer", "items"],
        "additionalProperties": False,
        "$defs": {
            "Item": {
                "title": "Item",
                "description": "One line of an order.",
                "type": "object",
                "properties": {"sku": {"type": "string"}, "count": {"type": "integer", "default": 1}},
                "required": ["sku"],
                "additionalProperties": False,
            }
        },
    }
    assert "description" not in schema_of(DataOrder)
    assert schema_of(DataOrder)["$defs"]["DataItem"]["properties"]["count"] == {
        "type": "integer",
        "default": 1,
    }
    assert schema_of(ModelOrder)["properties"]["express"]["default"] is False


def test_every_type_has_a_schema_and_words():
    fields = schema_of(Everything)["properties"]
    assert schema_of(Everything)["description"] == "A field of each type."
    assert schema_of(Everything)["required"] == ["text", "number"]
    assert {name: words_of(each) for name, each in fields.items()} == {
        "text": "string",
        "number": "number",
        "maybe": "integer or null",
        "choice": "'a' or 'b'",
        "size": "'s' or 'l'",
        "pair": "list",
        "table": "object",
        "mapping": "object",
        "when": "date-time or null",
        "day": "date",
        "money": "decimal",
        "key": "uuid or null",
        "raw": "string",
        "anything": "any JSON",
        "node": "Node or null",
        "hidden": "integer",
    }
    assert [fields[name]["default"] for name in ("size", "day", "money", "raw", "pair")] == [
        "s",
        "2026-11-30",
        "1.50",
        "/w==",
        [1, "x"],
    ]
    assert schema_of(Node)["properties"]["more"]["items"] == {"$ref": "#/$defs/Node"}
    json.dumps(schema_of(Everything))


def test_a_default_that_is_made_anew_is_in_the_schema():
    @dataclass
    class Made:
        names: list[str] = field(default_factory=lambda: ["a"])

    sys.modules[__name__].Made = Made
    assert schema_of(Made)["properties"]["names"]["default"] == ["a"]
