"""A plan whose agents of pydantic-ai have a model and tools that reach a server."""

import httpx
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel

from machine import Plan
from machine.agents.pydantic_ai import MachineDurability

plan = Plan("pydantic_ai_agent")


def agent_at(url, *steps):
    """Return an agent whose model answers with these parts, one list a request."""

    async def answer(messages, info):
        number = sum(isinstance(one, ModelResponse) for one in messages)
        async with httpx.AsyncClient() as client:
            (await client.post(f"{url}/model?n={number}")).raise_for_status()
        return ModelResponse(parts=steps[number])

    agent = Agent(FunctionModel(answer), name="clerk", capabilities=[MachineDurability()])

    @agent.tool_plain
    async def price(name: str) -> str:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"{url}/price?name={name}")).json()["path"]

    @agent.tool_plain(metadata={"machine": {"effect": True}})
    def buy(name: str) -> str:
        return httpx.post(f"{url}/buy?name={name}").json()["path"]

    return agent


@plan.state("ask.price", side_effects="read_only_io")
async def ask(ctx, io):
    calls = [ToolCallPart("price", {"name": name}) for name in ("tea", "salt")]
    ctx["price"] = (await agent_at(ctx["url"], calls, [TextPart("both cheap")]).run("How much?")).output


@plan.state("buy.it", side_effects="apply_side_effect", idempotency="order-1", after=[ask])
async def buy(ctx, io):
    calls = [ToolCallPart("price", {"name": "tea"})], [ToolCallPart("buy", {"name": "tea"})]
    ctx["said"] = (await agent_at(ctx["url"], *calls, [TextPart("bought")]).run("Buy tea")).output
