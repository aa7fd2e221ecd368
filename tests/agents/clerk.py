"""A chat model of LangChain that needs no service."""

from __future__ import annotations

from typing import Any, ClassVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool


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
