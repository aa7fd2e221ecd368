"""Checks of arguments that every store makes before it touches its medium, so that all are equally strict.

Nothing here reads stored data, and nothing here is durable: these are rules about arguments alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, NamedTuple

from machine import canonical
from machine.errors import (
    Code,
    ConcurrencyError,
    IdError,
    NotFoundError,
    OtherStoreError,
    SecretKeyError,
    UsageError,
)
from machine.events import Artifact, ArtifactKind
from machine.ids import ArtifactId, RunId
from machine.kernel.run_index import RunRow
from machine.kernel.run_status import INTERRUPTED, RunStatus
from machine.stores.base import MAX_ARTIFACT_BYTES, Beginning, Message, StoredEvent
from machine.stores.lease import HeldLease, Lease, lease_is_held

MAX_SEQ: Final = 2**63 - 1
"""The largest possible seq: the maximum of a signed 64-bit column."""

_CHAIN_BYTES: Final = 32
_ID_DIGITS: Final = 64
_MAX_KIND: Final = 64
_MAX_MESSAGE_KIND: Final = 256
_MAX_KEY_ID: Final = 64
_MAX_WRAPPED: Final = 4096
_RUN_ID_CHARACTERS: Final = frozenset("0123456789abcdef-")


class Terms(NamedTuple):
    """The conditions of an append, as in `Store.append`."""

    lease: Lease | None = None
    inbox_seen: int | None = None
    takes: Collection[int] = ()
    awaits: Collection[tuple[str, str]] = ()
    messages: Sequence[Message] = ()
    begins: Beginning | None = None

    @property
    def usual(self) -> bool:
        """True when there is no condition but the lease."""
        return self[1:] == _NO_TERMS


_NO_TERMS: Final = Terms()[1:]


def check_append(
    run_id: str,
    expected_seq: int,
    events: Sequence[StoredEvent],
    artifacts: Sequence[Artifact],
    terms: Terms,
) -> list[tuple[bytes, str, bytes]]:
    """Refuse an append that no store could accept, and return the artifacts: the bytes of each id, kind, data.

    Raises `IdError` (run id, artifact id), `UsageError` (seqs, types) or `OtherStoreError` (`artifact_too_large`).
    """
    RunId(run_id)
    if terms.lease is not None and terms.lease.run_id != run_id:
        raise UsageError(f"the lease is on run {terms.lease.run_id}, not on {run_id}")
    if not _is_whole(expected_seq, 0, MAX_SEQ - len(events)):
        raise UsageError(f"expected_seq is {expected_seq!r}, not the seq of a log's last event")
    if not terms.usual:
        _check_terms(terms, events)
    due = expected_seq
    for event in events:
        due += 1
        seq, data, chain = event
        if seq != due or type(data) is not bytes or type(chain) is not bytes or len(chain) != _CHAIN_BYTES:
            raise _bad_event(event, due)
    if terms.begins is not None:
        _check_begins(run_id, events, terms.begins)
    blobs: list[tuple[bytes, str, bytes]] = []
    for artifact_id, kind, data in artifacts:
        key = artifact_key(artifact_id)
        if key is None:
            raise IdError(f"ArtifactId {artifact_id!r} is invalid: {ArtifactId.rule}")
        if type(kind) is not ArtifactKind:
            check_kind(kind)
        check_size(data)
        blobs.append((key, str(kind), data))
    return blobs


def _check_terms(terms: Terms, events: Sequence[StoredEvent]) -> None:
    if (terms.takes or terms.awaits) and not events:
        raise UsageError("signals are taken and awaited by the events of an append, and this one has none")
    if terms.inbox_seen is not None and not _is_whole(terms.inbox_seen, 0, MAX_SEQ):
        raise UsageError(f"inbox_seen is {terms.inbox_seen!r}, not the number of a message or 0")
    if not all(_is_whole(number, 1, MAX_SEQ) for number in terms.takes):
        raise UsageError(f"takes is {terms.takes!r}, not the numbers of signals")
    for name, correlation in terms.awaits:
        check_signal_names(name, correlation)
    for number, message in enumerate(terms.messages, 1):
        check_message(message.kind, message.data)
        if message.number != number or not _is_whole(message.ts_millis, 0, MAX_SEQ):
            raise UsageError(f"message {message.number!r} is not message {number}, or has no time")
    if terms.messages and (not events or events[0].seq != 1):
        raise UsageError("messages come with the whole log of a run")


def _check_begins(run_id: str, events: Sequence[StoredEvent], begins: Beginning) -> None:
    next_id = begins.lease.run_id
    if not events or not begins.events or next_id == run_id:
        raise UsageError(f"run {next_id} begins with the events that end run {run_id}, or not at all")
    check_append(next_id, 0, begins.events, (), Terms(begins.lease, messages=begins.messages))


def check_awaits(status: str) -> None:
    """Refuse to await signals for a run that is not suspended."""
    if status != RunStatus.SUSPENDED:
        raise UsageError(f"only a suspended run awaits signals, and this one is {status}")


def check_signal(name: str, correlation: str, value: Any, expires_ms: int | None) -> bytes:
    """Return a signal's value as canonical JSON. Raises `UsageError`, `CanonicalError` or `OtherStoreError`."""
    check_signal_names(name, correlation)
    if expires_ms is not None and not _is_whole(expires_ms, 0, MAX_SEQ):
        raise UsageError(f"expires_ms is {expires_ms!r}: it must be a time in milliseconds")
    encoded = canonical.encode(value)
    check_size(encoded)
    return encoded


