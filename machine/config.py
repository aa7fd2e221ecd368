"""The request for a run: its configuration, its manifest, and the provenance stored with them.

Values only. Nothing here reads the environment, a clock or a file.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final, Literal, TypeVar

import attrs

from machine.build_provenance import BuildProvenance, Target
from machine.errors import Code, ConfigError
from machine.ids import OpId, Tag
from machine.ignore import Ignore
from machine.limits import NO_LIMITS, Limits
from machine.policy import NO_POLICY, Policy, Rule
from machine.retry_policy import (
    LONGEST_SECONDS,
    ExponentialBackoff,
    FixedBackoff,
    RetryPolicy,
)
from machine.retry_policy import check_count as _count
from machine.retry_policy import refused as _refuse
from machine.secrets.policy import SecretPolicy

__all__ = [
    "CONTEXT_FORMAT",
    "LONGEST_SECONDS",
    "SECRET_FORMAT",
    "AfterEveryState",
    "BuildProvenance",
    "Durability",
    "EventProfile",
    "ExponentialBackoff",
    "FanOutJoin",
    "FixedBackoff",
    "IoMode",
    "Limits",
    "OnFailure",
    "Policy",
    "RetryPolicy",
    "Rule",
    "RunConfig",
    "RunManifest",
    "Sequential",
    "Target",
    "UndeclaredIo",
    "check_startable",
]

SECRET_FORMAT: Final = 2
"""The secret format of new runs."""

CONTEXT_FORMAT: Final = 2
"""The context format of new runs."""

REQUEST_FORMAT: Final = 2
"""The request format of new runs."""

FORMATS: Final = {
    "secret_format": (1, SECRET_FORMAT),
    "context_format": (1, CONTEXT_FORMAT),
    "request_format": (1, REQUEST_FORMAT),
}
"""The formats that this version knows, by the field of a manifest with their number."""

MOST_CONCURRENT: Final = 10_000
"""The largest number of concurrent states."""

_E = TypeVar("_E", bound=StrEnum)
_hints = functools.cache(typing.get_type_hints)  # the slowest part of loading a configuration


def _instance(owner: Any, field: attrs.Attribute[Any], value: Any) -> None:
    kind = _hints(owner.__class__)[field.name]
    if not isinstance(value, kind):
        raise _refuse(field.name, f"must be {getattr(kind, '__name__', kind)}, not {value!r}")


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise _refuse("a list of names", f"must hold strings, not be {value!r}")
    return tuple(value)


class IoMode(StrEnum):
    """The permission of a run to reach the outside world."""

    LIVE = "live"
    """Calls are performed and recorded."""
    REPLAY = "replay"
    """Only recorded facts are returned: those of the run, and those of the recording it takes its facts from."""
    DRY_RUN = "dry_run"
    """Reads are performed and recorded; effects are not performed, and answered by previewed outcomes."""


class Durability(StrEnum):
    """The moments at which a run waits for the disk. All else is written in the background, a moment later.

    In every mode a run waits

    - after its first event, before anybody learns its id;
    - after the beginning of each of its first 4 attempts, 16 after a resume, before the handler is called;
    - before the delay of a retry;
    - before an effect leaves the process, and before the outcome of the effect reaches the handler;
    - whenever 2000 events wait to be written (`CommitLimits.max_pending`);
    - once, for the key of its secrets, when the first of them is sealed;
    - before its result is returned.

    `engine/commit_queue.py` does the waiting.
    """

    EFFECTS = "effects"
    """Only then. A crash may lose reads, which are made again."""
    STATES = "states"
    """Also after the beginning of every attempt, and after the end of an attempt of concurrent states."""
    FACTS = "facts"
    """Also before the outcome of any call reaches the handler, for reads that cost money."""


class UndeclaredIo(StrEnum):
    """The reaction to an act of a handler on the outside world, or a read of it, without `io`."""

    ERROR = "error"
    """The act is refused before it happens, and the attempt fails with `undeclared_io`."""
    WARN = "warn"
    """The act happens and is reported."""
    ALLOW = "allow"
    """Acts are not watched."""


@attrs.frozen
class EventProfile:
    """The optional domain events to record. Kernel events are always written.

    `minimal` records what the catalogue calls essential, `normal` drops only the verbose kinds, `verbose` records
    everything, and `custom` (with a `name` of its own) records exactly the names in `keep`.
    """

    type: Literal["minimal", "normal", "verbose", "custom"] = "normal"
    name: str | None = None
    keep: tuple[str, ...] = attrs.field(default=(), converter=_names)

    def __attrs_post_init__(self) -> None:
        if self.type not in {"minimal", "normal", "verbose", "custom"}:
            raise _refuse("event_profile", f"must be minimal, normal, verbose or custom, not {self.type!r}")
        if (self.type == "custom") != (self.name is not None) or (self.keep and self.type != "custom"):
            raise _refuse("event_profile", "takes a name and keep exactly when it is custom")


@attrs.frozen
class Sequential:
    """Run one ready state after another, in topological order, ties broken by declaration."""

    type: ClassVar[str] = "sequential"
    max_concurrency: ClassVar[None] = None


class OnFailure(StrEnum):
    """The treatment of running states when another has failed for good. No further state begins."""

    FINISH = "finish"
    """Let the running states end."""
    CANCEL = "cancel"
    """Cancel the running states: their attempts are interrupted."""


def _on_failure(value: str) -> OnFailure:
    return _member(OnFailure, value)


@attrs.frozen
class FanOutJoin:
    """Run states as soon as all their predecessors have ended, with at most `max_concurrency` concurrent ones.

    A state sees what its ancestors in the plan wrote, and nothing else, so its results cannot depend on timing.
    """

    type: ClassVar[str] = "fan_out_join"

    max_concurrency: int = attrs.field()
    on_failure: OnFailure = attrs.field(default=OnFailure.FINISH, converter=_on_failure)

    @max_concurrency.validator
    def _check(self, _: Any, value: int) -> None:
        if type(value) is not int or not 1 <= value <= MOST_CONCURRENT:
            raise _refuse(
                "max_concurrency", f"must be a whole number from 1 to {MOST_CONCURRENT}, not {value!r}"
            )


@attrs.frozen
class AfterEveryState:
    """Checkpoint the context whenever a state completes."""

    type: ClassVar[str] = "after_every_state"


def _profile(value: EventProfile | str) -> EventProfile:
    if isinstance(value, EventProfile):
        return value
    return EventProfile(value)  # type: ignore[arg-type]


def _tags(value: Iterable[str]) -> tuple[Tag, ...]:
    if isinstance(value, str):
        raise _refuse("skip_tags", f"must be a list of tags, not the string {value!r}")
    return tuple(sorted({Tag(tag) for tag in value}))


def _member(kind: type[_E], value: str) -> _E:
    try:
        return kind(value)
    except ValueError:
        raise _refuse(kind.__name__, f"must be one of {', '.join(kind)}, not {value!r}") from None


def _io_mode(value: str) -> IoMode:
    return _member(IoMode, value)


def _durability(value: str) -> Durability:
    return _member(Durability, value)


def _undeclared_io(value: str) -> UndeclaredIo:
    return _member(UndeclaredIo, value)


@attrs.frozen(kw_only=True)
class RunConfig:
    """The configuration of one run. Part of the manifest, so different configurations give different digests.

    `exec_allow` lists path prefixes; a program that `io.exec` starts must lie under one of them. `secrets` says
    what must never be recorded. `undeclared_io` selects the reaction to acts of handlers without `io`. `io_mode` is
    `replay` for a run that takes all its facts from a recording and never goes outside (`run(facts_from=...)`), or
    `dry_run` for one that applies no effect (`dry_run`), and
    `replay_missing_fact_retryable` says whether its calls without a fact may be tried again. `paranoid` runs each
    state a second time, at once and from its own facts, and fails it where the two differ. `recoveries` is the
    number of attempts of one state in a row that may end with the death of their driver, without any new fact,
    before the run ends failed with `recovery_limit`. `limits` are what it may use before it ends `limit_exceeded`,
    and `policy` says which of its calls may be made.
    `retry_budget` is the number of retries of all its states together, None without limit: the next failure that
    would be retried ends it failed with `retry_budget_spent`.
    """

    io_mode: IoMode = attrs.field(default=IoMode.LIVE, converter=_io_mode)
    retry_policy: RetryPolicy = attrs.field(factory=RetryPolicy, validator=_instance)
    event_profile: EventProfile = attrs.field(factory=EventProfile, converter=_profile)
    execution_mode: Sequential | FanOutJoin = attrs.field(factory=Sequential, validator=_instance)
    context_checkpointing: AfterEveryState = attrs.field(factory=AfterEveryState, validator=_instance)
    skip_tags: tuple[Tag, ...] = attrs.field(default=(), converter=_tags)
    durability: Durability = attrs.field(default=Durability.EFFECTS, converter=_durability)
    replay_missing_fact_retryable: bool = attrs.field(default=False, validator=_instance)
    exec_allow: tuple[str, ...] = attrs.field(default=("/",), converter=_names)
    secrets: SecretPolicy = attrs.field(default=SecretPolicy(), validator=_instance)
    undeclared_io: UndeclaredIo = attrs.field(default=UndeclaredIo.WARN, converter=_undeclared_io)
    paranoid: bool = attrs.field(default=False, validator=_instance)
    recoveries: int = attrs.field(default=5, validator=_count)
    limits: Limits = attrs.field(default=NO_LIMITS, validator=_instance)
    policy: Policy = attrs.field(default=NO_POLICY, validator=_instance)
    retry_budget: int | None = attrs.field(default=None, validator=attrs.validators.optional(_count))

    @exec_allow.validator
    def _check_allow(self, _: Any, value: tuple[str, ...]) -> None:
        for prefix in value:
            if not isinstance(prefix, str) or not prefix.startswith("/"):
                raise _refuse("exec_allow", f"must list absolute paths, not {prefix!r}")


def check_startable(config: RunConfig, *, facts: bool = False) -> None:
    """Raise `ConfigError` for a configuration that no new run can have, with or without `facts` of a recording."""
    if config.io_mode is IoMode.DRY_RUN:
        raise _refuse(
            "io_mode", 'is "dry_run", which is for dry runs: machine.dry_run, machine run --dry-run'
        )
    if config.io_mode is not IoMode.LIVE and not facts:
        raise ConfigError(
            f'io_mode must be "live", not "{config.io_mode}": this run has no facts to answer its calls from',
            code=Code.INVALID_CONFIG,
            hint="give it those of a recording, with facts_from=RUN (--facts-from); machine replay RUN, or "
            "machine.replay, checks a recorded run without going outside",
        )
    if config.secrets.stable:
        raise ConfigError(
            "secrets.stable has no effect in a new run: no digest moves when a secret rotates",
            code=Code.INVALID_CONFIG,
            hint="leave it out",
        )
    if config.replay_missing_fact_retryable and config.io_mode is IoMode.LIVE:
        raise ConfigError(
            "replay_missing_fact_retryable has no effect in a live run",
            code=Code.INVALID_CONFIG,
            hint="leave it out",
        )
    config.retry_policy.check_classes("the retry policy of the run")


def _format(_: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if type(value) is not int or value not in FORMATS[field.name]:
        raise _refuse(field.name, f"is {value!r}, which another version of this program has written")


@attrs.frozen(kw_only=True)
class RunManifest:
    """The request for a run: op, version, input and configuration. An artifact; its id is the hash of its bytes."""

    op_id: OpId
    op_version: str
    input_params: Mapping[str, Any]
    run_config: RunConfig
    secret_format: int = attrs.field(default=1, validator=_format)
    """The number of the rules by which secrets are stored (`machine.secrets`), for the life of a run and its
    forks."""
    request_format: int = attrs.field(default=1, validator=_format)
    """The number of the rules by which HTTP requests are compared (`machine.io.request_identity`), for as long: in
    1 nothing is ignored that is not named."""
    ignore: Ignore = attrs.field(default=Ignore(), validator=_instance)
    """The parts of requests that the plan of a new run ignored."""

    def in_formats_of(self, other: RunManifest) -> RunManifest:
        """Return this manifest with the format numbers of another one."""
        formats: dict[str, Any] = {name: getattr(other, name) for name in FORMATS}
        return attrs.evolve(self, **formats)

    context_format: int = attrs.field(default=1, validator=_format)
    """The number of the rules by which contexts are stored (`kernel.snapshot`), for as long: from 2 on, large
    values are in chunks."""
