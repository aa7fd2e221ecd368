"""What people do to code that was recorded: every edit that matters is caught where it was made, no other is."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest

from machine import compare, replay, run
from machine.errors import OtherIoError
from machine.io.transport import BaseTransport
from machine.stores import MemoryStore

SOURCE = """
import asyncio
import logging
import os
import random
import time
import uuid
from datetime import datetime

from machine import DomainEvent, Plan, RetryPolicy, StateOutcome
from machine.errors import IoError

plan = Plan("shop")
log = logging.getLogger(__name__)
CURRENCY = "EUR"
SEEN = {}


def total(lines):
    return sum(line["price"] * line["count"] for line in lines)


@plan.state("order.load", tags=["fetch_data"])
async def load(ctx, io, rec):
    order = (await io.call("world.orders", {"id": ctx["id"], "depth": 2})).response
    ids = [line["id"] for line in order["lines"]]
    stock = (await io.call("world.stock", {"ids": ids})).response
    ctx["lines"] = order["lines"]
    ctx["stock"] = stock


@plan.state("order.price", after=[load])
async def price(ctx, io, rec):
    rate = (await io.call("world.rates", {"currency": CURRENCY})).response["rate"]
    now = await io.now()
    await rec.emit(DomainEvent("priced", {"rate": rate}))
    await rec.emit(DomainEvent("checked", {"lines": len(ctx["lines"])}))
    ctx["total"] = round(total(ctx["lines"]) * rate, 2)
    ctx["text"] = f"{ctx['total']:.2f} {CURRENCY}"
    ctx["at"] = now
    ctx["kinds"] = sorted({line["size"] for line in ctx["lines"]})


@plan.state("order.fraud", after=[price])
async def fraud(ctx, io, rec):
    try:
        await io.call("world.fraud", {"total": ctx["total"]})
        ctx["risk"] = 0
    except IoError as exc:
        ctx["risk"] = len(exc.message)
    one, two = await asyncio.gather(
        io.call("world.score", {"of": "a"}), io.call("world.score", {"of": "b"})
    )
    ctx["scores"] = {"a": one.response, "b": two.response}


@plan.state(
    "order.pay",
    after=[fraud],
    tags=["apply_side_effect"],
    side_effects="apply_side_effect",
    idempotency=lambda ctx: f"pay-{ctx['id']}",
)
async def pay(ctx, io, rec):
    receipt = (await io.call("bank", {"pay": ctx["total"]}, fact_key="receipt")).response
    ctx["receipt"] = receipt["number"]


@plan.state("order.pick", after=[pay])
def pick(ctx, io, rec):
    shelf = io.env("SHELF")
    place = io.env("PLACE")
    ctx["shelf"] = [shelf, place]


@plan.state("order.label", after=[pick], retry=RetryPolicy(2))
async def label(ctx, io, rec):
    await io.call("world.label", {"for": ctx["id"]})
    raise LookupError("there is no label")
