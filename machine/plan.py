"""A plan: states, their metadata and the edges between them, validated before anything is written.

A `Plan` is open while states are added to it and becomes an immutable `Graph` at its first use. Nothing here
runs a handler.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, overload

import attrs

from machine import canonical
from machine.catalogue import Catalogue
from machine.config import RetryPolicy
from machine.did_you_mean import did_you_mean
from machine.errors import Code, IdError, PlanError, UsageError
from machine.graph_order import topological
from machine.ids import OpId, OpPath, StateId
from machine.ignore import Ignore
from machine.model_prices import spending_of
from machine.plan_checks import by_tag, check_cleanup, check_key
from machine.plan_input import input_class
from machine.plan_shape import order_of, parts_of, shape_of
from machine.recorded_clients import Chosen, clients_of
from machine.state import (
    DependsOnStrategy,
    Handler,
    IdempotencyKey,
    OnError,
    OnUncertain,
    PlanState,
    RunsOn,
    SideEffects,
    State,
    StateMeta,
    is_plain,
    name_of,
)

_UNNAMED: Final[Any] = object()


@attrs.frozen(eq=False)
class Graph:
    """A validated plan: immutable. `order` is topological, ties broken by declaration.

    `cleanup` holds the cleanup states in their order, which are the last ones of `order`, each with what it is for.
    """

    op_id: str
    version: str
    states: Mapping[str, PlanState]
    edges: tuple[tuple[str, str], ...]
    order: tuple[str, ...]
    plan_id: str
    packed_shape: tuple[bytes, int] = attrs.field(repr=False)
    """The bytes of the shape, compressed, and their number: they are much alike, and seldom asked for."""
    cleanup: Mapping[str, RunsOn] = MappingProxyType({})
    input: type | None = attrs.field(default=None, eq=False, repr=False)
    """The class of the input, which is no part of the shape."""

    @functools.cached_property
    def work(self) -> tuple[str, ...]:
        """The states that are no cleanup states, in the order of the plan."""
        return self.order[: len(self.order) - len(self.cleanup)]

    @functools.cached_property
    def cleans_after(self) -> Mapping[str, tuple[str, ...]]:
        """The states that each cleanup state was declared to follow and that are none, in the order of the plan."""
        found: dict[str, list[str]] = {state_id: [] for state_id in self.cleanup}
        place = {state_id: number for number, state_id in enumerate(self.order)}
        for earlier, later in sorted(self.edges, key=lambda edge: place[edge[0]]):
            if later in found and earlier not in found:
                found[later].append(earlier)
        return {state_id: tuple(before) for state_id, before in found.items()}

    @functools.cached_property
    def parents(self) -> Mapping[str, tuple[str, ...]]:
        """The states that each state follows directly, in the order of the plan: none for a cleanup state."""
        found: dict[str, list[str]] = {state_id: [] for state_id in self.order}
        place = {state_id: number for number, state_id in enumerate(self.order)}
        for earlier, later in sorted(self.edges, key=lambda edge: place[edge[0]]):
            if later not in self.cleanup:
                found[later].append(earlier)
        return {state_id: tuple(parents) for state_id, parents in found.items()}

    @functools.cached_property
    def children(self) -> Mapping[str, tuple[str, ...]]:
        """The states that follow each state directly, in the order of the plan, but for cleanup states."""
        found: dict[str, list[str]] = {state_id: [] for state_id in self.order}
        for state_id in self.order:
            for parent in self.parents[state_id]:
                found[parent].append(state_id)
        return {state_id: tuple(children) for state_id, children in found.items()}

    @property
    def shape_bytes(self) -> bytes:
        """The canonical bytes of the shape: exactly what `plan_id` is the hash of."""
        packed, size = self.packed_shape
        return zlib.decompress(packed, bufsize=max(size, 1))

    def shape(self) -> dict[str, Any]:
        """Return ids, edges and metadata as JSON."""
        shape: dict[str, Any] = canonical.decode(self.shape_bytes)
        return shape


class Plan:
    """A graph of states that implements one op. Add states, then run it; the first use validates and seals it.

    `op_id` follows the `OpId` rule, `version` is any non-empty string. `states` and `edges` give a whole graph at
    once; edges are pairs of names, from the earlier state to the later.

    `transports` are those of the user's own, by namespace, each an object or a function that makes one for each
    run; `catalogue` has the kinds of domain events. They are no part of the plan's fingerprint, and a caller may
    replace them in `run` and similar functions. `ignore` says which parts of HTTP requests change by themselves; a
    run keeps what its plan said when it began. `clients` names libraries whose clients are recorded in the handlers
    of this plan, such as `"requests"`, without a change of the code that uses them. `usage` names interfaces of
    models (`"openai"`, `"anthropic"`) whose answers say what was spent, and `prices` what each costs (`Price`).
    `input` is a class that the input of each run is checked against: of attrs, a dataclass or a model of pydantic.
    """

    def __init__(
        self,
        op_id: str,
        *,
        version: str = "1",
        states: Mapping[str, State] | None = None,
        edges: Iterable[tuple[str, str]] = (),
        transports: Mapping[str, Any] | None = None,
        catalogue: Catalogue | None = None,
        ignore: Ignore | None = None,
        clients: Iterable[Chosen] = (),
        usage: Iterable[str] = (),
        prices: Mapping[str, Any] | None = None,
        input: type | None = None,  # noqa: A002 - the name that it has in `run`
    ) -> None:
        self.op_id = str(OpId(op_id))
        if not isinstance(version, str) or not version or not version.isprintable():
            raise PlanError(f"the version of plan {op_id!r} must be a non-empty string, not {version!r}")
        self.version = version
        given = {"transports": transports, "catalogue": catalogue, "ignore": ignore}
        for (name, value), kind in zip(given.items(), (Mapping, Catalogue, Ignore), strict=True):
            if value is not None and not isinstance(value, kind):
                raise PlanError(f"{name} of plan {op_id!r} must be a {kind.__name__}, not {value!r}")
        self.transports: Mapping[str, Any] = dict(transports or {})
        self.catalogue = catalogue
        self.ignore = ignore or Ignore()
        try:
            self.clients = clients_of(clients)
        except UsageError as exc:
            raise PlanError(f"plan {op_id!r}: {exc.message}", hint=exc.hint) from exc
        self.spending = spending_of(usage, prices, op_id)
        self.input = input_class(input, op_id)
        self._states: dict[str, PlanState] = {}
        self._edges: list[tuple[str, str]] = []
        self._graph: Graph | None = None
        self._meta: StateMeta | None = None  # of the state that was added last
        self._unused: dict[Callable[[Handler], PlanState], str] = {}
        for name, state in (states or {}).items():
            self.add(name, state)
        for earlier, later in edges:
            self._edges.append((self.state_id(earlier), self.state_id(later)))

    def __repr__(self) -> str:
        return f"<Plan {self.op_id} version {self.version}, {len(self._states)} states>"

    def state_id(self, name: str | PlanState) -> str:
        """Return the full id of a state named by `step.state`, its full id, or the result of the decorator."""
        if isinstance(name, PlanState):
            return name.id
        full = name if isinstance(name, str) and name.count(".") == 2 else f"{self.op_id}.{name}"  # noqa: PLR2004 - three segments
        try:
            full = str(StateId(full))
        except IdError:
            raise IdError(f"state name {name!r} is invalid: give <step>.<state>, {OpPath.rule}") from None
        if full.split(".", 1)[0] != self.op_id:
            raise PlanError(
                f"state {full!r} belongs to op {full.split('.', 1)[0]!r}, not to plan {self.op_id!r}",
                code=Code.OP_ID_MISMATCH,
            )
        return full

    @overload
    def state(self, handler: Handler, /) -> PlanState: ...

    @overload
    def state(
        self,
        name: str = ...,
        *,
        after: Iterable[str | PlanState] = ...,
        tags: Iterable[str] = ...,
        depends_on: Iterable[str] = ...,
        depends_on_strategy: str = ...,
        side_effects: str = ...,
        idempotency: IdempotencyKey | None = ...,
        retry: RetryPolicy | None = ...,
        timeout: float | None = ...,
        on_uncertain: str = ...,
        reconcile: Handler | None = ...,
        run: str = ...,
        on_error: str = ...,
        preview: Any = ...,
    ) -> Callable[[Handler], PlanState]: ...

    def state(
        self,
        name: str | Handler = _UNNAMED,
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
        reconcile: Handler | None = None,
        run: str = RunsOn.SUCCESS,
        on_error: str = OnError.FAIL,
        preview: Any = None,
    ) -> PlanState | Callable[[Handler], PlanState]:
        """Make the decorated function, async or not, a state called `<op_id>.<name>`.

        Without a name, and as `@plan.state` without parentheses, the name is that of the function, which is its
        own step: `fetch` is `<op_id>.fetch.fetch`. `after` names the states it follows; the other keywords are the
        fields of `StateMeta`.
        """

        def add(handler: Handler) -> PlanState:
            self._unused.pop(add, None)
            called = name_of(handler) if name is _UNNAMED or callable(name) else name
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
                    reconcile=reconcile,
                    run=run,
                    on_error=on_error,
                    preview=preview,
                )
            except PlanError as exc:
                raise PlanError(f"state {called!r}: {exc.message}", code=exc.code, hint=exc.hint) from exc
            except (ValueError, TypeError) as exc:
                raise PlanError(f"state {called!r}: {exc}") from exc
            return self._add(called, meta, handler, after)

        if callable(name):
            return add(name)
        self._unused[add] = "" if name is _UNNAMED else repr(name)
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
        if isinstance(handler, type):
            raise PlanError(
                f"state {state_id}: {handler.__qualname__} is a class; the handler must be a function",
                hint=f"add an instance of it: plan.add({name!r}, {handler.__qualname__}())",
            )
        if not callable(handler):
            raise PlanError(f"state {state_id}: {handler!r} is no function")
        if meta.retry is not None:
            meta.retry.check_classes(f"state {state_id}")
        after = (after,) if isinstance(after, str | PlanState) else after
        if meta == self._meta:
            meta = self._meta  # most states of a large plan are declared alike
        self._meta = meta
        state = PlanState(
            state_id,
            meta,
            handler,
            tuple(self.state_id(other) for other in after),
            blocking=is_plain(handler),
        )
        self._states[state_id] = state
        return state

    @property
    def graph(self) -> Graph:
        """The validated, immutable graph. Raises `PlanError` naming the first broken rule."""
        if self._graph is None:
            for call in self._unused.values():
                text = f"plan {self.op_id!r}: plan.state({call}) decorates no function, so it makes no state"
                raise PlanError(text, hint="write it as a decorator, with @, on the line above its function")
            self._graph = _validated(self)
        return self._graph


def _shape(states: Mapping[str, PlanState], edges: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    metas = {id(state.meta): state.meta for state in states.values()}
    told = {number: meta.to_json() for number, meta in metas.items()}
    return {
        "states": [{"id": state.id, "meta": told[id(state.meta)]} for state in states.values()],
        "edges": edges,
    }


def _validated(plan: Plan) -> Graph:
    states = plan._states  # noqa: SLF001 - the other half of the class, to which nothing is added any more
    if not states:
        raise PlanError(f"plan {plan.op_id!r} has no states", code=Code.EMPTY_PLAN)
    edges = set(plan._edges)  # noqa: SLF001
    for state in states.values():
        edges.update((earlier, state.id) for earlier in state.after)
        edges.update((earlier, state.id) for earlier in by_tag(state, states))
        check_key(state)
    for edge in sorted(edges):
        for end in edge:
            if end not in states:
                raise PlanError(
                    f"the edge {edge[0]} -> {edge[1]} names {end}, which is no state of the plan",
                    code=Code.MISSING_STATE_FOR_EDGE,
                    hint=did_you_mean(end, states),
                )
    ordered = tuple(sorted(edges))
    check_cleanup(states, ordered)
    order = topological(list(states), ordered)
    shape = canonical.encode(_shape(states, ordered))
    return Graph(
        plan.op_id,
        plan.version,
        MappingProxyType(states),
        ordered,
        order,
        canonical.artifact_id(shape),
        (zlib.compress(shape, 1), len(shape)),
        {state_id: states[state_id].meta.run for state_id in order if states[state_id].meta.cleanup},
        input=plan.input,
    )


def earlier_graph(now: Graph, shape_bytes: bytes) -> Graph:
    """Return the graph that a plan had when its shape was recorded, with the present functions.

    A state that the plan no longer has cannot be run. Raises `CorruptionError` when the shape is invalid.
    """
    then = recorded_graph(shape_bytes)
    metas, _ = parts_of(then.shape())
    states = {
        state_id: _earlier_state(state_id, meta, now.states.get(state_id)) for state_id, meta in metas.items()
    }
    states_now = MappingProxyType(states)
    return attrs.evolve(then, op_id=now.op_id, version=now.version, states=states_now, input=now.input)


def recorded_graph(shape_bytes: bytes) -> Graph:
    """Return the graph of a recorded shape, without functions.

    Raises `CorruptionError` when the shape is invalid.
    """
    plan_id = canonical.artifact_id(shape_bytes)
    shape = shape_of(plan_id, shape_bytes)
    metas, edges = parts_of(shape)
    order = order_of(shape)
    cleanup = {state_id: RunsOn(metas[state_id]["run"]) for state_id in order if "run" in metas[state_id]}
    packed = zlib.compress(shape_bytes, 1), len(shape_bytes)
    return Graph("", "", {}, tuple(edges), order, plan_id, packed, cleanup)


def _earlier_state(state_id: str, meta: Mapping[str, Any], now: PlanState | None) -> PlanState:
    if now is None:  # it never ran: a plan without a state that has run is refused
        return PlanState(state_id, StateMeta(), _gone, (), blocking=True)
    return attrs.evolve(now, meta=now.meta.as_recorded(meta))


def _gone(*_: Any) -> None:
    raise PlanError("the plan no longer has this state", code=Code.RECOVERY_STATE_NOT_IN_PLAN)
