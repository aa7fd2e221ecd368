"""The contents of a log: the closed set of kernel events, domain events, and what an entry holds.

An event's body is its canonical JSON; the envelope adds `seq` and, separately under `info`, all informational data.
The chain covers the whole envelope; the digest covers bodies alone. `fold` of `kernel.history` interprets a log.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias

import attrs

from machine.envelope import chain_next, seal  # noqa: F401 - their former home is here
from machine.error_codes import CUT_CODES
from machine.errors import Code, ErrorInfo
from machine.ids import CALL_KEY
from machine.waits import Wait

MAX_INLINE_PAYLOAD: Final = 16 * 1024
"""The largest number of canonical bytes of a domain event's inline payload; a larger one becomes an artifact."""


class ArtifactKind(StrEnum):
    """The kind of an artifact, for people and for garbage collection; any other name may be used too."""

    MANIFEST = "manifest"
    PLAN = "plan"
    PROVENANCE = "provenance"
    CONTEXT_SNAPSHOT = "context_snapshot"
    CONTEXT_VALUE = "context_value"
    CONTEXT_CHUNKS = "context_chunks"
    CONTEXT_CHUNK = "context_chunk"
    FACT_REQUEST = "fact_request"
    FACT_PAYLOAD = "fact_payload"
    NEXT_INPUT = "next_input"
    DOMAIN_PAYLOAD = "domain_payload"
    SHARED_PAST = "shared_past"
    OUTPUT = "output"
    OUTPUT_PIECES = "output_pieces"
    OUTPUT_PIECE = "output_piece"
    SECRET_PAYLOAD = "secret_payload"  # noqa: S105 - the name of a kind


class Artifact(NamedTuple):
    """Immutable bytes on their way into a store. `id` is the BLAKE3-256 of `data`, `kind` an `ArtifactKind`.

    `append` trusts the id it is given; `get` does not.
    """

    id: str
    kind: str
    data: bytes


@attrs.frozen
class RunStarted:
    """The first event: the op, manifest and plan, and the snapshot of the input.

    `max_concurrency` is the largest number of concurrent states; None in sequential mode.
    """

    type: ClassVar[str] = "run_started"
    op_id: str
    manifest_id: str
    plan_id: str
    initial_snapshot_id: str
    max_concurrency: int | None = None


@attrs.frozen
class StateEntered:
    """An attempt (counted from 0) of a state began, on the context of `base_snapshot_id`."""

    type: ClassVar[str] = "state_entered"
    state_id: str
    attempt: int
    base_snapshot_id: str


@attrs.frozen
class StateCompleted:
    """The open attempt completed; its writes are visible from `context_snapshot_id` on.

    `wrote` lists the keys it wrote, in a run with concurrent states, None where nothing else could have written
    meanwhile; `not_taken` lists the states after it that it chose not to continue to, None when it made no choice.
    `next_input_id` is the artifact of the input with which the run is to go on as another.
    """

    type: ClassVar[str] = "state_completed"
    state_id: str
    context_snapshot_id: str
    wrote: tuple[str, ...] | None = None
    not_taken: tuple[str, ...] | None = None
    next_input_id: str | None = None


@attrs.frozen
class StateSkipped:
    """The state will not run, and why."""

    type: ClassVar[str] = "state_skipped"
    state_id: str
    reason: str


@attrs.frozen
class StateFailed:
    """The open attempt failed or was interrupted. `failure_snapshot_id` is diagnostic, never a resume boundary."""

    type: ClassVar[str] = "state_failed"
    state_id: str
    error: ErrorInfo
    failure_snapshot_id: str | None = None

    @property
    def cut(self) -> bool:
        """True when the attempt was interrupted (crash, Ctrl-C, cancel, timeout, suspension)."""
        return self.error.code in CUT_CODES

    @property
    def suspended(self) -> bool:
        """True when the attempt was put away at a wait: it goes on under the same number."""
        return self.error.code == Code.ATTEMPT_SUSPENDED


