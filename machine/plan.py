"""A plan: states, their metadata and the edges between them, validated before anything is written.

A `Plan` is open while states are added to it and becomes an immutable `Graph` at its first use. Nothing here
runs a handler.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol, TypeAlias, runtime_checkable

import attrs

from machine import canonical, codec
from machine.config import LONGEST_SECONDS, RetryPolicy
from machine.errors import Code, IdError, PlanError
from machine.ids import OpId, StateId, Tag
from machine.ordering import topological

__all__ = [
    "DependsOnStrategy",
    "Graph",
    "OnUncertain",
    "Plan",
    "PlanState",
    "SideEffects",
    "State",
    "StateMeta",
    "StateOutcome",
    "order_of",
]

Handler: TypeAlias = Callable[[Any, Any, Any], Any]
IdempotencyKey: TypeAlias = str | Callable[[Any], str]


_EFFECT_TAG: Final = Tag("apply_side_effect")


class SideEffects(StrEnum):
    """What a state may do to the outside."""

    PURE = "pure"
    """No call at all: it only computes from the context."""
    READ_ONLY_IO = "read_only_io"
    """Calls that read. All are recorded; none may change the outside."""
    APPLY_SIDE_EFFECT = "apply_side_effect"
    """Calls that change the outside. An idempotency key is required."""


class DependsOnStrategy(StrEnum):
    """Which of the states declared before this one a tag in `depends_on` means."""

    LATEST = "latest"
    """The one declared last."""
    EARLIEST = "earliest"
    """The one declared first."""
    LATEST_SUCCESSFUL = "latest_successful"
    """All of them: which one succeeds last is not known before, so each must have ended."""


class OnUncertain(StrEnum):
    """What happens to an effect whose outcome a crash has hidden."""

    RETRY = "retry"
    """It is sent again with the same idempotency key; the receiver deduplicates."""


@attrs.frozen
class StateOutcome:
    """What a handler may return instead of None.

    `error` fails the attempt by the handler's decision (a code, or an exception). `snapshot` is `on_success`
    (the default), `always` (a failing attempt also keeps a diagnostic snapshot of what it had staged), or
    `never` (the state promises to write nothing; a staged write fails it).
    """

    snapshot: Literal["never", "on_success", "always"] = attrs.field(
        default="on_success", validator=attrs.validators.in_(("never", "on_success", "always"))
    )
    error: BaseException | None = None


def _tags(tags: Iterable[str]) -> tuple[Tag, ...]:
    if isinstance(tags, str):
        raise PlanError(f"tags must be a list of tags, not the string {tags!r}")
    return tuple(Tag(tag) for tag in tags)


@attrs.frozen(kw_only=True)
class StateMeta:
    """What is declared about a state. All of it is part of the plan's fingerprint.

    `timeout` is in seconds and covers one attempt; `retry` overrides the run's policy; `idempotency` is the key
    an effect is sent with, or a function that computes it from the context.
    """

    tags: tuple[Tag, ...] = attrs.field(default=(), converter=_tags)
    depends_on: tuple[Tag, ...] = attrs.field(default=(), converter=_tags)
    depends_on_strategy: DependsOnStrategy = attrs.field(
        default=DependsOnStrategy.LATEST, converter=DependsOnStrategy
    )
    side_effects: SideEffects = attrs.field(default=SideEffects.READ_ONLY_IO, converter=SideEffects)
    idempotency: IdempotencyKey | None = attrs.field(default=None)
    retry: RetryPolicy | None = attrs.field(default=None)
    timeout: float | None = attrs.field(default=None)
    on_uncertain: OnUncertain = attrs.field(default=OnUncertain.RETRY, converter=OnUncertain)

    @timeout.validator
    def _check_timeout(self, _: Any, value: Any) -> None:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and 0 < value <= LONGEST_SECONDS):
            raise PlanError(f"timeout must be a positive number of seconds, at most a year, not {value!r}")

    @retry.validator
    def _check_retry(self, _: Any, value: Any) -> None:
        if value is not None and not isinstance(value, RetryPolicy):
            raise PlanError(f"retry must be a RetryPolicy, not {value!r}")

    @idempotency.validator
    def _check_idempotency(self, _: Any, value: Any) -> None:
        if value is not None and not callable(value) and not (isinstance(value, str) and value):
            raise PlanError(
                f"idempotency must be a non-empty string or a function of the context, not {value!r}"
            )

    def __attrs_post_init__(self) -> None:
        # the standard tag follows from the declaration, so that --skip-tag apply_side_effect misses nothing
        if self.side_effects is SideEffects.APPLY_SIDE_EFFECT and _EFFECT_TAG not in self.tags:
            object.__setattr__(self, "tags", (*self.tags, _EFFECT_TAG))

    def to_json(self) -> dict[str, Any]:
        """Return the metadata as JSON, for the fingerprint and for people."""
        key = self.idempotency
        match key:
            case None:
                idempotency: dict[str, Any] = {"type": "none"}
            case str():
                idempotency = {"type": "key", "key": key}
            case _:
                idempotency = {"type": "key", "function": True}
        return {
            "tags": [str(tag) for tag in self.tags],
            "depends_on": [str(tag) for tag in self.depends_on],
            "depends_on_strategy": self.depends_on_strategy.value,
            "side_effects": self.side_effects.value,
            "idempotency": idempotency,
            "retry": codec.to_json(self.retry) if self.retry else None,
            "timeout": self.timeout,
            "on_uncertain": self.on_uncertain.value,
        }


@runtime_checkable
class State(Protocol):
    """One node of a plan. `handle` may also be a plain function; it then runs in a worker thread."""

    def meta(self) -> StateMeta:
        """Return what is declared about the state; the same every time."""
        ...

    async def handle(self, ctx: Any, io: Any, rec: Any) -> StateOutcome | None:
        """Do the state's work: read and write `ctx`, go outside through `io`, emit through `rec`."""
        ...


