"""Graphs of LangGraph whose models and tools are steps."""

from __future__ import annotations

import pytest

from machine import Plan, RetryPolicy, open_store, replay, run
from machine.errors import Failure, UsageError

pytest.importorskip("langgraph")
adapter = pytest.importorskip("machine.agents.langgraph")

from agents.clerk import Clerk, asking  # noqa: E402 - only where LangChain is installed
from langchain_core.tools import BaseTool, tool  # noqa: E402 - the same

EFFECTS = {"side_effects": "apply_side_effect", "idempotency": "key"}
READS = {"side_effects": "read_only_io"}

DONE = Clerk.done
"""What models and tools have really done in a test."""


@pytest.fixture(autouse=True)
def _nothing_done():
    DONE.clear()


@pytest.fixture
def store():
    with open_store("memory://") as store:
        yield store


@tool
def buy(name: str) -> str:
    """Buy something."""
    DONE.append(f"buy {name}")
    return f"bought {name}"


def graph_of(effects=("buy",)):
    """Return a graph whose model has tea bought."""
    tools = adapter.recorded_tools([buy], effects=effects)
    return asking(adapter.recorded_model(Clerk(tool="buy", args={"name": "tea"})), tools)


QUESTION = {"messages": [("user", "Buy tea")]}


async def in_async_handler(ctx, io, rec):
    found = await graph_of().ainvoke(QUESTION)
    ctx["said"] = found["messages"][-1].content
    ctx["tokens"] = found["messages"][1].usage_metadata["total_tokens"]


def in_plain_handler(ctx, io, rec):
    found = graph_of().invoke(QUESTION)
    ctx["said"] = found["messages"][-1].content
    ctx["tokens"] = found["messages"][1].usage_metadata["total_tokens"]


@pytest.mark.parametrize("handler", [in_async_handler, in_plain_handler])
def test_models_and_tools_are_called_once_and_by_no_replay(handler, store):
    plan = Plan("graph_test")
    plan.state("ask.graph", **EFFECTS)(handler)
    result = run(plan, store=store)
    assert result.context == {"said": "It says: bought tea", "tokens": 3}, result.error
    wanted = ["model of 1 tools", "buy tea", "model of 1 tools"]
    assert wanted == DONE
    replayed = replay(result.run_id, plan=plan, store=store)
    assert replayed.identical, replayed.divergence
    assert wanted == DONE


def test_a_later_attempt_repeats_nothing_that_had_ended(store):
    async def handler(ctx, io, rec):
        ctx["said"] = (await graph_of().ainvoke(QUESTION))["messages"][-1].content
        if "attempt" not in DONE:
            DONE.append("attempt")
            raise Failure("cut", code="cut", retryable=True)

    plan = Plan("graph_test")
    plan.state("ask.graph", **EFFECTS, retry=RetryPolicy(2))(handler)
    assert run(plan, store=store).context == {"said": "It says: bought tea"}
    assert DONE == ["model of 1 tools", "buy tea", "model of 1 tools", "attempt"]


def test_a_tool_that_is_an_effect_is_refused_in_a_state_that_reads(store):
    async def handler(ctx, io, rec):
        await graph_of().ainvoke(QUESTION)

    plan = Plan("graph_test")
    plan.state("ask.graph", **READS)(handler)
    assert run(plan, store=store).error.code == "side_effect_not_declared"
    assert DONE == ["model of 1 tools"]


def test_outside_a_handler_models_and_tools_are_as_the_given_ones():
    assert graph_of().invoke(QUESTION)["messages"][-1].content == "It says: bought tea"
    assert len(DONE) == 3


def test_what_is_no_model_or_function_is_refused():
    with pytest.raises(UsageError, match="takes a chat model"):
        adapter.recorded_model("gpt")
    with pytest.raises(UsageError, match="no tool has that name"):
        adapter.recorded_tools([buy], effects=["sell"])

    class Odd(BaseTool):
        name: str = "odd"
        description: str = "Is no function."

        def _run(self) -> str:
            return ""

    with pytest.raises(UsageError, match="no function"):
        adapter.recorded_tools([Odd()])
