"""Scans for secrets in stored runs with their artifacts, and in files.

A scan needs no key: it uses names and formats, and does not open what is sealed.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from typing import IO, Final, TypeAlias

import attrs

from machine import canonical
from machine.default_store import DEFAULT_STORE, with_default_store
from machine.engine import run_reader
from machine.engine.log_check import LogCheck
from machine.engine.scan_file import Leak, in_file
from machine.errors import CodecError, ConfigError
from machine.events import ArtifactKind
from machine.kernel.snapshot import values_in
from machine.secrets.policy import SecretPolicy, compiled
from machine.secrets.rules import rules_of
from machine.secrets.scan_findings import Found, found
from machine.stores.base import Store

Seen: TypeAlias = dict[SecretPolicy, set[str]]
"""The artifacts already scanned, by policy: another policy may find more in them."""

_ARTIFACT: Final = re.compile(rb'"([0-9a-f]{64})"')
_ENV: Final = "env"

_OWN_NAMES: Final = ("key", "idempotency_key", "invocation_key")
"""Fields of events whose names look like those of secrets, and whose values are none."""

_OWN_KINDS: Final = frozenset(
    {ArtifactKind.MANIFEST, ArtifactKind.PLAN, ArtifactKind.PROVENANCE, ArtifactKind.SHARED_PAST}
)
_LEADING: Final = _OWN_KINDS | {ArtifactKind.CONTEXT_SNAPSHOT}
"""Kinds of artifacts in which ids of others are followed; in data of users, hex digits may be anything."""

_VALUES: Final = frozenset(
    {ArtifactKind.CONTEXT_VALUE, ArtifactKind.CONTEXT_CHUNKS, ArtifactKind.CONTEXT_CHUNK}
)
"""Kinds of artifacts that are scanned with the snapshot that has the key of the value."""


@with_default_store()
def scan(run_id: str, *, store: Store = DEFAULT_STORE, policy: SecretPolicy | None = None) -> list[Leak]:
    """Return what looks like a secret in a run: its events and every artifact they lead to.

    `policy` is that of the run's own configuration unless given, without patterns that only
    older versions understood. Raises `NotFoundError`, `LogError` or `CorruptionError`.
    """
    return list(dict.fromkeys(leaks_in_run(run_id, store=store, policy=policy)))


def leaks_in_file(
    file: IO[bytes], *, policy: SecretPolicy | None = None, step: Callable[[int], object] = int
) -> Iterator[Leak]:
    """Yield what looks like a secret in a file, piece by piece; the path of a leak is its offset in bytes.

    `step` is called with the number of bytes scanned since its last call.
    """
    return in_file(file, rules_of(policy or SecretPolicy()), step)


def leaks_in_run(
    run_id: str,
    *,
    store: Store,
    policy: SecretPolicy | None = None,
    seen: Seen | None = None,
    step: Callable[[int], object] = int,
) -> Iterator[Leak]:
    """Yield what looks like a secret in a run, as `scan` does, with one artifact in memory.

    Artifacts in `seen` are skipped, and the scanned ones are added to it. `step` is called with the number of
    events scanned since its last call.
    """
    _, started = run_reader.first_entry(store, run_id)
    if policy is None:
        policy = _of_today(run_reader.manifest_of(store, started).run_config.secrets)
    run = _Run(store, policy, {} if seen is None else seen)
    for entry, stored in run_reader.checked(store, run_id, LogCheck(store.get)):
        yield from run.event(entry.seq, stored.data)
        step(1)
    yield from run.artifacts()


class _Run:
    """The scan of one run."""

    def __init__(self, store: Store, policy: SecretPolicy, seen: Seen) -> None:
        self.store = store
        self.rules = rules_of(policy)
        self.own_rules = rules_of(attrs.evolve(policy, allow=(*policy.allow, *_OWN_NAMES)))
        self.seen = seen.setdefault(policy, set())
        self.named: list[str] = []
        self.calls: dict[str, set[tuple[str, str | None]]] = {}
        """Namespaces by the id of a request or response; with an `env` answer, the id of its request too."""

    def event(self, seq: int, data: bytes) -> Iterator[Leak]:
        """Yield the leaks in an event, and collect the artifacts that it names."""
        yield from _leaks(f"event {seq}", found(self.own_rules, data))
        self._follow(data)
        event = canonical.decode(data)["event"]
        if event["type"] == "fact_recorded":
            namespace, request = event["namespace"], event["request_digest"]
            self.calls.setdefault(request, set()).add((namespace, None))
            if payload := event["outcome"].get("payload_id"):
                asked = request if namespace == _ENV else None
                self.calls.setdefault(payload, set()).add((namespace, asked))

    def artifacts(self) -> Iterator[Leak]:
        """Yield the leaks in the collected artifacts, and in those that they lead to."""
        while self.named:
            artifact_id = self.named.pop()
            if artifact_id in self.seen or not self.store.exists(artifact_id):
                continue
            self.seen.add(artifact_id)
            kind = self.store.kind(artifact_id)
            if kind != ArtifactKind.SECRET_PAYLOAD and kind not in _VALUES:
                yield from self._artifact(artifact_id, kind, self.store.get(artifact_id))

    def _follow(self, data: bytes) -> None:
        self.named += (match[1].decode() for match in _ARTIFACT.finditer(data))

    def _artifact(self, artifact_id: str, kind: str, data: bytes) -> Iterator[Leak]:
        if kind in _LEADING:
            self._follow(data)
        where = f"{kind} {artifact_id[:12]}"
        try:
            if kind == ArtifactKind.CONTEXT_SNAPSHOT:
                yield from self._context(data)
            else:
                yield from _leaks(where, self._found(artifact_id, kind, data))
        except (CodecError, UnicodeDecodeError):  # a user may store bytes of any kind
            for leak in in_file(io.BytesIO(data), self.rules, int):
                yield attrs.evolve(leak, where=where)

    def _found(self, artifact_id: str, kind: str, data: bytes) -> list[Found]:
        if kind == ArtifactKind.MANIFEST:
            data = _without_policy(data)
        elif kind == ArtifactKind.PROVENANCE:  # which holds hashes of code under the names of states
            data = canonical.encode({**canonical.decode(data), "code": {}, "source": {}})
        if kind in _OWN_KINDS:
            return found(self.own_rules, data)
        is_request = kind == ArtifactKind.FACT_REQUEST
        return [
            one
            for namespace, asked in sorted(self.calls.get(artifact_id, {("", None)}), key=str)
            for one in found(
                self.rules, data, namespace=namespace, request=is_request, under=self._variable(asked)
            )
        ]

    def _variable(self, request: str | None) -> str | None:
        """Return the name of the environment variable that a recorded request reads, or None."""
        if request is None or not self.store.exists(request):
            return None
        name = canonical.decode_stored(request, self.store.get(request)).get("name")
        return name if isinstance(name, str) else None

    def _context(self, data: bytes) -> Iterator[Leak]:
        """Yield the leaks in a node of a context; a value needs its key, which is in another artifact."""
        for key, value in values_in(data):
            whole = value.loaded(self.store.get)
            yield from _leaks("context", found(self.rules, b"{%b:%b}" % (canonical.encode(key), whole)))


def _of_today(policy: SecretPolicy) -> SecretPolicy:
    """Return the policy of a run without the patterns that RE2 cannot compile, as old recordings may have."""
    patterns = []
    for pattern in policy.patterns:
        with contextlib.suppress(ConfigError):
            compiled(pattern)
            patterns.append(pattern)
    if len(patterns) == len(policy.patterns):
        return policy
    fields = {field.name: getattr(policy, field.name) for field in attrs.fields(SecretPolicy)}
    return SecretPolicy(**{**fields, "patterns": patterns})


def _without_policy(manifest: bytes) -> bytes:
    """Return a manifest without its secret policy, whose names and patterns look like secrets."""
    value = canonical.decode(manifest)
    config = {name: field for name, field in value["run_config"].items() if name != "secrets"}
    return canonical.encode({**value, "run_config": config})


def _leaks(where: str, items: list[Found]) -> Iterator[Leak]:
    return (Leak(where, one.path, one.rule, one.length, one.at) for one in items)
