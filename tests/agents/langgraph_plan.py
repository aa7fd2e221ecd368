"""A plan whose graphs of LangGraph have a model and tools that reach a server."""

import httpx
from clerk import Clerk, asking
from langchain_core.tools import tool

from machine import Plan
from machine.agents.langgraph import recorded_model, recorded_tools

plan = Plan("langgraph_agent")


class RemoteClerk(Clerk):
    """A model that asks a server before it answers."""

    url: str

    def _generate(self, messages, stop=None, run_manager=None, **options):
        httpx.post(f"{self.url}/model?n={len(messages)}").raise_for_status()
        return super()._generate(messages, stop, run_manager, **options)


def graph_at(url, called):
    """Return a graph that asks a model, which has this tool called, and asks it again."""

    @tool
    def price(name: str) -> str:
        """Return a price."""
        return httpx.get(f"{url}/price?name={name}").json()["path"]

    @tool
    def buy(name: str) -> str:
        """Buy something."""
        return httpx.post(f"{url}/buy?name={name}").json()["path"]

    tools = recorded_tools([price, buy], effects=["buy"])
    clerk = RemoteClerk(url=url, tool=called, args={"name": "tea"})
    return asking(recorded_model(clerk), tools)


@plan.state("ask.price", side_effects="read_only_io")
def ask(ctx, io):
    found = graph_at(ctx["url"], "price").invoke({"messages": [("user", "How much is tea?")]})
    ctx["price"] = found["messages"][-1].content


@plan.state("buy.it", side_effects="apply_side_effect", idempotency="order-1", after=[ask])
async def buy(ctx, io):
    found = await graph_at(ctx["url"], "buy").ainvoke({"messages": [("user", "Buy tea")]})
    ctx["said"] = found["messages"][-1].content