@attrs.frozen
class RetryScheduled:
    """Attempt `attempt` of the state will follow after `delay_ms` milliseconds (not slept in replay)."""

    type: ClassVar[str] = "retry_scheduled"
    state_id: str
    attempt: int
    delay_ms: int


@attrs.frozen
class FactValue:
    """An outcome that is a value: the artifact of its canonical JSON.

    `again` is true for an answer that asks for a retry (HTTP 429 and 5xx): a later attempt does not reuse it.
    """

    type: ClassVar[str] = "value"
    payload_id: str
    again: bool | None = None

    @property
    def final(self) -> bool:
        """True when the outcome is valid for the rest of the run."""
        return not self.again


@attrs.frozen
class FactError:
    """An outcome that is an error, with everything a replay needs to raise it again.

    `kind` is the class of its `IoError`: missing_fact_key, missing_fact, transport, rate_limited or other.
    """

    type: ClassVar[str] = "error"
    kind: str
    error: ErrorInfo

    @property
    def final(self) -> bool:
        """False: a later attempt may make the call again."""
        return False


FactOutcome: TypeAlias = FactValue | FactError


@attrs.frozen
class FactRecorded:
    """One recorded outcome. `request_digest` is also the id of the artifact that holds the request.

    `piece` is the number of a part of a stream, 0 for its head; None for the outcome of a call, the end of a stream
    included.
    """

    type: ClassVar[str] = "fact_recorded"
    key: str
    namespace: str
    request_digest: str
    outcome: FactOutcome
    state_id: str
    attempt: int
    piece: int | None = None

    @property
    def given_up(self) -> bool:
        """True when the handler cancelled the call, so that its outcome is still open."""
        return self._failed_with(Code.CALL_CANCELLED)

    @property
    def unknown(self) -> bool:
        """True when nobody knows whether the effect happened: it was given up, or its answer was lost."""
        return self.given_up or self._failed_with(Code.EFFECT_UNCERTAIN)

    @property
    def may_repeat(self) -> bool:
        """True when a later fact of its attempt may say otherwise: it is unknown, or certainly did not happen."""
        return self.unknown or self._failed_with(Code.EFFECT_NOT_DONE)

    def _failed_with(self, code: str) -> bool:
        return isinstance(self.outcome, FactError) and self.outcome.error.code == code

    @property
    def made_in(self) -> int | None:
        """The attempt whose handler made the call; None under an explicit key and in a reconcile function.

        It differs from `attempt` when the outcome of an effect was found out later.
        """
        found = CALL_KEY.fullmatch(self.key)
        return None if found is None else int(found[1])


@attrs.frozen
class EffectIntended:
    """An effect is about to leave the process with this idempotency key; durable before it does.

    `namespace` is None only in logs older than the field.
    """

    type: ClassVar[str] = "effect_intended"
    key: str
    request_digest: str
    idempotency_key: str
    state_id: str
    attempt: int
    namespace: str | None = None


@attrs.frozen
class WaitBegun:
    """A handler waits for external input under this key. Sibling of `EffectIntended`.

    `namespace` says for what (a key of `WAIT_KINDS`), and the artifact `request_digest` holds the question. The
    answer is a fact with the same key, namespace, request, state and attempt. The key has no attempt, so a later
    attempt finds the answer. The info of the event holds `due_ms`, the end of its time limit, and the run id of a
    `child`, where there are any.
    """

    type: ClassVar[str] = "wait_begun"
    key: str
    namespace: str
    request_digest: str
    state_id: str
    attempt: int


DRIVER: Final = "driver"
"""Name in the info of `state_entered` for whoever drives the attempt: HOST:PID, and the name of a worker."""

REASON: Final = "reason"
"""Name in the info of the `run_completed` of a cancelled run for the reason that was given."""

CANCELLED_BY: Final = "cancelled_by"
"""Name in the same info for who asked for it."""

