"""Models and tools of LangChain in the nodes of a LangGraph: each call is a recorded step.

    model = recorded_model(ChatOpenAI(model="..."))
    tools = recorded_tools([search, book], effects=["book"])

They stand wherever the original ones would: in nodes, in `ToolNode(tools)`, in `create_agent(model, tools)`. The
graph itself is the handler's own code, which a replay runs again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, messages_from_dict, messages_to_dict
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableBinding
from langchain_core.tools import BaseTool, StructuredTool
from pydantic import TypeAdapter

from machine.errors import UsageError
from machine.io.decorated_step import step

__all__ = ["recorded_model", "recorded_tools"]

_ANY: Final[TypeAdapter[object]] = TypeAdapter(object)
_LIVE: Final = ("model", "messages", "stop", "options")
"""The arguments that are recorded by what is `asked`."""


def recorded_model(model: BaseChatModel) -> BaseChatModel:
    """Return a model each of whose calls is a step, in a handler; elsewhere it is as the given one."""
    if not isinstance(model, BaseChatModel):
        raise UsageError(
            f"recorded_model() takes a chat model of LangChain, not a {type(model).__name__}",
            hint="give it the model itself, before bind_tools() or with_structured_output()",
        )
    return _RecordedModel(model=model)


def recorded_tools(tools: Iterable[BaseTool], *, effects: Collection[str] = ()) -> list[BaseTool]:
    """Return tools each of whose calls is a step, in a handler; elsewhere they are as the given ones.

    `effects` are the names of those that change the outside world, in a state that applies side effects. Raises
    `UsageError` for a tool that is no function, and for a name that no tool has.
    """
    found = [_recorded_tool(tool, effect=tool.name in effects) for tool in tools]
    unknown = set(effects) - {tool.name for tool in found}
    if unknown:
        raise UsageError(f"effects names {min(unknown)!r}, and no tool has that name")
    return found


def _recorded_tool(tool: BaseTool, *, effect: bool) -> BaseTool:
    if not isinstance(tool, StructuredTool):
        raise UsageError(
            f"the tool {tool.name} is a {type(tool).__name__} and no function",
            hint="make it with @tool, or call machine.step in its own code",
        )
    functions = {"func": tool.func, "coroutine": tool.coroutine}
    name = f"tool.{tool.name}"
    steps = {
        key: step(function, name=name, effect=effect)
        for key, function in functions.items()
        if function is not None
    }
    return tool.model_copy(update=steps)


# -- models --------------------------------------------------------------------------------------------------


def _result_to_json(result: ChatResult) -> dict[str, Any]:
    generations = [
        {"message": messages_to_dict([one.message])[0], "info": one.generation_info}
        for one in result.generations
    ]
    found: dict[str, Any] = _plain({"generations": generations, "output": result.llm_output})
    return found


def _result_from_json(stored: Mapping[str, Any]) -> ChatResult:
    generations = [
        ChatGeneration(message=messages_from_dict([one["message"]])[0], generation_info=one["info"])
        for one in stored["generations"]
    ]
    return ChatResult(generations=generations, llm_output=stored["output"])


def _plain(value: Any) -> Any:
    return _ANY.dump_python(value, mode="json", fallback=str)


def _asked(model: BaseChatModel, messages: Sequence[BaseMessage], stop: Any, options: Any) -> dict[str, Any]:
    """Return what a model is asked, without the ids that LangChain gives messages, which are random."""
    shown = []
    for one in messages_to_dict(messages):
        data = {
            key: value for key, value in one["data"].items() if key != "id" and value not in (None, [], {})
        }
        shown.append({**data, "type": one["type"]})
    asked = {"model": model._llm_type, "messages": shown, "stop": stop, "options": options}  # noqa: SLF001 - LangChain's name of a kind
    return {key: _plain(value) for key, value in asked.items() if value}


@step(name="langchain.model", ignore_args=_LIVE)
def _ask(asked: Any, model: Any, messages: Any, stop: Any, options: Any) -> dict[str, Any]:
    """Call a model; what it is `asked` is the recorded request."""
    del asked
    return _result_to_json(model._generate(messages, stop, **options))  # noqa: SLF001 - what subclasses of LangChain's define


@step(name="langchain.model", ignore_args=_LIVE)
async def _ask_async(asked: Any, model: Any, messages: Any, stop: Any, options: Any) -> dict[str, Any]:
    """Call a model as `_ask` does, asynchronously."""
    del asked
    return _result_to_json(await model._agenerate(messages, stop, **options))  # noqa: SLF001 - the same


class _RecordedModel(BaseChatModel):
    """A model each of whose calls is a step."""

    model: BaseChatModel

    @property
    def _llm_type(self) -> str:
        return self.model._llm_type  # noqa: SLF001 - the same

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return self.model._identifying_params  # noqa: SLF001 - the same

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **options: Any
    ) -> ChatResult:
        del run_manager
        asked = _asked(self.model, messages, stop, options)
        return _result_from_json(_ask(asked, self.model, messages, stop, options))

    async def _agenerate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **options: Any
    ) -> ChatResult:
        del run_manager
        asked = _asked(self.model, messages, stop, options)
        return _result_from_json(await _ask_async(asked, self.model, messages, stop, options))

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> Runnable[Any, Any]:
        """Return this model with tools, described as the given model describes them."""
        bound = self.model.bind_tools(tools, **options)
        if not isinstance(bound, RunnableBinding):
            raise UsageError(
                f"the model {self._llm_type} does not bind tools as others do",
                hint="call machine.step in a node of the graph instead",
            )
        return self.bind(**bound.kwargs)
