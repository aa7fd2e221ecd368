"""A state: its declaration, the code that runs it, and its possible results.

Values only: nothing here runs a handler, and a state does not know its plan.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import attrs

from machine import codec
from machine.callee import OF_CLEANUP, OF_WORK, Callee, callee_of, reconcile_callee
from machine.config import LONGEST_SECONDS, RetryPolicy
from machine.errors import Code, IdError, PlanError, StateError
from machine.ids import OpId, StateId, Tag

Handler: TypeAlias = Callable[..., Any]
"""A function with any of the parameters `ctx`, `io` and `rec`, of a cleanup state also `failure`; for `reconcile`,
of `ctx`, `io` and `effect`."""
IdempotencyKey: TypeAlias = str | Callable[[Any], str]


_E = TypeVar("_E", bound=StrEnum)
EFFECT_TAG: Final = Tag("apply_side_effect")
"""The tag of every state with effects."""


class SideEffects(StrEnum):
    """The permission of a state to act on the outside world."""

    PURE = "pure"
    """No call at all: the state only computes from the context."""
    READ_ONLY_IO = "read_only_io"
    """Calls that read. All are recorded; none may change the outside world."""
    APPLY_SIDE_EFFECT = "apply_side_effect"
    """Calls that change the outside world. An idempotency key is required."""


class DependsOnStrategy(StrEnum):
    """The choice among the states declared before this one for a tag in `depends_on`."""

    LATEST = "latest"
    """The state declared last."""
    EARLIEST = "earliest"
    """The state declared first."""
    LATEST_SUCCESSFUL = "latest_successful"
    """All of them: the last to succeed is not known in advance, so each must have ended."""


class RunsOn(StrEnum):
    """The ends of a run's work that a state is for."""

    SUCCESS = "on_success"
    """It is part of the work: it runs when the states before it have succeeded."""
    ALWAYS = "always"
    """A cleanup state, which runs after the work however that has ended."""
    FAILURE = "on_failure"
    """A cleanup state, which runs unless the work has succeeded: after a failure, a cancellation or a limit."""


class OnError(StrEnum):
    """The treatment of a state that has failed for good."""

    FAIL = "fail"
    """The run fails."""
    SKIP = "skip"
    """The state is skipped, and the run goes on."""
    PAUSE = "pause"
    """The run is paused, until a person lets it go on."""


class OnUncertain(StrEnum):
    """The treatment of an effect whose outcome a crash has hidden."""

    RETRY = "retry"
    """It is sent again with the same idempotency key; the receiver deduplicates."""
    RECONCILE = "reconcile"
    """The state's `reconcile` function finds out the outcome, only by reading."""
    ASK = "ask"
    """The run is suspended until an operator supplies the outcome."""


def _names(chosen: Any) -> tuple[str, ...] | None:
    """Return the names of the states that a handler chose: one, several, or None."""
    if chosen is None:
        return None
    several = [chosen] if isinstance(chosen, str) or hasattr(chosen, "handler") else list(chosen)
    names = tuple(getattr(name, "id", name) for name in several)
    for name in names:
        if not isinstance(name, str):
            raise StateError(f"{name!r} names no state to go on to", code=Code.INVALID_OUTCOME)
    return names


@attrs.frozen
class StateOutcome:
    """The result that a handler may return instead of None.

    `error` fails the attempt by the handler's decision (a code, or an exception). `snapshot` is `on_success` (the
    default), `always` (a failing attempt also keeps a diagnostic snapshot of what it had staged), or `never` (the
    state promises to write nothing; a staged write fails it).

    A state with successors may choose among them: `goto` names those to continue to, and no other edge leads on;
    `skip` names those not to continue to. A name is `step.state`, the full id, or the result of the decorator. A
    state that no edge leads to any more is skipped, and so are the states that follow only it.

    `next_run` is the input, a JSON object, of a run that continues this one: it begins with the same plan and
    configuration when this one has completed, after all other states. One state of a run may give it.
    """

    snapshot: Literal["never", "on_success", "always"] = attrs.field(
        default="on_success", validator=attrs.validators.in_(("never", "on_success", "always"))
    )
    error: BaseException | str | None = None
    goto: tuple[str, ...] | None = attrs.field(default=None, converter=_names)
    skip: tuple[str, ...] = attrs.field(default=(), converter=_names)
    next_run: Mapping[str, Any] | None = None

    def __attrs_post_init__(self) -> None:
        if self.goto is not None and self.skip:
            raise StateError(
                "an outcome says where to go on or what to skip, not both", code=Code.INVALID_OUTCOME
            )
        if self.error is not None and self.next_run is not None:
            raise StateError(
                "an outcome fails the attempt or says how the run goes on, not both",
                code=Code.INVALID_OUTCOME,
            )


