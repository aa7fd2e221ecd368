"""Verify: is a run what was recorded? No user code runs.

Chain, envelope rules, every artifact present and hashing to its id, manifest, plan id, index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs

from machine import canonical, codec
from machine.engine import reading
from machine.errors import Code, LogError, MachineError, NotFound, StoreError
from machine.events import (
    DomainEventRecorded,
    EffectIntended,
    Entry,
    Event,
    FactRecorded,
    FactValue,
    RunResumed,
    RunStarted,
    StateCompleted,
    StateFailed,
    chain_next,
)
from machine.kernel.history import History
from machine.kernel.snapshot import Snapshot
from machine.plan import order_of
from machine.stores.base import ZERO_CHAIN, Store

__all__ = ["Problem", "VerifyResult", "verify"]


@attrs.frozen
class Problem:
    """One thing that is wrong: an error code, where (`event 12`, `artifact 3f...`, `store`), and a sentence."""

    code: str
    where: str
    message: str

    def to_json(self) -> dict[str, str]:
        """Return the problem as a JSON object."""
        return attrs.asdict(self)


@attrs.frozen
class VerifyResult:
    """What was checked and what is wrong. `digest` is None when the log cannot be folded to its end."""

    run_id: str
    events: int
    artifacts: int
    digest: str | None
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """True when nothing is wrong."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return {
            "run_id": self.run_id,
            "ok": self.ok,
            "events": self.events,
            "artifacts": self.artifacts,
            "digest": self.digest,
            "problems": [problem.to_json() for problem in self.problems],
        }


def verify(run_id: str, *, store: Store, progress: Callable[[int], None] | None = None) -> VerifyResult:
    """Check one run and the store it is in, to the end, and return everything that is wrong.

    `progress` is called with the number of events checked so far. Raises `NotFound` for an unknown run.
    """
    problems: list[Problem] = []
    check = _Check(store, run_id, problems)
    if not store.run_exists(run_id):
        store.run_row(run_id)  # raises NotFound for a run that the index does not know either
    try:
        for count, entry in enumerate(check.entries(), 1):
            check.fold(entry)
            for artifact_id in _referenced(entry):
                check.artifact(artifact_id, f"event {entry.seq}")
            if isinstance(entry.event, RunStarted):
                check.opening(entry.seq, entry.event)
            for snapshot_id in _snapshots(entry.event):
                check.snapshot(snapshot_id, f"event {entry.seq}")
            if progress is not None:
                progress(count)
    except StoreError as exc:  # the medium gives way before the log ends
        problems.append(Problem(exc.code, "store", str(exc)))
    check.index()
    problems += [Problem(Code.STORE_CORRUPT, "store", text) for text in store.integrity_problems()]
    digest = check.digest()
    return VerifyResult(run_id, check.events, len(check.seen), digest, tuple(problems))


