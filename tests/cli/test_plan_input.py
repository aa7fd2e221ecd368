"""`machine plan` lists the input that a plan takes, and `machine run` refuses what does not fit."""

from __future__ import annotations

import json

import pytest

ORDERS = """
from dataclasses import dataclass

from machine import Plan


@dataclass
class Order:
    '''What somebody bought.'''

    sku: str
    count: int = 1


plan = Plan("orders", input=Order)


@plan.state("take.order")
def order(ctx):
    ctx["total"] = ctx["count"]
"""


@pytest.fixture(autouse=True)
def orders(write):
    write("orders.py", ORDERS)


def test_the_fields_are_listed(machine):
    said = machine("plan", "orders.py")
    lines = [line.split() for line in said.out.splitlines()]
    assert ["INPUT", "TYPE", "DEFAULT"] in lines
    assert ["sku", "string", "required"] in lines
    assert ["count", "integer", "1"] in lines
    assert machine("plan", "orders.py", "--json").json["input"]["title"] == "Order"


def test_the_schema_is_printed(machine):
    said = machine("plan", "orders.py", "--schema")
    schema = json.loads(said.out)
    assert (said.code, schema["title"], schema["description"]) == (0, "Order", "What somebody bought.")
    assert schema["required"] == ["sku"]
    assert machine("plan", "orders.py", "--schema", "--json").json == schema


def test_an_input_that_does_not_fit_is_refused_and_nothing_is_written(machine):
    said = machine("run", "orders.py", "--input", '{"skuu": "tea", "count": "x"}')
    assert said.code == 2
    assert "error[invalid_input]: the input does not fit Order has 3 problems" in said.err
    assert "required field 'sku' is missing @ $.sku" in said.err
    assert "unknown fields: skuu @ $" in said.err
    assert "machine plan TARGET" in said.err
    assert machine("runs", "--json").json.get("runs", []) == []


def test_one_that_fits_has_the_defaults(machine):
    assert machine("run", "orders.py", "--input", '{"sku": "tea"}').code == 0
    assert machine("show", "@last", "--json").json["input"] == {"sku": "tea", "count": 1}
    assert machine("replay", "@last").code == 0


def test_a_schedule_is_refused_too(machine):
    pytest.importorskip("croniter")
    said = machine("schedule", "add", "one", "orders.py", "@daily", "--input", '{"sku": 7}')
    assert said.code == 2
    assert "error[invalid_input]" in said.err


def test_a_plan_without_a_class_has_no_schema(machine, write):
    write("any.py", 'from machine import Plan\nplan = Plan("any")\n@plan.state("a.b")\ndef b(ctx): ...\n')
    said = machine("plan", "any.py", "--schema")
    assert said.code == 2
    assert "takes any JSON object" in said.err
    assert machine("plan", "any.py", "--json").json["input"] is None
    assert "INPUT" not in machine("plan", "any.py").out