def _tags(tags: Iterable[str]) -> tuple[Tag, ...]:
    if isinstance(tags, str):
        raise PlanError(f"tags must be a list of tags, not the string {tags!r}")
    return tuple(Tag(tag) for tag in tags)


def _member(kind: type[_E], name: str, value: Any) -> _E:
    try:
        return kind(value)
    except ValueError:
        raise PlanError(f"{name} must be one of {', '.join(kind)}, not {value!r}") from None


def _side_effects(value: str) -> SideEffects:
    return _member(SideEffects, "side_effects", value)


def _strategy(value: str) -> DependsOnStrategy:
    return _member(DependsOnStrategy, "depends_on_strategy", value)


def _on_uncertain(value: str) -> OnUncertain:
    return _member(OnUncertain, "on_uncertain", value)


def _runs_on(value: str) -> RunsOn:
    return _member(RunsOn, "run", value)


def _on_error(value: str) -> OnError:
    return _member(OnError, "on_error", value)


@attrs.frozen(kw_only=True)
class StateMeta:
    """The declaration of a state. All of it but functions and previews is part of the plan's fingerprint.

    `timeout` is in seconds and covers one attempt; `retry` overrides the run's policy; `idempotency` is the key an
    effect is sent with, or a function that computes it from the context; `on_uncertain` selects the treatment of an
    effect whose outcome a crash has hidden, and `reconcile` is its function `(ctx, io, effect)`, which returns
    `effect.happened(response)` or `effect.not_done()`. `preview` is the outcome of its effects in a dry run, or a
    function `(ctx, request)` that returns it, `NotImplemented` for one that it does not know. `run` makes a cleanup
    state, and `on_error` says what becomes of the run when the state has failed for good.
    """

    tags: tuple[Tag, ...] = attrs.field(default=(), converter=_tags)
    depends_on: tuple[Tag, ...] = attrs.field(default=(), converter=_tags)
    depends_on_strategy: DependsOnStrategy = attrs.field(
        default=DependsOnStrategy.LATEST, converter=_strategy
    )
    side_effects: SideEffects = attrs.field(default=SideEffects.READ_ONLY_IO, converter=_side_effects)
    idempotency: IdempotencyKey | None = attrs.field(default=None)
    retry: RetryPolicy | None = attrs.field(default=None)
    timeout: float | None = attrs.field(default=None)
    on_uncertain: OnUncertain = attrs.field(default=OnUncertain.RETRY, converter=_on_uncertain)
    reconcile: Handler | None = attrs.field(default=None)
    preview: Any = attrs.field(default=None)
    run: RunsOn = attrs.field(default=RunsOn.SUCCESS, converter=_runs_on)
    on_error: OnError = attrs.field(default=OnError.FAIL, converter=_on_error)

    @on_error.validator
    def _check_on_error(self, _: Any, value: Any) -> None:
        if value is not OnError.FAIL and self.cleanup:
            raise PlanError(
                f'on_error="{value}" says nothing about a cleanup state: its failure never ends the run',
                code=Code.INVALID_CLEANUP,
                hint="leave one of the two out",
            )

    @property
    def cleanup(self) -> bool:
        """True for a cleanup state."""
        return self.run is not RunsOn.SUCCESS

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

    @reconcile.validator
    def _check_reconcile(self, _: Any, value: Any) -> None:
        if value is not None and not callable(value):
            raise PlanError(f"reconcile must be a function of ctx, io and effect, not {value!r}")
        if value is not None:
            reconcile_callee(value)
        if (value is not None) != (self.on_uncertain is OnUncertain.RECONCILE):
            raise PlanError(
                'on_uncertain="reconcile" and reconcile=... go together',
                code=Code.MISSING_RECONCILE,
                hint="give reconcile a function that asks the receiver for the outcome of the effect",
            )

    def __attrs_post_init__(self) -> None:
        if self.preview is not None and self.side_effects is not SideEffects.APPLY_SIDE_EFFECT:
            raise PlanError(
                "preview is the outcome of effects in a dry run, and this state applies none",
                hint='add side_effects="apply_side_effect" if it does; otherwise leave preview= out',
            )
        # the standard tag follows from the declaration, so that --skip-tag apply_side_effect misses nothing
        if self.side_effects is SideEffects.APPLY_SIDE_EFFECT and EFFECT_TAG not in self.tags:
            object.__setattr__(self, "tags", (*self.tags, EFFECT_TAG))

    def as_recorded(self, meta: Mapping[str, Any]) -> StateMeta:
        """Return the recorded declaration of a state that has this metadata now; `meta` is its `to_json`.

        Functions, which JSON cannot hold, are the present ones.
        """
        on_uncertain = meta["on_uncertain"] if self.reconcile else OnUncertain.RETRY
        reconciles = meta["on_uncertain"] == OnUncertain.RECONCILE
        return StateMeta(
            tags=meta["tags"],
            depends_on=meta["depends_on"],
            depends_on_strategy=meta["depends_on_strategy"],
            side_effects=meta["side_effects"],
            idempotency=meta["idempotency"].get("key") or self.idempotency,
            retry=codec.from_json(meta["retry"], RetryPolicy) if meta["retry"] else None,
            timeout=meta["timeout"],
            on_uncertain=on_uncertain if reconciles else meta["on_uncertain"],
            reconcile=self.reconcile if reconciles else None,
            run=meta.get("run", RunsOn.SUCCESS),
            on_error=meta.get("on_error", OnError.FAIL),
            preview=self.preview if "preview" in meta else None,
        )

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
        preview = (
            {} if self.preview is None else {"preview": "function" if callable(self.preview) else "value"}
        )
        return {
            "tags": [str(tag) for tag in self.tags],
            "depends_on": [str(tag) for tag in self.depends_on],
            "depends_on_strategy": self.depends_on_strategy.value,
            "side_effects": self.side_effects.value,
            "idempotency": idempotency,
            "retry": codec.to_json(self.retry) if self.retry else None,
            "timeout": self.timeout,
            "on_uncertain": self.on_uncertain.value,
            # absent at their defaults, so that the plans of earlier versions keep their ids
            **({"run": self.run.value} if self.cleanup else {}),
            **({"on_error": self.on_error.value} if self.on_error is not OnError.FAIL else {}),
            **preview,
        }