@attrs.frozen
class PlanState:
    """A state as a plan holds it: with its id and the states it was declared to follow.

    It can be called like the handler it came from, so a unit test needs no engine.
    """

    id: str
    meta: StateMeta
    handler: Handler
    after: tuple[str, ...]
    blocking: bool
    """True when the handler is a plain function, to be run in a thread of its own."""

    @property
    def source(self) -> Any:
        """The function or class whose source is the state's code."""
        owner = getattr(self.handler, "__self__", None)
        if owner is not None:
            return type(owner)
        return self.handler if inspect.isfunction(self.handler) else type(self.handler)

    def __call__(self, ctx: Any, io: Any, rec: Any) -> Any:
        """Call the handler itself, outside any run."""
        return self.handler(ctx, io, rec)


@attrs.frozen(eq=False)
class Graph:
    """A validated plan: immutable. `order` is topological, ties broken by declaration."""

    op_id: str
    version: str
    states: Mapping[str, PlanState]
    edges: tuple[tuple[str, str], ...]
    order: tuple[str, ...]
    plan_id: str

    def shape(self) -> dict[str, Any]:
        """Return ids, edges and metadata as JSON: exactly what `plan_id` is the hash of."""
        return _shape(self.states, self.edges)


class Plan:
    """A graph of states that implements one op. Add states, then run it; the first use validates and seals it.

    `op_id` follows the `OpId` rule, `version` is any non-empty string. `states` and `edges` give a whole graph
    at once; edges are pairs of names, from the earlier state to the later.
    """

    def __init__(
        self,
        op_id: str,
        *,
        version: str = "1",
        states: Mapping[str, State] | None = None,
        edges: Iterable[tuple[str, str]] = (),
    ) -> None:
        self.op_id = str(OpId(op_id))
        if not isinstance(version, str) or not version or not version.isprintable():
            raise PlanError(f"the version of plan {op_id!r} must be a non-empty string, not {version!r}")
        self.version = version
        self._states: dict[str, PlanState] = {}
        self._edges: list[tuple[str, str]] = []
        self._graph: Graph | None = None
        for name, state in (states or {}).items():
            self.add(name, state)
        for earlier, later in edges:
            self._edges.append((self.state_id(earlier), self.state_id(later)))

    def __repr__(self) -> str:
        return f"<Plan {self.op_id} version {self.version}, {len(self._states)} states>"

    def state_id(self, name: str | PlanState) -> str:
        """Return the full id of a state named `step.state`, or in full, or by what the decorator returned."""
        if isinstance(name, PlanState):
            return name.id
        full = name if isinstance(name, str) and name.count(".") == 2 else f"{self.op_id}.{name}"  # noqa: PLR2004 - three segments
        try:
            full = str(StateId(full))
        except IdError:
            raise IdError(f"state name {name!r} is invalid: give <step>.<state>, {StateId.rule}") from None
        if full.split(".", 1)[0] != self.op_id:
            raise PlanError(
                f"state {full!r} belongs to op {full.split('.', 1)[0]!r}, not to plan {self.op_id!r}",
                code=Code.OP_ID_MISMATCH,
            )
        return full

    def state(
        self,
        name: str,
        *,
        after: Iterable[str | PlanState] = (),
        tags: Iterable[str] = (),
        depends_on: Iterable[str] = (),
        depends_on_strategy: str = DependsOnStrategy.LATEST,
        side_effects: str = SideEffects.READ_ONLY_IO,
        idempotency: IdempotencyKey | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        on_uncertain: str = OnUncertain.RETRY,
    ) -> Callable[[Handler], PlanState]:
        """Make the decorated function, async or not, a state called `<op_id>.<name>`.

        `after` names the states it follows; the other keywords are the fields of `StateMeta`.
        """

        def add(handler: Handler) -> PlanState:
            try:
                meta = StateMeta(
                    tags=tags,
                    depends_on=depends_on,
                    depends_on_strategy=depends_on_strategy,
                    side_effects=side_effects,
                    idempotency=idempotency,
                    retry=retry,
                    timeout=timeout,
                    on_uncertain=on_uncertain,
                )
            except (ValueError, TypeError) as exc:
                raise PlanError(f"state {name!r}: {exc}") from exc
            return self._add(name, meta, handler, after)

        return add

    def add(self, name: str, state: State, *, after: Iterable[str | PlanState] = ()) -> PlanState:
        """Add an object with `meta()` and `handle(ctx, io, rec)` as a state called `<op_id>.<name>`."""
        if not isinstance(state, State) or isinstance(state, type):
            raise PlanError(f"state {name!r}: {state!r} has no meta() and handle(ctx, io, rec)")
        meta = state.meta()
        if not isinstance(meta, StateMeta):
            raise PlanError(f"state {name!r}: meta() returned {meta!r}, not a StateMeta")
        return self._add(name, meta, state.handle, after)

    def _add(
        self, name: str, meta: StateMeta, handler: Handler, after: Iterable[str | PlanState]
    ) -> PlanState:
        if self._graph is not None:
            raise PlanError(
                f"plan {self.op_id!r} is already in use; state {name!r} comes too late", code=Code.PLAN_SEALED
            )
        state_id = self.state_id(name)
        if state_id in self._states:
            raise PlanError(f"plan {self.op_id!r} has two states {state_id}", code=Code.DUPLICATE_STATE_ID)
        if not callable(handler) or not _takes_three(handler):
            raise PlanError(f"state {state_id}: the handler must take (ctx, io, rec)")
        if isinstance(after, str | PlanState):
            after = (after,)
        asynchronous = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
            getattr(handler, "__call__", None)  # noqa: B004 - an object whose call is a coroutine
        )
        state = PlanState(
            state_id, meta, handler, tuple(self.state_id(other) for other in after), blocking=not asynchronous
        )
        self._states[state_id] = state
        return state

    @property
    def graph(self) -> Graph:
        """The validated, immutable graph. Raises `PlanError` naming the first rule that is broken."""
        if self._graph is None:
            self._graph = _validated(self)
        return self._graph


