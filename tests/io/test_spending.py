"""Spending: what handlers and the answers of models say was used, exact to the last digit."""

from __future__ import annotations

import json
from decimal import Decimal

import httpx
import pytest

from machine import Plan, RunConfig, replay, run
from machine.codec import decode_entry
from machine.errors import OtherIoError, PlanError
from machine.events import FactRecorded, LimitReached
from machine.io.transport import BaseTransport
from machine.kernel.history import fold
from machine.limits import Limits
from machine.model_prices import Price
from machine.stores import MemoryStore

PRICES = {
    "small": Price(input="0.075", output="0.30"),
    "large": Price(input=3, output=15, cached_input="0.3"),
}


@pytest.fixture
def store():
    with MemoryStore() as opened:
        yield opened


class Models(BaseTransport):
    """Models that answer each request with what a function returns, and count the requests."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    def is_final(self, namespace, response):
        return True

    async def perform(self, namespace, request):
        self.asked.append(request)
        body = self.answer(request)
        text = body if isinstance(body, str) else json.dumps(body)
        return {"status": 200, "url": request["url"], "headers": [], "body": {"text": text}}


def usage_of(store, run_id):
    return fold(decode_entry(event.seq, event.data) for event in store.read_range(run_id)).usage


def facts(store, run_id):
    entries = (decode_entry(event.seq, event.data) for event in store.read_range(run_id))
    return [entry.event for entry in entries if isinstance(entry.event, FactRecorded)]


def spends(*spent, **options):
    """Return a plan that spends, in one state, and what each spend returned."""
    plan, returned = Plan("op", **options), []

    @plan.state("step.spends")
    async def handler(ctx, io):
        for one in spent:
            try:
                returned.append(await io.spend(**one))
            except OtherIoError as exc:
                returned.append(exc.code)
        ctx["returned"] = returned[-len(spent) :]

    return plan


def test_what_was_spent_adds_up_exactly(store):
    spent = [{"input_tokens": 3, "output_tokens": 4, "cost_usd": 0.1}] * 10
    plan = spends(*spent, {"cost_usd": "0.000000000000000001"}, {"cost_usd": Decimal("2.50")})
    result = run(plan, store=store)
    assert result.context["returned"] == ["0.1"] * 10 + ["0.000000000000000001", "2.5"]
    usage = usage_of(store, result.run_id)
    assert (usage.input_tokens, usage.output_tokens, usage.tokens) == (30, 40, 70)
    assert usage.of("cost") == "3.500000000000000001"
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_price_makes_the_cost_of_tokens(store):
    plan = spends({"input_tokens": 1_000_003, "output_tokens": 7, "model": "small"}, prices=PRICES)
    result = run(plan, store=store)
    assert result.context["returned"] == ["0.075002325"]
    other = spends({"input_tokens": 1_000_003, "output_tokens": 7, "model": "small"})  # prices change
    assert replay(result.run_id, plan=other, store=store).identical


WRONG = {
    "a negative number": {"input_tokens": -1},
    "a half": {"output_tokens": 0.5},
    "true": {"input_tokens": True},
    "a negative cost": {"cost_usd": "-0.01"},
    "a cost that is none": {"cost_usd": "free"},
    "an endless cost": {"cost_usd": float("inf")},
    "a model that is none": {"model": ""},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_spend_that_is_none_is_refused_and_nothing_is_recorded(store, name):
    plan = spends(WRONG[name], {"input_tokens": 1})
    result = run(plan, store=store)
    assert result.context["returned"] == ["io_invalid_request", "0"]
    assert len(facts(store, result.run_id)) == 1
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_price_that_is_missing_is_an_error(store):
    plan = spends({"input_tokens": 1, "model": "smal"}, {"model": "smal", "cost_usd": 1}, prices=PRICES)
    result = run(plan, store=store)
    assert result.context["returned"] == ["price_missing", "1"]
    assert replay(result.run_id, plan=plan, store=store).identical


@pytest.mark.parametrize(
    "wrong",
    [
        {"usage": "openai"},
        {"usage": ["opnai"]},
        {"prices": [1]},
        {"prices": {"small": 3}},
        {"prices": {"small": {"input": -1, "output": 1}}},
        {"prices": {"small": {"input": 1}}},
        {"prices": {"small": {"input": "0.0000000000001", "output": 1}}},
        {"prices": {7: Price(input=1, output=1)}},
    ],
)
def test_a_plan_with_a_price_or_an_interface_that_is_none_is_refused(wrong):
    with pytest.raises(PlanError) as caught:
        Plan("op", **wrong)
    assert caught.value.hint or "must map" in caught.value.message


def test_a_run_ends_once_its_money_is_spent(store):
    plan, told = Plan("op"), []

    @plan.state("step.agent")
    async def agent(ctx, io):
        for number in range(10):
            await io.spend(input_tokens=100, output_tokens=50, cost_usd="0.05")
            told.append(number)

    result = run(plan, store=store, config=RunConfig(limits=Limits(tokens=600)))
    assert (result.status, len(told)) == ("limit_exceeded", 4)
    assert result.error.details == {"limit": "tokens", "value": "600"}
    result = run(plan, store=store, config=RunConfig(limits=Limits(cost="0.12")))
    assert (result.status, len(told)) == ("limit_exceeded", 7)
    assert result.error.details == {"limit": "cost", "value": "0.15"}
    assert replay(result.run_id, plan=plan, store=store).identical


OPENAI = {
    "/v1/chat/completions": {
        "model": "large-2026-01-01",
        "usage": {
            "prompt_tokens": 1000,
            "completion_tokens": 100,
            "total_tokens": 1100,
            "prompt_tokens_details": {"cached_tokens": 400},
        },
    },
    "/v1/responses": {
        "model": "large",
        "usage": {"input_tokens": 1000, "output_tokens": 100, "input_tokens_details": {"cached_tokens": 400}},
    },
}
ANTHROPIC = {
    "/v1/messages": {
        "model": "large",
        "usage": {
            "input_tokens": 500,
            "output_tokens": 100,
            "cache_read_input_tokens": 400,
            "cache_creation_input_tokens": 100,
        },
    }
}
STREAMS = {
    "/v1/chat/completions": [
        {"model": "large", "choices": [{"delta": {"content": "a"}}], "usage": None},
        {"model": "large", "choices": [], "usage": OPENAI["/v1/chat/completions"]["usage"]},
    ],
    "/v1/responses": [
        {"type": "response.created", "response": {"model": "large", "usage": None}},
        {"type": "response.completed", "response": OPENAI["/v1/responses"]},
    ],
    "/v1/messages": [
        {"type": "message_start", "message": {**ANTHROPIC["/v1/messages"]}},
        {"type": "message_delta", "usage": {"output_tokens": 100}},
    ],
}


def asks(path, *, model="large", **options):
    plan = Plan("op", usage=["openai", "anthropic"], prices=PRICES, **options)

    @plan.state("step.asks")
    async def handler(ctx, io):
        answer = await io.http("POST", f"https://models.test{path}", json={"model": model})
        ctx["status"] = answer.status

    return plan


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("path", STREAMS)
def test_the_answer_of_a_model_says_what_it_used(store, path, streamed):
    body = (OPENAI | ANTHROPIC)[path]
    if streamed:
        body = (
            "".join(f"event: x\ndata: {json.dumps(event)}\n\n" for event in STREAMS[path])
            + "data: [DONE]\n\n"
        )
    plan, models = asks(path), Models(lambda _: body)
    result = run(plan, store=store, transports={"http": models})
    usage = usage_of(store, result.run_id)
    assert (usage.input_tokens, usage.output_tokens) == (1000, 100)
    # 600 at 3 dollars a million, or 500 and 100 that were stored at the same price; 400 at 0.3; 100 at 15
    assert usage.of("cost") == "0.00342"
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_model_without_a_price_is_not_asked(store):
    plan, models = asks("/v1/messages", model="largo"), Models(lambda _: ANTHROPIC["/v1/messages"])
    result = run(plan, store=store, transports={"http": models})
    assert (result.status, result.error.code, models.asked) == ("failed", "price_missing", [])
    assert replay(result.run_id, plan=plan, store=store).identical


@pytest.mark.parametrize(
    "body", ["", "no json", "[" * 100_000, {"usage": 7}, {"usage": {"input_tokens": "many"}}, {"model": 7}]
)
def test_an_answer_that_says_nothing_of_use_costs_nothing(store, body):
    plan = asks("/v1/messages")
    result = run(plan, store=store, transports={"http": Models(lambda _: body)})
    assert (result.status, usage_of(store, result.run_id).of("cost")) == ("completed", "0")


def test_the_answers_of_recorded_clients_count_streamed_ones_too(store, server):
    """The client is recorded as it is, and reads a stream of server-sent events."""
    plan = Plan("op", usage=["anthropic"], prices=PRICES, clients=["httpx"])

    @plan.state("step.asks")
    async def handler(ctx, io):
        async with httpx.AsyncClient() as client:
            request = client.stream("POST", f"{ctx['url']}/v1/messages", json={"model": "large"})
            async with request as answer:
                ctx["lines"] = [line async for line in answer.aiter_lines() if line][:2]

    result = run(plan, store=store, input={"url": server}, config=RunConfig(limits=Limits(cost="1")))
    assert result.status == "completed", result.error
    assert usage_of(store, result.run_id).of("cost") == "0.00342"
    assert replay(result.run_id, plan=plan, store=store).identical
    assert not [event for event in facts(store, result.run_id) if isinstance(event, LimitReached)]


@pytest.fixture
def server():
    """Return the URL of a server that answers every request with a stream of events, in two pieces."""
    import http.server
    import threading

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            events = [f"data: {json.dumps(event)}\n\n".encode() for event in STREAMS["/v1/messages"]]
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            data = b"".join(events)
            for piece in (data[:50], data[50:]):
                self.wfile.write(piece)
                self.wfile.flush()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()
        thread.join()


def test_what_a_child_run_has_spent_counts_for_its_parent(store):
    child, parent = spends({"input_tokens": 5, "cost_usd": "0.07"}), Plan("parent")

    @parent.state("step.asks")
    async def asks_children(ctx, io):
        for number in range(5):
            ctx[f"child {number}"] = (await io.run_child(child, {"number": number})).status

    result = run(parent, store=store, config=RunConfig(limits=Limits(cost="0.20")))
    assert result.error.details == {"limit": "cost", "value": "0.21"}
    usage = usage_of(store, result.run_id)
    assert (usage.input_tokens, usage.of("cost")) == (15, "0.21")
    assert replay(result.run_id, plan=parent, store=store).identical