INBOX_SEEN: Final = "inbox_seen"
"""Name in the info of `run_suspended` for the number of the last message that was read, as text."""


@attrs.frozen
class RunSuspended:
    """The run waits for external input and continues only with it.

    Where a handler waits, the info of the event holds `inbox_seen`, the number of the last message that its driver
    had read: a store takes no such suspension once a later message exists.
    """

    type: ClassVar[str] = "run_suspended"
    waits: tuple[Wait, ...]


CODE_CHANGE: Final = "code_change"
"""Value of `by` for a run that continues although a suspended attempt no longer does what it had done."""


@attrs.frozen
class RunResumed:
    """The run continues: `by` an operator's answers, or with the plan `plan_id` from here on.

    `secrets_lost` is true where its driver cannot open what was sealed so far: such facts answer no call any more.
    """

    type: ClassVar[str] = "run_resumed"
    by: str
    plan_id: str | None = None
    secrets_lost: bool | None = None

    @property
    def anew(self) -> bool:
        """True when suspended attempts do not go on: their states begin another one, as after a crash."""
        return self.plan_id is not None or bool(self.secrets_lost) or self.by == CODE_CHANGE


@attrs.frozen
class LimitReached:
    """The run has used up the limit `name`, of which it used `value`: open attempts are interrupted, and it ends.

    `value` is the exact amount as text.
    """

    type: ClassVar[str] = "limit_reached"
    name: str
    value: str


@attrs.frozen
class CleanupBegun:
    """Only cleanup states begin from here on. The run will end with this `status` and `error` whatever they do."""

    type: ClassVar[str] = "cleanup_begun"
    status: str
    base_snapshot_id: str
    error: ErrorInfo | None = None


@attrs.frozen
class RunCompleted:
    """The last event; `status` is final, and `error` the reason when that is not the failure of a state.

    `next_input_id` is of its state; `skipped` counts the states that were skipped for their failure.
    """

    type: ClassVar[str] = "run_completed"
    status: str
    final_snapshot_id: str | None = None
    error: ErrorInfo | None = None
    next_input_id: str | None = None
    skipped: int | None = None


@attrs.frozen
class DomainEvent:
    """An event a handler emits with `await rec.emit(...)`.

    `name` is a known kind of the catalogue (its payload is then validated) or any other lowercase name;
    `payload` is a JSON object without secrets.
    """

    name: str
    payload: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class DomainEventRecorded:
    """A domain event in its recorded form; a large payload is an artifact, named by `payload_ref`.

    `artifact_kind` is set where `rec.artifact` wrote the artifact that the payload names, and says how it is
    stored: it belongs to the run. An event that a handler emits may name any artifact, which nobody looks for.
    """

    type: ClassVar[str] = "domain_event"
    name: str
    state_id: str
    attempt: int
    payload: Mapping[str, Any] | None = None
    payload_ref: str | None = None
    artifact_kind: str | None = None


KernelEvent: TypeAlias = (
    RunStarted
    | StateEntered
    | StateCompleted
    | StateSkipped
    | StateFailed
    | RetryScheduled
    | FactRecorded
    | EffectIntended
    | WaitBegun
    | RunSuspended
    | RunResumed
    | LimitReached
    | CleanupBegun
    | RunCompleted
)
Event: TypeAlias = KernelEvent | DomainEventRecorded

EVENT_TYPES: Final[Mapping[str, type[Event]]] = {cls.type: cls for cls in typing.get_args(Event)}

KERNEL_EVENTS: Final = frozenset(name for name in EVENT_TYPES if name != DomainEventRecorded.type)
"""Names that a domain event can never have."""


class Entry(NamedTuple):
    """One event of a log, decoded: `body` is the canonical JSON of `event`, `info` the data outside the digest."""

    seq: int
    event: Event
    body: bytes
    run_id: str
    ts_millis: int
    info: Mapping[str, Any]
