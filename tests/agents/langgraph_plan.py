"""A plan whose graphs of LangGraph have a model and tools that reach a server."""

import httpx
from clerk import Clerk
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

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
    model = recorded_model(clerk).bind_tools(tools)

    def ask(state):
        return {"messages": [model.invoke(state["messages"])]}

    async def ask_async(state):
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("ask", RunnableLambda(ask, afunc=ask_async))
    builder.add_node("tools", ToolNode(tools))
    builder.add_edge(START, "ask")
    builder.add_conditional_edges("ask", tools_condition)
    builder.add_edge("tools", "ask")
    return builder.compile()


@plan.state("ask.price", side_effects="read_only_io")
def ask(ctx, io):
    found = graph_at(ctx["url"], "price").invoke({"messages": [("user", "How much is tea?")]})
    ctx["price"] = found["messages"][-1].content


@plan.state("buy.it", side_effects="apply_side_effect", idempotency="order-1", after=[ask])
async def buy(ctx, io):
    found = await graph_at(ctx["url"], "buy").ainvoke({"messages": [("user", "Buy tea")]})
    ctx["said"] = found["messages"][-1].content
