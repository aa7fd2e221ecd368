"""Verify: check a run without running user code.

The checks cover the chain, the rules of envelopes, every artifact and its hash, the manifest, the plan id and
the index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import attrs

from machine import codec
from machine.default_store import DEFAULT_STORE, with_default_store
from machine.engine.fork_prefix import shared_past_id
from machine.engine.log_check import LogCheck, check_content
from machine.envelope import chain_next
from machine.errors import Code, CorruptionError, LogError, NotFoundError, StoreError
from machine.events import ArtifactKind, Entry
from machine.kernel.outputs import piece_ids
from machine.kernel.snapshot import Snapshot
from machine.kernel.value_chunks import chunk_ids
from machine.recordings import run_contents
from machine.recordings.result_json import fields_json
from machine.stores.argument_checks import indexed_status
from machine.stores.base import ZERO_CHAIN, Store

_LISTS: Final[Mapping[str, tuple[Callable[[str, bytes], list[str]], ArtifactKind]]] = {
    ArtifactKind.CONTEXT_CHUNKS: (chunk_ids, ArtifactKind.CONTEXT_CHUNK),
    ArtifactKind.OUTPUT_PIECES: (piece_ids, ArtifactKind.OUTPUT_PIECE),
}
"""The reader of each kind of list of artifacts, and the kind of what is in it."""


@attrs.frozen
class Problem:
    """One fault: an error code, its location (`event 12`, `artifact 3f...`, `store`), and a sentence."""

    code: str
    where: str
    message: str

    def to_json(self) -> dict[str, str]:
        """Return the problem as a JSON object."""
        return fields_json(self)


@attrs.frozen
class VerifyResult:
    """The result of a verification; `digest` is None when the log cannot be folded to its end."""

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
        return {"run_id": self.run_id, "ok": self.ok, **fields_json(self)}


@with_default_store()
def verify(
    run_id: str,
    *,
    store: Store = DEFAULT_STORE,
    progress: Callable[[int], None] | None = None,
    whole_store: bool = False,
) -> VerifyResult:
    """Check one run completely, and return every fault.

    `progress` is called with the number of events checked so far. `whole_store` also checks what lies below all
    runs, as `Store.integrity_problems` does, and takes as long as the store is large. Raises `NotFoundError` for an
    unknown run, and `OtherStoreError` (`run_newer_format`) for one that only a newer version can judge.
    """
    problems: list[Problem] = []
    check = _Check(store, run_id, problems)
    if not store.run_exists(run_id):
        store.run_row(run_id)  # raises NotFoundError for a run that the index does not know either
    try:
        for count, entry in enumerate(check.entries(), 1):
            check.entry(entry)
            if progress is not None:
                progress(count)
    except StoreError as exc:  # the medium fails before the log ends
        if exc.code == Code.RUN_NEWER_FORMAT:
            raise
        problems.append(Problem(exc.code, "store", str(exc)))
    check.index()
    if whole_store:
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
        self.known: set[tuple[str, str]] = set()
        self.walked: run_contents.Walked = {}
        self.rules: LogCheck | None = LogCheck(store.get)
        """None from the first broken rule on: what follows it has no meaning."""

    def entries(self) -> Iterator[Entry]:
        """Yield the entries that can be decoded; an invalid event does not hide those after it."""
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

    def entry(self, entry: Entry) -> None:
        """Check the artifacts that an entry names, and the rules of logs."""
        before = len(self.problems)
        self.named(entry, entry.seq)
        self.shared(entry)
        if self.rules is None:
            return
        try:
            self.rules.add(entry)
        except LogError as exc:
            self._wrong(exc)
        except StoreError as exc:  # an artifact that the rules need
            if exc.code == Code.RUN_NEWER_FORMAT:
                raise
            self.rules = None
            if len(self.problems) == before:  # else it is reported already
                self.problems.append(Problem(exc.code, f"event {entry.seq}", str(exc)))

    def artifact(self, artifact_id: str, kind: str, where: str) -> None:
        """Read an artifact, which re-hashes it; each is checked once for each kind."""
        if (artifact_id, kind) in self.known:
            return
        self.known.add((artifact_id, kind))
        self.seen.add(artifact_id)
        try:
            if kind in _LISTS:  # the parts first: one that is missing is named itself
                before = len(self.problems)
                part_ids, part = _LISTS[kind]
                for part_id in part_ids(artifact_id, self.store.get(artifact_id)):
                    self.artifact(part_id, part, where)
                if len(self.problems) > before:
                    return
            said = None if self.rules is None else self.rules.context_format
            check_content(artifact_id, kind, self.store.get, said)
        except StoreError as exc:
            self.problems.append(Problem(exc.code, f"artifact {artifact_id}", f"{exc} (named by {where})"))

    def named(self, entry: Entry, seq: int) -> None:
        """Check everything named by an entry that the event at `seq` led to."""
        for artifact_id, kind in run_contents.named(entry):
            self.artifact(artifact_id, kind, f"event {seq}")
        for snapshot_id in run_contents.snapshots(entry.event):
            self.snapshot(snapshot_id, f"event {seq}")
        for seal_id in run_contents.seals_beside(entry):
            self.seal(seal_id)

    def shared(self, entry: Entry) -> None:
        """Check what a fork was given to go through."""
        try:
            for shared in run_contents.shared_entries(entry, self.store.get):
                self.named(shared, entry.seq)
        except NotFoundError:
            return  # reported already as a missing artifact
        except StoreError as exc:
            where = f"artifact {shared_past_id(entry)}"
            self.problems.append(Problem(exc.code, where, str(exc)))

    def seal(self, seal_id: str) -> None:
        """Check a sealed secret, which may be absent; a changed seal is no damage of the run."""
        try:
            self.store.get(seal_id)
        except NotFoundError:
            return
        except CorruptionError as exc:
            text = f"a sealed secret was changed and does not open: {exc}"
            self.problems.append(Problem(Code.SEAL_NOT_OPENED, f"artifact {seal_id}", text))

    def snapshot(self, snapshot_id: str, where: str) -> None:
        try:
            if ("", snapshot_id) in self.walked:
                return
            for artifact_id, kind in Snapshot.open(snapshot_id, self.store.get).parts(self.walked):
                if kind is ArtifactKind.CONTEXT_SNAPSHOT:
                    self.seen.add(artifact_id)  # it was read to be opened
                else:
                    self.artifact(artifact_id, kind, where)
        except StoreError as exc:
            self.walked["", snapshot_id] = 0
            self.seen.add(snapshot_id)
            self.problems.append(Problem(exc.code, f"artifact {snapshot_id}", f"{exc} (named by {where})"))

    def index(self) -> None:
        if self.rules is None:
            return
        history = self.rules.history
        try:
            row = self.store.run_row(self.run_id)
        except StoreError as exc:
            self.problems.append(Problem(exc.code, "store", str(exc)))
            return
        said = (indexed_status(row.status), row.head_seq, row.op_id)
        started = history.started
        is_so = (history.status.value, history.head_seq, started.op_id if started else "")
        if said != is_so:
            text = f"the index says {said} of run {self.run_id}, its log says {is_so}"
            self.problems.append(Problem(Code.LOG_INDEX, "store", text))

    def digest(self) -> str | None:
        if self.rules is None or self.rules.history.started is None:
            return None
        return self.rules.history.digest(self.rules.end())

    def _wrong(self, exc: LogError) -> None:
        self.problems.append(Problem(exc.code, f"event {exc.seq}", str(exc)))
        self.rules = None