@runtime_checkable
class State(Protocol):
    """One node of a plan. `handle` may also be a plain function; it then runs in a worker thread."""

    def meta(self) -> StateMeta:
        """Return the declaration of the state; the same every time."""
        ...

    async def handle(self, ctx: Any, io: Any, rec: Any) -> StateOutcome | None:
        """Do the state's work: read and write `ctx`, make calls through `io`, emit through `rec`."""
        ...


@attrs.frozen
class PlanState:
    """A state of a plan, with its id and the states it was declared to follow.

    It can be called like the handler it came from, so a unit test needs no engine.
    """

    id: str
    meta: StateMeta
    handler: Handler
    after: tuple[str, ...]
    blocking: bool
    """True when the handler is a plain function, to be run in a thread of its own."""
    callee: Callee = attrs.field(
        init=False,
        eq=False,
        repr=False,
        default=attrs.Factory(
            lambda self: callee_of(
                f"the handler of {self.id}", self.handler, OF_CLEANUP if self.meta.cleanup else OF_WORK
            ),
            takes_self=True,
        ),
    )
    """The handler, with the parameters that it takes."""

    @property
    def source(self) -> Any:
        """The function or class whose source is the state's code."""
        owner = getattr(self.handler, "__self__", None)
        if owner is not None:
            return type(owner)
        return self.handler if inspect.isfunction(self.handler) else type(self.handler)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the handler itself, outside any run."""
        return self.handler(*args, **kwargs)


def name_of(handler: Handler) -> str:
    """Return the name of a state that was given none. Raises `PlanError` when the handler has no usable name."""
    name = getattr(handler, "__name__", None)
    try:
        if not isinstance(handler, type):
            return f"{OpId(str(name))}.{name}"
    except IdError:
        pass
    what = f"the class {name}" if isinstance(handler, type) else repr(name or handler)
    raise PlanError(
        f"no state can be named after {what}",
        hint=f"plan.add('step.state', {name}()) adds an instance of it"
        if isinstance(handler, type)
        else f"give it a name: @plan.state('step.state'), {StateId.rule}",
    )


def is_plain(handler: Handler) -> bool:
    """Say whether a handler is a plain function, which runs in a thread of its own."""
    return not (
        inspect.iscoroutinefunction(handler)
        or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004 - an object whose call is one
    )