def check_signal_names(name: str, correlation: str) -> None:
    """Refuse a name or a correlation of a signal that is not 1 to 256 printable characters."""
    for what, given in (("name", name), ("correlation", correlation)):
        if not _is_text(given) or not 1 <= len(given) <= _MAX_MESSAGE_KIND or not given.isprintable():
            raise UsageError(
                f"the {what} of a signal is 1 to {_MAX_MESSAGE_KIND} printable characters, not {given!r}"
            )


def _bad_event(event: StoredEvent, seq: int) -> UsageError:
    if event.seq != seq:
        return UsageError(
            f"event {event.seq!r} cannot be appended after event {seq - 1}",
            hint="seqs begin at 1 and have no gaps",
        )
    return UsageError(
        f"the data of event {seq} must be bytes, and its chain value {_CHAIN_BYTES} of them",
    )


def check_kind(kind: str) -> None:
    """Refuse an artifact kind that is not 1 to 64 printable characters."""
    if not _is_text(kind) or not 1 <= len(kind) <= _MAX_KIND or not kind.isprintable():
        raise UsageError(f"artifact kind {kind!r} is invalid: 1 to {_MAX_KIND} printable characters")


def check_size(data: bytes) -> None:
    """Refuse artifact bytes that are not `bytes` or are too many."""
    if type(data) is not bytes:
        raise UsageError(f"an artifact's data must be bytes, not {type(data).__name__}")
    if len(data) > MAX_ARTIFACT_BYTES:
        raise OtherStoreError(
            f"an artifact of {len(data)} bytes is too large: the most a store takes is {MAX_ARTIFACT_BYTES}",
            code=Code.ARTIFACT_TOO_LARGE,
            details={"size": len(data), "limit": MAX_ARTIFACT_BYTES},
            hint="store it elsewhere and record where",
        )


def check_message(kind: str, data: Any) -> bytes:
    """Return a message's data as canonical JSON. Raises `UsageError`, `CanonicalError` or `OtherStoreError`."""
    if not _is_text(kind) or not 1 <= len(kind) <= _MAX_MESSAGE_KIND or not kind.isprintable():
        raise UsageError(f"message kind {kind!r} is invalid: 1 to {_MAX_MESSAGE_KIND} printable characters")
    encoded = canonical.encode(data)
    check_size(encoded)
    return encoded


def check_data_key(run_id: str, key_id: str, wrapped: bytes) -> str:
    """Return the id of a run that receives a data key. Raises `IdError` or `UsageError`."""
    check_key_id(key_id)
    check_wrapped(wrapped)
    return str(RunId(run_id))


def check_key_id(key_id: str) -> None:
    """Refuse the id of a key that is not 1 to 64 printable characters."""
    if not _is_text(key_id) or not 1 <= len(key_id) <= _MAX_KEY_ID or not key_id.isprintable():
        raise UsageError(f"key id {key_id!r} is invalid: 1 to {_MAX_KEY_ID} printable characters")


def check_wrapped(wrapped: bytes) -> bytes:
    """Return a wrapped data key unchanged. Raises `UsageError` when it is invalid."""
    if type(wrapped) is not bytes or not 1 <= len(wrapped) <= _MAX_WRAPPED:
        raise UsageError(f"a wrapped data key is 1 to {_MAX_WRAPPED} bytes")
    return wrapped


def other_key(url: str, noted: str | None, given: str) -> SecretKeyError:
    """Return the error for a key whose id is not the stored one."""
    return SecretKeyError(
        f"the store {url} keeps its secrets under the key {noted or '(none yet)'}, not under {given}",
        code=Code.SECRET_KEY_WRONG,
        details={"url": url, "expected": noted, "found": given},
        hint="nothing was written; use the key that this store was first used with",
    )


def check_limit(limit: int) -> int:
    """Return a page's row limit, reduced to what a store can count. Raises `UsageError` below 1."""
    if not _is_whole(limit, 1):
        raise UsageError(f"limit is {limit!r}: it must be a whole number from 1 up")
    return min(limit, 2**31)