class _Check:
    def __init__(self, store: Store, run_id: str, problems: list[Problem]) -> None:
        self.store = store
        self.run_id = run_id
        self.problems = problems
        self.events = 0
        self.seen: set[str] = set()
        self.history: History | None = History()

    def entries(self) -> Iterator[Entry]:
        """Yield what can be decoded; one event that cannot be trusted does not hide the next."""
        chain = ZERO_CHAIN
        for stored in self.store.read_range(self.run_id):
            self.events += 1
            if chain_next(chain, stored.data) != stored.chain:
                self._wrong(
                    LogError(stored.seq, "its bytes do not fit the chain", code=Code.LOG_BROKEN_CHAIN)
                )
            chain = stored.chain
            try:
                entry = codec.decode_entry(stored.seq, stored.data)
            except LogError as exc:
                self._wrong(exc)
                continue
            if entry.run_id != self.run_id:
                self._wrong(
                    LogError(stored.seq, f"it belongs to run {entry.run_id!r}", code=Code.LOG_WRONG_RUN)
                )
            yield entry

    def fold(self, entry: Entry) -> None:
        if self.history is None:
            return
        try:
            self.history.advance(entry)
        except LogError as exc:
            self._wrong(exc)

    def artifact(self, artifact_id: str, where: str) -> bytes | None:
        """Read an artifact, which re-hashes it; each is looked at once."""
        if artifact_id in self.seen:
            return None
        self.seen.add(artifact_id)
        try:
            return self.store.get(artifact_id)
        except StoreError as exc:
            self.problems.append(Problem(exc.code, f"artifact {artifact_id}", f"{exc} (named by {where})"))
            return None

    def snapshot(self, snapshot_id: str, where: str) -> None:
        if snapshot_id in self.seen:
            return
        try:
            for artifact_id in Snapshot.open(snapshot_id, self.store.get).artifact_ids(skip=self.seen):
                self.artifact(artifact_id, where)
        except StoreError as exc:
            self.seen.add(snapshot_id)
            self.problems.append(Problem(exc.code, f"artifact {snapshot_id}", f"{exc} (named by {where})"))

    def opening(self, seq: int, started: RunStarted) -> None:
        """Check that the manifest is one, of this op, and that its input is the initial context."""
        try:
            manifest = reading.manifest_of(self.store, started)
            writes = {key: canonical.encode(value) for key, value in manifest.input_params.items()}
            snapshot, _, _ = Snapshot.empty(self.store.get).update(writes)
        except NotFound:
            return  # named already, as an artifact that is missing
        except MachineError as exc:
            self.problems.append(Problem(exc.code, f"artifact {started.manifest_id}", str(exc)))
            return
        if (manifest.op_id, snapshot.id) != (started.op_id, started.initial_snapshot_id):
            text = f"event {seq} does not say what its manifest says"
            self.problems.append(Problem(Code.LOG_BAD_EVENT, f"event {seq}", text))

    def index(self) -> None:
        if self.history is None:
            return
        try:
            row = self.store.run_row(self.run_id)
        except StoreError as exc:
            self.problems.append(Problem(exc.code, "store", str(exc)))
            return
        said = (row.status, row.head_seq, row.op_id)
        started = self.history.started
        is_so = (self.history.status.value, self.history.head_seq, started.op_id if started else "")
        if said != is_so:
            text = f"the index says {said} of run {self.run_id}, its log says {is_so}"
            self.problems.append(Problem(Code.LOG_INDEX, "store", text))

    def digest(self) -> str | None:
        if self.history is None or self.history.started is None:
            return None
        try:
            order = order_of(canonical.decode(self.store.get(self.history.plan_id or "")))
            unknown = sorted(self.history.states.keys() - set(order))
            if unknown:
                text = f"the log tells of {', '.join(unknown)}, which the recorded plan does not have"
                self.problems.append(Problem(Code.RECOVERY_STATE_NOT_IN_PLAN, "plan", text))
            return self.history.digest(order)
        except MachineError:
            return None

    def _wrong(self, exc: LogError) -> None:
        self.problems.append(Problem(exc.code, f"event {exc.seq}", str(exc)))
        self.history = None


def _referenced(entry: Entry) -> Iterable[str]:
    event = entry.event
    match event:
        case RunStarted():
            yield event.manifest_id
            yield event.plan_id
            noted = (entry.info.get("provenance_id"), entry.info.get("shared_past_id"))
            yield from (artifact_id for artifact_id in noted if isinstance(artifact_id, str))
        case RunResumed() if event.plan_id is not None:
            yield event.plan_id
        case FactRecorded():
            yield event.request_digest
            if isinstance(event.outcome, FactValue):
                yield event.outcome.payload_id
        case EffectIntended():
            yield event.request_digest
        case DomainEventRecorded() if event.payload_ref is not None:
            yield event.payload_ref
        case _:
            return


def _snapshots(event: Event) -> Iterable[str]:
    match event:
        case RunStarted():
            yield event.initial_snapshot_id
        case StateCompleted():
            yield event.context_snapshot_id
        case StateFailed() if event.failure_snapshot_id is not None:
            yield event.failure_snapshot_id
        case _:
            return
