"""A chat model of LangChain that needs no service, and a graph that asks a model and has its tools called."""

from __future__ import annotations

from typing import Any, ClassVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition


class Clerk(BaseChatModel):
    """A model that calls a tool once, and then says what it returned. `done` notes each request."""

    tool: str
    args: dict[str, Any]
    done: ClassVar[list[str]] = []

    @property
    def _llm_type(self) -> str:
        return "clerk"

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self.bind(tools=[convert_to_openai_tool(one) for one in tools], **options)

    def _generate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any
    ) -> ChatResult:
        self.done.append(f"model of {len(options.get('tools', ()))} tools")
        if isinstance(messages[-1], HumanMessage):
            usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
            call = {"name": self.tool, "args": self.args, "id": "1"}
            message = AIMessage("", tool_calls=[call], usage_metadata=usage)
        else:
            message = AIMessage(f"It says: {messages[-1].content}")
        return ChatResult(generations=[ChatGeneration(message=message)], llm_output={"model": "clerk"})


def asking(model: Any, tools: list[Any]) -> Any:
    """Return a graph that asks the model, calls its tools and asks again."""
    bound = model.bind_tools(tools)
    builder = StateGraph(MessagesState)

    def ask(state: Any) -> Any:
        return {"messages": [bound.invoke(state["messages"])]}

    async def ask_async(state: Any) -> Any:
        return {"messages": [await bound.ainvoke(state["messages"])]}

    builder.add_node("ask", RunnableLambda(ask, afunc=ask_async))
    builder.add_node("tools", ToolNode(tools))
    builder.add_edge(START, "ask")
    builder.add_conditional_edges("ask", tools_condition)
    builder.add_edge("tools", "ask")
    return builder.compile()
