"""Agents of pydantic-ai in a handler: each request to a model and each call of a tool is a recorded step.

    agent = Agent(model, name="support", capabilities=[MachineDurability()])

pydantic-ai says what a unit of durable work is, and where it leaves its own code for one. Here such a unit is a
step: live it runs once, a replay does not run it, and after a crash those that had ended are not run again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal

from pydantic import TypeAdapter
from pydantic_ai import RunContext, exceptions
from pydantic_ai.durable_exec import (
    JSON_CODEC,
    BaseDurabilityCapability,
    DurabilityEngineSpec,
    DurableOperationBackend,
    DurableOperationId,
    JournalCallableOperationBackend,
    RoleBasedOperationConfig,
    ToolsetCallToolId,
    conversation_id_from_run_id,
)
from pydantic_ai.toolsets import ToolsetTool
from pydantic_core import PydanticSerializationError

from machine.errors import UsageError
from machine.io.decorated_step import step
from machine.io.step_calls import StepCalls
from machine.io.step_transport import STEP
from machine.watch.code_owner import CALLER

__all__ = ["MachineDurability"]

_ANY: Final[TypeAdapter[object]] = TypeAdapter(object)
_NEW_EVERY_TIME: Final = frozenset({"timestamp", "run_id", "conversation_id", "tool_call_id"})
"""The fields of messages that pydantic-ai makes up when an agent runs, which say nothing about a request."""

_RAISED: Final = (exceptions.AgentRunError, exceptions.UserError)
_RAISED_CLASSES: Final = tuple(
    found for found in vars(exceptions).values() if isinstance(found, type) and issubclass(found, _RAISED)
)
"""The exceptions of pydantic-ai, which are raised as themselves in a replay too."""

_METADATA: Final = "machine"
"""The key of a tool's metadata with the options of its step."""

Options = Mapping[str, Any]
"""The options of a step: `effect`, `timeout` in seconds, `tries` and `retry_on`."""


async def _perform(asked: Any, body: Callable[[], Awaitable[object]]) -> object:
    """Run one unit of an agent's work; what it `asked` is the recorded request."""
    del asked
    return await body()


def _without_noise(value: Any) -> Any:
    """Return JSON without what is new every time and what is not set."""
    if isinstance(value, dict):
        return {
            key: _without_noise(item)
            for key, item in value.items()
            if key not in _NEW_EVERY_TIME and item is not None and item not in ([], {}, False)
        }
    return [_without_noise(item) for item in value] if isinstance(value, list) else value


def _asked(operation: DurableOperationId, given: tuple[object, ...]) -> list[Any]:
    """Return what an operation is asked, as JSON: messages and tools of a model, name and arguments of a tool."""
    if isinstance(operation, ToolsetCallToolId):
        given = given[:2]
    found = []
    for part in given:
        if part is None or isinstance(part, RunContext):
            continue
        try:
            found.append(_without_noise(_ANY.dump_python(part, mode="json")))
        except PydanticSerializationError:  # an object that only this process has
            continue
    return found


def _options_of_tool(
    operation: DurableOperationId, tool: object | None, name: str
) -> Options | Literal[False]:
    """Return the options of the step of a tool, from its metadata; False if it is to be no step."""
    del operation
    metadata = tool.tool_def.metadata if isinstance(tool, ToolsetTool) else None
    options = (metadata or {}).get(_METADATA, {})
    if options is False or isinstance(options, Mapping):
        return options
    raise UsageError(
        f"the metadata {_METADATA!r} of the tool {name} must be options of a step or False, not {options!r}",
        hint='for example metadata={"machine": {"effect": True}}',
    )


class _Steps(JournalCallableOperationBackend[Options]):
    """The units of an agent, each as a step."""

    async def execute(
        self,
        *,
        operation_id: DurableOperationId,
        name: str,
        body: Callable[[], Awaitable[object]],
        cache_key: tuple[object, ...],
        config: Options,
    ) -> object:
        """Perform one unit as a step."""
        recorded = step(_perform, name=name, ignore_args=("body",), raises=_RAISED_CLASSES, **dict(config))
        return await recorded(_asked(operation_id, cache_key), body)


class MachineDurability(BaseDurabilityCapability[Any]):
    """A capability of an agent by which its models and tools are steps of the handler that runs it.

    Outside a handler the agent runs as without it. A tool that changes the outside world says so:
    `metadata={"machine": {"effect": True}}`, with other options of a step besides; `{"machine": False}` leaves a
    tool out, which then may use the handler's `io`. The agent needs a name.
    """

    engine_spec = DurabilityEngineSpec(
        engine_name="machine",
        durable_unit_noun=STEP,
        durable_container_noun="handler",
        codec=JSON_CODEC,
        tool_config_key=_METADATA,
    )

    @property
    def in_durable_context(self) -> bool:
        """True in a handler, and not in a step of it."""
        return isinstance(CALLER.get(), StepCalls)

    def get_default_run_id(self) -> str | None:
        """Return a run id of the agent that is the same in a replay, None outside a handler."""
        io = CALLER.get()
        if not isinstance(io, StepCalls):
            return None
        scope = io.scope
        number = scope.counts.occurrence("pydantic_ai", self.name or "", reconciling=scope.reads_only)
        return f"{scope.log.history.run_id}:{scope.state.id}:{scope.attempt}:{number}"

    def get_default_conversation_id(self, run_id: str) -> str | None:
        """Return a conversation id that is the same in a replay, None outside a handler."""
        return conversation_id_from_run_id(run_id) if self.in_durable_context else None

    def get_durable_operation_backend(self) -> DurableOperationBackend[Options]:
        """Return what performs the units of the agent."""
        return _Steps(
            agent_name=self.name or "agent",
            config=RoleBasedOperationConfig(
                model={}, event={}, capability={}, tool={}, resolve_tool=_options_of_tool
            ),
        )