def check_due(now_ms: int, limit: int) -> tuple[int, int]:
    """Return the time and the limit of a look for due runs, reduced to what a store can compare."""
    if not _is_whole(now_ms, 0):
        raise UsageError(f"now_ms is {now_ms!r}: it must be a whole number from 0 up")
    return min(now_ms, MAX_SEQ), check_limit(limit)


def check_cursor(cursor: str | None) -> str | None:
    """Return a page's cursor unchanged. Raises `UsageError` when no page can have returned it."""
    if cursor is None:
        return None
    try:
        return str(RunId(cursor))
    except IdError:
        raise unknown_cursor(cursor) from None


def unknown_cursor(cursor: str) -> UsageError:
    """Return the error for a cursor that no page can have returned."""
    return UsageError(f"cursor {cursor!r} is not one that a page of runs returned")


def as_told(row: RunRow, held: Callable[[], HeldLease | None], clock: Callable[[], int]) -> RunRow:
    """Return an index row as reported: a running run is interrupted when nobody seems to hold its lease."""
    if row.status == RunStatus.RUNNING and not lease_is_held(held(), clock()):
        return row._replace(status=INTERRUPTED)
    return row


def indexed_status(status: str | None) -> str | None:
    """Return the status in the index that a reported status stands for: an interrupted run is there as running."""
    return RunStatus.RUNNING.value if status == INTERRUPTED else status


def check_range(from_seq: int, to_seq: int | None, head_seq: int) -> tuple[int, int]:
    """Return the first and last seq to read of a log that ends at `head_seq`."""
    return max(from_seq, 1), head_seq if to_seq is None else min(to_seq, head_seq)


def _is_whole(value: object, least: int, most: int | None = None) -> bool:
    return isinstance(value, int) and value >= least and (most is None or value <= most)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def is_run_prefix(prefix: str) -> bool:
    """Say whether a run id could begin like this."""
    return _RUN_ID_CHARACTERS.issuperset(prefix)


def artifact_key(artifact_id: str) -> bytes | None:
    """Return the 32 bytes of an artifact id, or None when it is invalid."""
    # the rule of ArtifactId at a third of its cost, because every append calls this
    try:
        key = bytes.fromhex(artifact_id)
    except (TypeError, ValueError):
        return None
    return key if len(artifact_id) == _ID_DIGITS and key.hex() == artifact_id else None


def closed(url: str) -> OtherStoreError:
    """Return the error for the use of a closed store."""
    return OtherStoreError(f"the store {url} is closed", code=Code.STORE_CLOSED)


def stale(run_id: str, expected: int, actual: int) -> ConcurrencyError:
    """Return the error for an append whose expected head is not the actual one."""
    return ConcurrencyError(
        f"run {run_id} is at event {actual}, not {expected} as expected",
        details={"run_id": str(run_id), "expected": expected, "actual": actual},
        hint="somebody else appended to it; read the log again",
    )


def inbox_moved(run_id: str, seen: int, last: int) -> ConcurrencyError:
    """Return the error for an append by a caller that has not seen the run's last message."""
    return ConcurrencyError(
        f"run {run_id} has received message {last}, and its driver has seen those up to {seen}",
        code=Code.INBOX_MOVED,
        details={"run_id": str(run_id), "seen": seen, "last": last},
        hint="nothing was written; read the inbox again",
    )


def signal_awaited(run_id: str) -> ConcurrencyError:
    """Return the error for a driver that has not seen a signal which its suspended run awaits."""
    return ConcurrencyError(
        f"there is a signal that run {run_id} waits for, and its driver has not seen it",
        code=Code.INBOX_MOVED,
        details={"run_id": str(run_id)},
        hint="nothing was written; read the signals again",
    )


def signal_taken(run_id: str, number: int) -> ConcurrencyError:
    """Return the error for an append that hands out a signal which is not there any more."""
    return ConcurrencyError(
        f"run {run_id} cannot take signal {number}: it was given to a wait already, or there is none",
        code=Code.SIGNAL_TAKEN,
        details={"run_id": str(run_id), "number": number},
        hint="nothing was written; read the signals again",
    )


def invocation_taken(key: str, run_id: str, other: str) -> ConcurrencyError:
    """Return the error for a run's first append with an invocation key that `other` has."""
    return ConcurrencyError(
        f"run {run_id} cannot start with invocation key {key!r}: run {other} has it",
        code=Code.INVOCATION_TAKEN,
        details={"run_id": other, "invocation_key": key},
        hint="nothing was written; go on with the run that has it, or use another key",
    )


def no_run(run_id: str) -> NotFoundError:
    """Return the error for a run that does not exist."""
    return NotFoundError(f"there is no run {run_id!r} in this store", code=Code.RUN_NOT_FOUND)


def no_artifact(artifact_id: str) -> NotFoundError:
    """Return the error for an artifact that does not exist."""
    return NotFoundError(f"there is no artifact {artifact_id!r} in this store", code=Code.ARTIFACT_NOT_FOUND)