"""

RATE = '    rate = (await io.call("world.rates", {"currency": CURRENCY})).response["rate"]'
NOW = "    now = await io.now()"

EDITS = [
    # requests
    ("an argument changed", '"depth": 2', '"depth": 3', "request_changed", "load"),
    ("an argument added", '"depth": 2}', '"depth": 2, "all": True}', "request_changed", "load"),
    ("an argument dropped", ', "depth": 2}', "}", "request_changed", "load"),
    ("a list in another order", '{"ids": ids}', '{"ids": ids[::-1]}', "request_changed", "load"),
    ("a number became text", '"depth": 2', '"depth": "2"', "request_changed", "load"),
    ("a constant changed", 'CURRENCY = "EUR"', 'CURRENCY = "USD"', "request_changed", "price"),
    ("another namespace", '"world.stock"', '"world.stocks"', "call_added", "load"),
    (
        "an effect of another amount",
        '{"pay": ctx["total"]}',
        '{"pay": ctx["total"] + 1}',
        "request_changed",
        "pay",
    ),
    ("another idempotency key", 'f"pay-{ctx[', 'f"paid-{ctx[', "event_differs", "pay"),
    ("another fact key", 'fact_key="receipt"', 'fact_key="slip"', "request_changed", "pay"),
    ("the fact key dropped", ', fact_key="receipt"', "", "request_changed", "pay"),
    (
        "a request from the context",
        '{"total": ctx["total"]}',
        '{"total": ctx["at"]}',
        "request_changed",
        "fraud",
    ),
    ("an argument of a racing call", '{"of": "b"}', '{"of": "c"}', "request_changed", "fraud"),
    ("a plain call changed", 'io.env("PLACE")', 'io.env("SPOT")', "request_changed", "pick"),
    # calls
    (
        "a call added at the front",
        "    order = (await",
        "    await io.now()\n    order = (await",
        "call_added",
        "load",
    ),
    (
        "a call added at the end",
        '    ctx["stock"] = stock',
        '    ctx["stock"] = stock\n    await io.uuid()',
        "call_added",
        "load",
    ),
    (
        "a call made twice",
        '    ctx["at"] = now',
        '    ctx["at"] = now\n    await io.now()',
        "call_added",
        "price",
    ),
    ("a call removed", "    now = await io.now()", "    now = 0", "call_missing", "price"),
    ("the last call removed", '    place = io.env("PLACE")', "    place = None", "call_missing", "pick"),
    (
        "a racing call removed",
        'io.call("world.score", {"of": "a"}), ',
        "asyncio.sleep(0, one_score()), ",
        "call_missing",
        "fraud",
    ),
    (
        "calls swapped",
        '    shelf = io.env("SHELF")\n    place = io.env("PLACE")',
        '    place = io.env("PLACE")\n    shelf = io.env("SHELF")',
        "call_reordered",
        "pick",
    ),
    (
        "async calls swapped",
        f"{RATE}\n{NOW}",
        f"{NOW}\n{RATE}",
        "call_reordered",
        "price",
    ),
    ("an early return", "    stock = (await", "    return\n    stock = (await", "call_missing", "load"),
    (
        "a return before the writes",
        '    ctx["total"] =',
        '    return\n    ctx["total"] =',
        "snapshot_differs",
        "price",
    ),
    (
        "a call behind a condition",
        "    now = await io.now()",
        "    now = await io.now() if rate > 9 else 0",
        "call_missing",
        "price",
    ),
    (
        "a call in a loop",
        "    now = await io.now()",
        "    for _ in range(2):\n        now = await io.now()",
        "call_added",
        "price",
    ),
    (
        "a value cached from the run before",
        RATE,
        '    if "rate" not in SEEN:\n        SEEN["rate"] = 2\n    rate = SEEN["rate"]',
        "call_missing",
        "price",
    ),
    # values
    (
        "another formula",
        'line["price"] * line["count"]',
        'line["price"] + line["count"]',
        "snapshot_differs",
        "price",
    ),
    ("rounding", "* rate, 2)", "* rate, 1)", "snapshot_differs", "price"),
    ("float formatting", ":.2f} {", ":.3f} {", "snapshot_differs", "price"),
    (
        "set iteration order",
        'sorted({line["size"] for line in ctx["lines"]})',
        'list({line["size"] for line in ctx["lines"]})',
        "snapshot_differs",
        "price",
    ),
    ("a key renamed", 'ctx["text"]', 'ctx["words"]', "snapshot_differs", "price"),
    (
        "a key added",
        '    ctx["at"] = now',
        '    ctx["at"] = now\n    ctx["more"] = 1',
        "snapshot_differs",
        "price",
    ),
    ("a key dropped", '    ctx["stock"] = stock\n', "\n", "snapshot_differs", "load"),
    ("a value of another type", 'receipt["number"]', 'str(receipt["number"])', "snapshot_differs", "pay"),
    ("items in another order", "[shelf, place]", "[place, shelf]", "snapshot_differs", "pick"),
    (
        "an order that the outside has given",
        'ctx["lines"] = order["lines"]',
        'ctx["lines"] = sorted(order["lines"], key=str)',
        "snapshot_differs",
        "load",
    ),
    (
        "the order of keys from outside",
        'ctx["stock"] = stock',
        'ctx["stock"] = list(stock)[:1]',
        "snapshot_differs",
        "load",
    ),
    (
        "a swap of what raced",
        '"a": one.response, "b": two.response',
        '"a": two.response, "b": one.response',
        "snapshot_differs",
        "fraud",
    ),
    # clocks and chance
    ("time.time()", '    ctx["at"] = now', '    ctx["at"] = time.time()', "undeclared_io", "price"),
    (
        "datetime.now()",
        '    ctx["at"] = now',
        '    ctx["at"] = datetime.now().isoformat()',
        "undeclared_io",
        "price",
    ),
    ("uuid4()", '    ctx["at"] = now', '    ctx["at"] = str(uuid.uuid4())', "undeclared_io", "price"),
    (
        "random.random()",
        '    ctx["at"] = now',
        '    ctx["at"] = random.random()',
        "undeclared_io",
        "price",
    ),
    ("os.urandom", '    ctx["at"] = now', '    ctx["at"] = os.urandom(4).hex()', "undeclared_io", "price"),
    (
        "the environment",
        '    ctx["at"] = now',
        '    ctx["at"] = os.environ.get("HOME")',
        "undeclared_io",
        "price",
    ),
    (
        "a file",
        '    ctx["at"] = now',
        '    ctx["at"] = open("/etc/hostname").read()',
        "undeclared_io",
        "price",
    ),
    ("a listing", '    ctx["at"] = now', '    ctx["at"] = os.listdir("/")', "undeclared_io", "price"),
    ("a program", '    ctx["at"] = now', '    ctx["at"] = os.system("true")', "undeclared_io", "price"),
    # errors
    ("another exception", 'raise LookupError("there', 'raise ValueError("there', "event_differs", "label"),
    ("another message", '"there is no label"', '"there are no labels"', "event_differs", "label"),
    (
        "an error swallowed",
        '    raise LookupError("there is no label")',
        "    return",
        "event_differs",
        "label",
    ),
    (
        "an error not caught",
        "    except IoError as exc:",
        "    except KeyError as exc:",
        "call_missing",
        "fraud",
    ),
    (
        "an error of its own making",
        '    ctx["shelf"]',
        '    raise RuntimeError\n    ctx["shelf"]',
        "event_differs",
        "pick",
    ),
    (
        "failing by outcome",
        '    raise LookupError("there is no label")',
        '    return StateOutcome(error="no_label")',
        "event_differs",
        "label",
    ),
    # domain events
    ("an event of another payload", '{"rate": rate}', '{"rate": -rate}', "event_differs", "price"),
    ("an event of another name", '"priced"', '"priced_it"', "event_differs", "price"),
    (
        "an event dropped",
        '    await rec.emit(DomainEvent("priced", {"rate": rate}))\n',
        "",
        "event_differs",
        "price",
    ),
    (
        "an event added",
        "    now = await",
        '    await rec.emit(DomainEvent("rated", {}))\n    now = await',
        "event_differs",
        "price",
    ),
    # the plan
    ("a retry added", "after=[price])", "after=[price], retry=RetryPolicy(3))", "plan_changed", "fraud"),
    ("a retry changed", "RetryPolicy(2)", "RetryPolicy(3)", "plan_changed", "label"),
    ("a timeout added", "after=[price])", "after=[price], timeout=5)", "plan_changed", "fraud"),
    ("a tag changed", '"fetch_data"', '"compute"', "plan_changed", "load"),
    (
        "side effects declared",
        "after=[price])",
        'after=[price], side_effects="pure")',
        "plan_changed",
        "fraud",
    ),
    ("an edge removed", '"order.fraud", after=[price]', '"order.fraud"', "plan_changed", "fraud"),
    ("an edge moved", '"order.pick", after=[pay]', '"order.pick", after=[fraud]', "plan_changed", "pick"),
    ("a state renamed", '"order.pick"', '"order.choose"', "plan_changed", "choose"),
    (
        "a state added",
        '@plan.state("order.label"',
        '@plan.state("order.ship", after=[pick])\ndef ship(ctx, io, rec): ...\n\n\n@plan.state("order.label"',
        "plan_changed",
        "ship",
    ),
]

HARMLESS = [
    ("a comment", "    ids = [", "    # of every line\n    ids = ["),
    ("a docstring", "async def load(ctx, io, rec):\n", 'async def load(ctx, io, rec):\n    """Load it."""\n'),
    (
        "a renamed local",
        'place = io.env("PLACE")\n    ctx["shelf"] = [shelf, place]',
        'spot = io.env("PLACE")\n    ctx["shelf"] = [shelf, spot]',
    ),
    ("blank lines", '    ctx["lines"] = order', '\n\n    ctx["lines"] = order'),
    ("a log line", "    ids = [", '    log.warning("an order of %s", ctx["id"])\n    ids = ['),
    (
        "a helper inlined",
        'total(ctx["lines"])',
        'sum(line["price"] * line["count"] for line in ctx["lines"])',
    ),
    (
        "a loop for a comprehension",
        '    ids = [line["id"] for line in order["lines"]]',
        '    ids = []\n    for line in order["lines"]:\n        ids.append(line["id"])',
    ),
    ("keys of a request in another order", '{"id": ctx["id"], "depth": 2}', '{"depth": 2, "id": ctx["id"]}'),
    (
        "writes in another order",
        '    ctx["lines"] = order["lines"]\n    ctx["stock"] = stock',
        '    ctx["stock"] = stock\n    ctx["lines"] = order["lines"]',
    ),
    ("a float for an integer", '"depth": 2', '"depth": 2.0'),
    ("a tuple for a list", '{"ids": ids}', '{"ids": tuple(ids)}'),
    (
        "text put together otherwise",
        "f\"{ctx['total']:.2f} {CURRENCY}\"",
        "'%.2f %s' % (ctx['total'], CURRENCY)",
    ),
    ("another name for the function", "async def label(", "async def stick("),
    (
        "racing calls in another order",
        'io.call("world.score", {"of": "a"}), io.call("world.score", {"of": "b"})\n    )',
        'io.call("world.score", {"of": "b"}), io.call("world.score", {"of": "a"})\n    )\n    one, two = two, one',
    ),
    (
        "a plain function made async",
        'def pick(ctx, io, rec):\n    shelf = io.env("SHELF")\n    place = io.env("PLACE")',
        'async def pick(ctx, io, rec):\n    shelf = await io.env("SHELF")\n    place = await io.env("PLACE")',
    ),
    (
        "one write for two",
        '    ctx["shelf"] = [shelf, place]',
        '    ctx["shelf"] = [shelf]\n    ctx["shelf"] = [shelf, place]',
    ),
    ("an unused import", "import asyncio\n", "import asyncio\nimport decimal\n"),
    ("an assertion that holds", "    ids = [", '    assert order["lines"]\n    ids = ['),
    ("types", "def total(lines):", "def total(lines: list[dict]) -> float:"),
]


class World(BaseTransport):
    def is_effect(self, namespace, request):
        return namespace == "bank"

    async def perform(self, namespace, request):
        match namespace:
            case "world.orders":
                return {"lines": [line(3, 2.5, 17), line(1, 4.0, 1), line(2, 1.25, 8)]}
            case "world.stock":
                return {"b": 1, "a": 2}
            case "world.rates":
                return {"rate": 1.095}
            case "world.fraud":
                raise OtherIoError("nobody answers")
            case "world.score":
                return {"a": 1, "b": 2, "c": 3}[request["of"]]
            case "bank":
                return {"number": 77}
            case _:
                return {}


def line(number, price, size):
    return {"id": number, "price": price, "count": 3, "size": size}


WORLD = {"world": World(), "bank": World()}


def plan_of(folder, name, source):
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where the source of a class is looked up
    spec.loader.exec_module(module)
    return module.plan


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, MemoryStore() as store:
        patch.setenv("SHELF", "left")
        patch.setenv("PLACE", "top")
        plan = plan_of(tmp_path_factory.mktemp("before"), "shop_before", SOURCE)
        result = run(plan, store=store, input={"id": 12}, transports=WORLD)
        assert (result.status, result.error.message) == ("failed", "LookupError: there is no label")
        yield store, result


def edited(old, new):
    assert old in SOURCE, old
    return SOURCE.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new", "kind", "state"), [edit[1:] for edit in EDITS], ids=[edit[0] for edit in EDITS]
)
def test_an_edit_that_matters_is_caught_with_its_kind_and_state(recorded, tmp_path, old, new, kind, state):
    store, result = recorded
    changed = edited(old, new).replace("one_score()", 'type("R", (), {"response": 1})')
    plan = plan_of(tmp_path, "shop_after", changed)
    found = replay(result.run_id, plan=plan, store=store, transports=WORLD, undeclared_io="error")
    assert not found.identical
    divergence = found.divergence
    assert (divergence.kind, divergence.state_id) == (kind, f"shop.order.{state}"), divergence
    json.dumps(divergence.to_json())


@pytest.mark.parametrize(("old", "new"), [edit[1:] for edit in HARMLESS], ids=[edit[0] for edit in HARMLESS])
def test_an_edit_that_does_not_matter_is_identical(recorded, tmp_path, old, new):
    store, result = recorded
    plan = plan_of(tmp_path, "shop_after", edited(old, new))
    found = replay(result.run_id, plan=plan, store=store, transports=WORLD, undeclared_io="error")
    assert (found.divergence, found.digest) == (None, result.digest)
    again = compare(result.run_id, plan=plan, store=store, transports=WORLD, undeclared_io="error")
    assert again.identical


@pytest.mark.parametrize(
    ("old", "new", "kind", "state"),
    [edit[1:] for edit in EDITS if edit[3] != "plan_changed"],
    ids=[edit[0] for edit in EDITS if edit[3] != "plan_changed"],
)
def test_compare_finds_the_same_in_the_state_that_was_edited_and_nothing_elsewhere(
    recorded, tmp_path, old, new, kind, state
):
    store, result = recorded
    changed = edited(old, new).replace("one_score()", 'type("R", (), {"response": 1})')
    found = compare(
        result.run_id,
        plan=plan_of(tmp_path, "shop_after", changed),
        store=store,
        transports=WORLD,
        undeclared_io="error",
    )
    differing = {item.state_id: item.divergence.kind for item in found.states if item.divergence}
    assert differing[f"shop.order.{state}"] == kind
    expected = {f"shop.order.{state}"}
    if old == 'CURRENCY = "EUR"':
        expected = {"shop.order.price"}
    assert set(differing) == expected


def test_the_tables_are_as_long_as_they_should_be():
    assert len(EDITS) >= 40
    assert len(HARMLESS) >= 15
