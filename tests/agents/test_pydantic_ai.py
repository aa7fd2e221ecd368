"""Agents of pydantic-ai whose models and tools are steps."""

from __future__ import annotations

import asyncio

import pytest

from machine import Plan, RetryPolicy, open_store, replay, run
from machine.errors import Failure

pydantic_ai = pytest.importorskip("pydantic_ai")
adapter = pytest.importorskip("machine.agents.pydantic_ai")

from pydantic_ai.exceptions import ModelHTTPError, ModelRetry  # noqa: E402 - only where it is installed
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart  # noqa: E402 - the same
from pydantic_ai.models.function import FunctionModel  # noqa: E402 - the same

EFFECTS = {"side_effects": "apply_side_effect", "idempotency": "key"}
READS = {"side_effects": "read_only_io"}


@pytest.fixture
def store():
    with open_store("memory://") as store:
        yield store


@pytest.fixture
def done():
    """Return what models and tools have really done."""
    return []


def agent_of(done, *steps, **options):
    """Return an agent whose model answers with these parts, one list a request."""

    def answer(messages, info):
        number = sum(isinstance(one, ModelResponse) for one in messages)
        done.append(f"model {number}")
        found = steps[number]
        if isinstance(found, Exception):
            raise found
        return ModelResponse(parts=found)

    return pydantic_ai.Agent(
        FunctionModel(answer), name="clerk", capabilities=[adapter.MachineDurability()], **options
    )


def run_and_replay(handler, store, done, *, changes=READS, **options):
    """Run one state and replay it, in which no model and no tool is called; return the context."""
    plan = Plan("agent_test")
    plan.state("ask.agent", **changes, **options)(handler)
    result = run(plan, store=store)
    assert result.status == "completed", result.error
    before = list(done)
    replayed = replay(result.run_id, plan=plan, store=store)
    assert replayed.identical, replayed.divergence
    assert done == before
    return result.context


def test_models_and_tools_are_called_once_and_by_no_replay(store, done):
    calls = [ToolCallPart("price", {"name": "tea"}), ToolCallPart("price", {"name": "salt"})]
    agent = agent_of(done, calls, [TextPart("five in all")])

    @agent.tool_plain
    async def price(name: str) -> int:
        done.append(f"price {name}")
        return len(name)

    async def handler(ctx, io, rec):
        ctx["said"] = (await agent.run("How much is it?")).output

    assert run_and_replay(handler, store, done) == {"said": "five in all"}
    assert sorted(done) == ["model 0", "model 1", "price salt", "price tea"]


def test_a_later_attempt_repeats_nothing_that_had_ended(store, done):
    agent = agent_of(done, [ToolCallPart("buy", {"name": "tea"})], [TextPart("bought")])

    @agent.tool_plain(metadata={"machine": {"effect": True}})
    def buy(name: str) -> str:
        done.append(f"buy {name}")
        return "done"

    async def handler(ctx, io, rec):
        ctx["said"] = (await agent.run("Buy tea")).output
        if done.count("attempt") == 0:
            done.append("attempt")
            raise Failure("cut", code="cut", retryable=True)

    plan = Plan("agent_test")
    plan.state("ask.agent", **EFFECTS, retry=RetryPolicy(2))(handler)
    assert run(plan, store=store).context == {"said": "bought"}
    assert done == ["model 0", "buy tea", "model 1", "attempt"]


def test_a_tool_that_is_an_effect_is_refused_in_a_state_that_reads(store, done):
    agent = agent_of(done, [ToolCallPart("buy", {})], [TextPart("bought")])

    @agent.tool_plain(metadata={"machine": {"effect": True}})
    def buy() -> str:
        done.append("buy")
        return "done"

    async def handler(ctx, io, rec):
        await agent.run("Buy tea")

    plan = Plan("agent_test")
    plan.state("ask.agent", **READS)(handler)
    result = run(plan, store=store)
    assert result.error.code == "side_effect_not_declared"
    assert "buy" not in done


def test_a_tool_left_out_runs_in_the_handler_and_may_use_its_io(store, done):
    agent = agent_of(done, [ToolCallPart("draw", {})], [TextPart("drawn")], deps_type=object)

    @agent.tool(metadata={"machine": False})
    async def draw(context: pydantic_ai.RunContext[object]) -> str:
        return str(await context.deps.uuid())

    async def handler(ctx, io, rec):
        ctx["said"] = (await agent.run("Draw", deps=io)).output

    assert run_and_replay(handler, store, done) == {"said": "drawn"}


def test_errors_of_models_and_retries_of_tools_are_the_same_in_a_replay(store, done):
    failing = agent_of(done, ModelHTTPError(503, "fake", body={"error": "busy"}))
    retried = agent_of(done, [ToolCallPart("pick", {})], [ToolCallPart("pick", {})], [TextPart("picked")])

    @retried.tool_plain
    def pick() -> str:
        done.append("pick")
        if done.count("pick") == 1:
            raise ModelRetry("again")
        return "it"

    async def handler(ctx, io, rec):
        with pytest.raises(ModelHTTPError) as raised:
            await failing.run("Go")
        ctx["status"] = raised.value.status_code
        ctx["said"] = (await retried.run("Pick")).output

    assert run_and_replay(handler, store, done) == {"status": 503, "said": "picked"}


def test_outside_a_handler_the_agent_runs_as_without_the_capability(done):
    agent = agent_of(done, [TextPart("hello")])
    assert asyncio.run(agent.run("Hi")).output == "hello"
    assert done == ["model 0"]
