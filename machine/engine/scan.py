"""Looking for secrets in what is stored already: a run with everything it names, or the bytes of a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import attrs

from machine import canonical
from machine.engine import reading
from machine.engine.checking import LogCheck
from machine.errors import CodecError
from machine.kernel.snapshot import Snapshot
from machine.secrets.handles.find import Found, found
from machine.secrets.handles.rules import Rules, rules_of
from machine.secrets.policy import SecretPolicy
from machine.stores.base import Store

__all__ = ["Leak", "scan", "scan_bytes"]

_ARTIFACT: Final = re.compile(rb'"([0-9a-f]{64})"')


@attrs.frozen
class Leak:
    """What looks like a secret: where it stands and by which rule, never the value; `length` is in characters."""

    where: str
    path: str
    rule: str
    length: int


def scan(run_id: str, *, store: Store, policy: SecretPolicy | None = None) -> list[Leak]:
    """Return what looks like a secret in a run: its events and every artifact they lead to.

    `policy` is that of the run's own configuration unless given. Raises `NotFound`, `LogError` or `Corruption`.
    """
    _, started = reading.first_entry(store, run_id)
    if policy is None:
        policy = reading.manifest_of(store, started).run_config.secrets
    rules = rules_of(policy)
    leaks: list[Leak] = []
    named: list[str] = []
    for entry, stored in reading.checked(store, run_id, LogCheck(store.get)):
        leaks += _leaks(rules, f"event {entry.seq}", canonical.decode(stored.data))
        named += _named_in(stored.data)
        snapshot_id = getattr(
            entry.event, "context_snapshot_id", getattr(entry.event, "initial_snapshot_id", None)
        )
        if snapshot_id is not None:  # apart from its artifacts: a value and its key are in two of them
            leaks += _leaks(rules, "context", Snapshot.open(snapshot_id, store.get).to_dict())
    leaks = list(dict.fromkeys(leaks))
    seen: set[str] = set()
    while named:
        artifact_id = named.pop(0)
        if artifact_id in seen or not store.exists(artifact_id):
            continue
        seen.add(artifact_id)
        data = store.get(artifact_id)
        where = f"{store.kind(artifact_id)} {artifact_id[:12]}"
        try:
            leaks += _leaks(rules, where, canonical.decode(data))
        except CodecError:
            leaks += (attrs.evolve(leak, where=where) for leak in scan_bytes(data, policy=policy))
        named += _named_in(data)
    return leaks


def scan_bytes(data: bytes, *, policy: SecretPolicy | None = None) -> list[Leak]:
    """Return what looks like a secret in the bytes of a file, line by line; the path is the offset in bytes."""
    rules = rules_of(policy or SecretPolicy())
    leaks: list[Leak] = []
    start = 0
    for line in data.split(b"\n"):
        if rules.may_hold(line):
            text = line.decode("latin-1")  # a character is a byte
            leaks += (
                Leak("file", f"offset {start + item.at}", item.rule, item.length)
                for item in _secrets(rules, text)
            )
        start += len(line) + 1
    return leaks


def _leaks(rules: Rules, where: str, value: Any) -> Iterator[Leak]:
    for item in _secrets(rules, value):
        yield Leak(where, item.path, item.rule, item.length)


def _secrets(rules: Rules, value: Any) -> list[Found]:
    return [item for item in found(rules, value) if not item.handle]


def _named_in(data: bytes) -> list[str]:
    return [match[1].decode() for match in _ARTIFACT.finditer(data)]