def _takes_three(handler: Handler) -> bool:
    try:
        inspect.signature(handler).bind(None, None, None)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature: only calling it can tell
        return True
    return True


def _shape(states: Mapping[str, PlanState], edges: Iterable[tuple[str, str]]) -> dict[str, Any]:
    return {
        "states": [{"id": state.id, "meta": state.meta.to_json()} for state in states.values()],
        "edges": [list(edge) for edge in edges],
    }


def _validated(plan: Plan) -> Graph:
    states = dict(plan._states)  # noqa: SLF001 - the other half of the class
    if not states:
        raise PlanError(f"plan {plan.op_id!r} has no states", code=Code.EMPTY_PLAN)
    edges = set(plan._edges)  # noqa: SLF001
    for state in states.values():
        edges.update((earlier, state.id) for earlier in state.after)
        edges.update((earlier, state.id) for earlier in _by_tag(state, states))
        effectful = state.meta.side_effects is SideEffects.APPLY_SIDE_EFFECT
        if effectful and state.meta.idempotency is None:
            raise PlanError(
                f"state {state.id} applies a side effect and declares no idempotency key",
                code=Code.MISSING_IDEMPOTENCY_KEY,
                hint='add idempotency="..." or a function of the context, so that a retry is recognised',
            )
    for edge in sorted(edges):
        for end in edge:
            if end not in states:
                near = difflib.get_close_matches(end, states, 1)
                raise PlanError(
                    f"the edge {edge[0]} -> {edge[1]} names {end}, which is no state of the plan",
                    code=Code.MISSING_STATE_FOR_EDGE,
                    hint=f"did you mean {near[0]}?" if near else None,
                )
    ordered = tuple(sorted(edges))
    order = topological(list(states), ordered)
    plan_id = canonical.artifact_id(canonical.encode(_shape(states, ordered)))
    return Graph(plan.op_id, plan.version, MappingProxyType(states), ordered, order, plan_id)


def _by_tag(state: PlanState, states: Mapping[str, PlanState]) -> list[str]:
    found: list[str] = []
    for tag in state.meta.depends_on:
        before: list[str] = []
        for other in states.values():
            if other.id == state.id:
                break
            if tag in other.meta.tags:
                before.append(other.id)
        if not before:
            raise PlanError(
                f"state {state.id} depends on tag {str(tag)!r}, which no state declared before it carries",
                code=Code.DANGLING_DEPENDENCY_TAG,
            )
        match state.meta.depends_on_strategy:
            case DependsOnStrategy.LATEST:
                found.append(before[-1])
            case DependsOnStrategy.EARLIEST:
                found.append(before[0])
            case DependsOnStrategy.LATEST_SUCCESSFUL:
                found.extend(before)
    return found


def order_of(shape: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the order of the states of a recorded `Graph.shape()`. Raises `PlanError` when it is none."""
    try:
        ids = [str(StateId(state["id"])) for state in shape["states"]]
        return topological(ids, tuple((str(earlier), str(later)) for earlier, later in shape["edges"]))
    except (LookupError, TypeError, ValueError):
        raise PlanError("the recorded plan is not one", code=Code.MALFORMED) from None
