"""The contents of a log: the closed set of kernel events, domain events, the envelope and its chain.

An event's body is its canonical JSON; the envelope adds `seq` and, separately under `info`, all informational data
(run id, wall-clock time, provenance, traceback). The chain covers the whole envelope; the digest covers bodies
alone. This module never interprets a log: `fold` of `kernel.history` does.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias

import attrs
import orjson
from blake3 import blake3

from machine import canonical
from machine.errors import CanonicalError, Code, CodecError, ErrorInfo, LogError
from machine.ids import CALL_KEY

STOPPED_CODES: Final = frozenset({str(Code.ORPHAN_ATTEMPT_RECOVERED), str(Code.ATTEMPT_INTERRUPTED)})
"""Error codes of attempts whose driver stopped: they use up no retry, and the next attempt follows at once."""

CUT_CODES: Final = STOPPED_CODES | {str(Code.STATE_TIMEOUT), str(Code.RUN_CANCELLED)}
"""Error codes of interrupted attempts, as opposed to failed ones."""

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
    DOMAIN_PAYLOAD = "domain_payload"
    SHARED_PAST = "shared_past"
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
    """

    type: ClassVar[str] = "state_completed"
    state_id: str
    context_snapshot_id: str
    wrote: tuple[str, ...] | None = None
    not_taken: tuple[str, ...] | None = None


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
        """True when the attempt was interrupted (crash, Ctrl-C, cancel, timeout)."""
        return self.error.code in CUT_CODES


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
class EffectWait:
    """A wait for the outcome of an effect that was intended and has none."""

    type: ClassVar[str] = "effect_outcome"
    key: str
    state_id: str


@attrs.frozen
class PlanWait:
    """A wait for permission to continue with another plan."""

    type: ClassVar[str] = "plan_change"
    plan_id: str


@attrs.frozen
class SecretWait:
    """A wait for permission to continue without the true values of secrets that the driver cannot open."""

    type: ClassVar[str] = "secrets_lost"


Wait: TypeAlias = EffectWait | PlanWait | SecretWait


@attrs.frozen
class RunSuspended:
    """The run waits for external input and continues only with it."""

    type: ClassVar[str] = "run_suspended"
    waits: tuple[Wait, ...]


@attrs.frozen
class RunResumed:
    """The run continues: `by` an operator's answers, or with the plan `plan_id` from here on.

    `secrets_lost` is true where its driver cannot open what was sealed so far: such facts answer no call any more.
    """

    type: ClassVar[str] = "run_resumed"
    by: str
    plan_id: str | None = None
    secrets_lost: bool | None = None


@attrs.frozen
class RunCompleted:
    """The last event. `status` is completed, failed, cancelled or limit_exceeded.

    `error` is the reason when it is not the failure of a state: two states that wrote one key, a missing edge,
    `recovery_limit` or `task_left_behind`.
    """

    type: ClassVar[str] = "run_completed"
    status: str
    final_snapshot_id: str | None = None
    error: ErrorInfo | None = None


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
    """A domain event in its recorded form; a large payload is an artifact, named by `payload_ref`."""

    type: ClassVar[str] = "domain_event"
    name: str
    state_id: str
    attempt: int
    payload: Mapping[str, Any] | None = None
    payload_ref: str | None = None


KernelEvent: TypeAlias = (
    RunStarted
    | StateEntered
    | StateCompleted
    | StateSkipped
    | StateFailed
    | RetryScheduled
    | FactRecorded
    | EffectIntended
    | RunSuspended
    | RunResumed
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


def chain_next(previous: bytes, data: bytes) -> bytes:
    """Return `BLAKE3(previous || data)`: the chain value after the envelope bytes `data`."""
    return blake3(previous + data).digest()


def seal(seq: int, body: bytes, run_id: str, ts_millis: int, info: Mapping[str, str] | None = None) -> bytes:
    """Return the canonical envelope bytes of an event body.

    They are joined, not encoded: the keys of an envelope are fixed and already in order (RFC 8785 section 3.2.3),
    so the body is encoded only once. `info` adds informational strings.
    """
    if not info:
        return b'{"event":%b,"info":{"run_id":"%b","ts_millis":%d},"seq":%d}' % (
            body,
            run_id.encode(),
            ts_millis,
            seq,
        )
    extra = orjson.dumps({**info, "run_id": run_id, "ts_millis": ts_millis}, option=orjson.OPT_SORT_KEYS)
    return b'{"event":%b,"info":%b,"seq":%d}' % (body, extra, seq)


def split_envelope(seq: int, data: bytes) -> tuple[dict[str, Any], bytes, dict[str, Any]]:
    """Return the event object, the bytes of the body, and the info object of stored envelope bytes at `seq`.

    Raises `LogError` (`log_bad_event`, or `log_seq_gap` when the envelope claims another seq).
    """
    try:
        envelope = canonical.decode(data)
        event, info, claimed = envelope["event"], envelope["info"], envelope["seq"]
        run_id, ts_millis = info["run_id"], info["ts_millis"]
        spelled = canonical.encode(envelope)
    except (CodecError, CanonicalError, LookupError, TypeError):
        raise LogError(seq, "its bytes are not an envelope", code=Code.LOG_BAD_EVENT) from None
    fits = (
        isinstance(event, dict)
        and isinstance(run_id, str)
        and type(ts_millis) is int
        and ts_millis >= 0
        and type(claimed) is int
        and len(envelope) == 3  # noqa: PLR2004 - event, info and seq
        and not any(isinstance(item, dict | list) for item in info.values())
        and spelled == data
    )
    if not fits:
        raise LogError(seq, "its bytes are not an envelope", code=Code.LOG_BAD_EVENT)
    if claimed != seq:
        raise LogError(seq, f"its envelope claims to be event {claimed}", code=Code.LOG_SEQ_GAP)
    # canonical, and info is flat: its opening is the last of its kind, for in a string quotes are escaped
    return event, data[len(b'{"event":') : data.rindex(b',"info":{')], info
