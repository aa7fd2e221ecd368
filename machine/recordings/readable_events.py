"""Events of a run as blocks that people review: contents in place of ids, and no number, time or sequence.

`Course.block` and `Course.event` are inverse to each other: an id is the hash of the contents, and a context is
what its state wrote on the context it began on, which follows from the events before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from machine import canonical, codec
from machine.engine.log_check import Joins
from machine.events import MAX_INLINE_PAYLOAD, Artifact, ArtifactKind, Entry
from machine.ids import piece_key, stream_key
from machine.io.call_identity import path_key
from machine.kernel.history import History
from machine.kernel.run_status import RunStatus
from machine.kernel.snapshot import Snapshot
from machine.recordings.readable_outputs import artifacts_of, content_of

RUN: Final = "run"
"""The place of events that belong to no state."""

_OWN_KEY: Final = re.compile(
    r"@(?P<state>[^/]*)/(?P<attempt>\d{1,9})/(?P<namespace>.*)/(?P<digest>[0-9a-f]{64})/(?P<number>r?\d{1,9})",
    re.DOTALL,
)
_OWN_WAIT: Final = re.compile(
    r"@(?P<state>[^/]*)/wait/(?P<kind>[a-z]+)/(?P<digest>[0-9a-f]{64})/(?P<number>\d{1,9})"
)


@attrs.frozen
class Block:
    """A named part of a readable bundle. `place` is a state, with its attempt where the event names it."""

    place: str
    kind: str
    detail: str = ""
    content: Any = None

    @property
    def state_id(self) -> str:
        """The state of the event, or `run`."""
        return self.place.partition("/")[0]

    @property
    def name(self) -> str:
        """The name of the block in the file."""
        return " ".join(part for part in (self.place, self.kind, self.detail) if part)


class Course:
    """The events of a run in their order, with what follows from those that were passed."""

    def __init__(self, load: Callable[[str], bytes], keep: Callable[[Artifact], object]) -> None:
        self._load = load
        self._keep = keep
        self._made: dict[str, bytes] = {}
        self._history = History()
        self._joins = Joins(self._get)
        self._requests: dict[str, str] = {}  # the last one of each state
        self.opening: dict[str, str] = {}
        """The ids that the first event of a bundle names, by field."""
        self.context_format = 1
        """The rules by which the run stores contexts, as its manifest has them."""

    def _get(self, artifact_id: str) -> bytes:
        data = self._made.get(artifact_id)
        return self._load(artifact_id) if data is None else data

    def advance(self, entry: Entry) -> None:
        """Pass an event."""
        self._history.advance(entry)

    # -- from an event to its block --------------------------------------------------------------------------

    def block(self, entry: Entry) -> Block:
        """Return the block of the next event. Raises `ValueError` for one that has none."""
        body = codec.event_to_json(entry.event)
        kind = body.pop("type")
        state_id = body.pop("state_id", None)
        place = RUN if state_id is None else str(state_id)
        if "attempt" in body and kind != "retry_scheduled":
            place = f"{place}/{body.pop('attempt')}"
        detail = ""
        match kind:
            case "run_started":
                for name in ("manifest_id", "plan_id", "initial_snapshot_id"):
                    body.pop(name)
            case "fact_recorded" | "effect_intended" | "wait_begun":
                detail = self._without_ids(body, place)
            case "domain_event":
                if "payload_ref" in body:
                    body["payload"] = self._json(body.pop("payload_ref"))
                if (stored := body.pop("artifact_kind", None)) is not None:
                    body["content"] = content_of(body["payload"]["artifact_id"], stored, self._get)
            case "state_entered":
                self._take(body, "base_snapshot_id", self._base(place.partition("/")[0]).id)
            case "state_completed":
                snapshot_id, wrote = body.pop("context_snapshot_id"), body.pop("wrote", None)
                body |= self._written(place, snapshot_id, wrote)
                if "next_input_id" in body:
                    body["next_run"] = self._json(body.pop("next_input_id"))
            case "state_failed":
                if "failure_snapshot_id" in body:
                    body["left"] = self._written(place, body.pop("failure_snapshot_id"), None)
            case "cleanup_begun":
                self._take(body, "base_snapshot_id", self._left().id)
            case "run_completed":
                if "next_input_id" in body:
                    self._take(body, "next_input_id", next(iter(self._history.next_inputs.values()), ""))
                if "final_snapshot_id" in body:
                    self._take(body, "final_snapshot_id", self._final().id)
                else:
                    body["context"] = None
            case "run_resumed":
                if "plan_id" in body:
                    body["plan"] = self._json(body.pop("plan_id"))
        notes = {name: value for name, value in entry.info.items() if name not in ("run_id", "ts_millis")}
        if notes:
            body["info"] = notes
        return Block(place, kind, detail, body or None)

    def _take(self, body: dict[str, Any], name: str, due: str) -> None:
        if body.pop(name) != due:
            raise ValueError(f"its {name} is not the one that follows from the events before")

    def _json(self, artifact_id: str) -> Any:
        return canonical.decode(self._get(artifact_id))

    def _without_ids(self, body: dict[str, Any], place: str) -> str:
        state_id, _, attempt = place.partition("/")
        key, digest, namespace = body.pop("key"), body.pop("request_digest"), body.pop("namespace", None)
        if "piece" in body:
            key = stream_key(key)
        own, wait = _OWN_KEY.fullmatch(key), _OWN_WAIT.fullmatch(key)
        if namespace is None:  # of a version that did not record the namespace of an effect
            namespace, body["namespace"] = "-" if own is None else own["namespace"], None
        found = own or wait
        named = own["namespace"] if own is not None else f"wait.{wait['kind']}" if wait is not None else None
        if found is not None and (found["state"], named, found["digest"]) == (state_id, namespace, digest):
            if found["number"] != "0":
                body["call"] = found["number"]
            if own is not None and own["attempt"] != attempt:
                body["made_in"] = int(own["attempt"])
        else:
            body["key"] = key
        if self._requests.get(state_id) != digest:
            self._requests[state_id] = digest
            body["request"] = self._json(digest)
        outcome = body.pop("outcome", None)
        if outcome is not None:
            body |= self._outcome(outcome)
        return str(namespace)

    def _outcome(self, outcome: Mapping[str, Any]) -> dict[str, Any]:
        if outcome["type"] == "error":
            return {"error": outcome["error"], "error_kind": outcome["kind"]}
        again = {"again": outcome["again"]} if "again" in outcome else {}
        return {"response": self._json(outcome["payload_id"]), **again}

    def _written(self, place: str, snapshot_id: str, wrote: list[str] | None) -> dict[str, Any]:
        base, now = self._base_of_open(place), Snapshot.open(snapshot_id, self._get)
        keys = {*base.keys(), *now.keys()} if wrote is None else wrote
        changed = [key for key in sorted(keys) if wrote is not None or base.get(key) != now.get(key)]
        written = {key: now.decoded(key) for key in changed if now.get(key) is not None}
        removed = [key for key in changed if now.get(key) is None]
        if self._snapshot(base, written, removed).id != snapshot_id:
            raise ValueError("its context is not the one it began on with what it wrote")
        return {"wrote": written, **({"removed": removed} if removed else {})}

    # -- from a block to its event ---------------------------------------------------------------------------

    def event(self, block: Block) -> tuple[bytes, dict[str, Any]]:
        """Return the canonical body of the next event and its informational fields. Raises `ValueError`."""
        body = dict(block.content or {})
        info = body.pop("info", {})
        if not isinstance(info, dict):
            raise TypeError("`info` is no object")
        place, _, attempt = block.place.partition("/")
        if attempt:
            body["attempt"] = int(attempt)
        match block.kind:
            case "run_started":
                built = self.opening.pop("provenance_id", None)
                info = info if built is None else {**info, "provenance_id": built}
                body |= self.opening
            case "fact_recorded" | "effect_intended" | "wait_begun":
                self._with_ids(body, place, block.detail, is_fact=block.kind == "fact_recorded")
            case "domain_event":
                data = canonical.encode(body.get("payload"))
                if len(data) > MAX_INLINE_PAYLOAD:
                    body.pop("payload")
                    body["payload_ref"] = self.add(ArtifactKind.DOMAIN_PAYLOAD, data)
                if "content" in body:
                    body["artifact_kind"], parts = artifacts_of(body.pop("content"))
                    for each in parts:
                        self._keep(each)
            case "state_entered":
                body["base_snapshot_id"] = self._base(place).id
            case "state_completed":
                written, removed = body.pop("wrote"), body.pop("removed", [])
                body["context_snapshot_id"] = self._snapshot(self._base_of_open(place), written, removed).id
                if not self._history.one_by_one:
                    body["wrote"] = sorted([*written, *removed])
                if "next_run" in body:
                    given = canonical.encode(body.pop("next_run"))
                    body["next_input_id"] = self.add(ArtifactKind.NEXT_INPUT, given)
            case "state_failed":
                if "left" in body:
                    left = body.pop("left")
                    made = self._snapshot(self._base_of_open(place), left["wrote"], left.get("removed", []))
                    body["failure_snapshot_id"] = made.id
            case "cleanup_begun":
                body["base_snapshot_id"] = self._left().id
            case "run_completed":
                if body.pop("context", False) is not None:
                    body["final_snapshot_id"] = self._final().id
                if body.get("status") == RunStatus.COMPLETED and self._history.next_inputs:
                    body["next_input_id"] = next(iter(self._history.next_inputs.values()))
            case "run_resumed":
                if "plan" in body:
                    body["plan_id"] = self.add(ArtifactKind.PLAN, canonical.encode(body.pop("plan")))
        if place != RUN:
            body["state_id"] = place
        return canonical.encode({"type": block.kind, **body}), info

    def _with_ids(self, body: dict[str, Any], place: str, namespace: str, *, is_fact: bool) -> None:
        if "request" in body:
            request = canonical.encode(body.pop("request"))
            self._requests[place] = self.add(ArtifactKind.FACT_REQUEST, request)
        digest = self._requests[place]
        call, made_in = body.pop("call", "0"), body.pop("made_in", body["attempt"])
        if "key" not in body:
            body["key"] = path_key(place, made_in, namespace, digest, call)
        if "piece" in body:
            body["key"] = piece_key(body["key"], body["piece"])
        body["request_digest"] = digest
        if body.setdefault("namespace", namespace) is None:
            body.pop("namespace")
        if not is_fact:
            return
        if "error" in body:
            body["outcome"] = {"error": body.pop("error"), "kind": body.pop("error_kind"), "type": "error"}
            return
        payload = self.add(ArtifactKind.FACT_PAYLOAD, canonical.encode(body.pop("response")))
        again = {"again": body.pop("again")} if "again" in body else {}
        body["outcome"] = {"payload_id": payload, "type": "value", **again}

    # -- contexts --------------------------------------------------------------------------------------------

    def initial(self, values: Mapping[str, Any]) -> str:
        """Return the id of a run's first context, and keep its artifacts."""
        return self._snapshot(Snapshot.empty(self._get), values, []).id

    def add(self, kind: ArtifactKind, data: bytes) -> str:
        """Keep an artifact and return its id."""
        artifact = Artifact(canonical.artifact_id(data), kind, data)
        self._keep(artifact)
        return artifact.id

    def _snapshot(self, base: Snapshot, written: Mapping[str, Any], removed: list[str]) -> Snapshot:
        writes: dict[str, bytes | None] = {key: canonical.encode(value) for key, value in written.items()}
        snapshot, made = base.update({**writes, **dict.fromkeys(removed)}, self.context_format)
        self._note(made)
        return snapshot

    def _note(self, made: Mapping[str, Artifact]) -> None:
        for artifact in made.values():
            self._made[artifact.id] = artifact.data
            self._keep(artifact)

    def _base_of_open(self, place: str) -> Snapshot:
        state = self._history.states.get(place)
        if state is None or state.base_snapshot_id is None:
            raise ValueError("no attempt of this state is open")
        return Snapshot.open(state.base_snapshot_id, self._get)

    def _base(self, state_id: str) -> Snapshot:
        history = self._history
        if history.one_by_one:
            return Snapshot.open(history.checkpoint or "", self._get)
        state = history.states.get(state_id)
        if state is not None and state.base_snapshot_id is not None:
            return Snapshot.open(state.base_snapshot_id, self._get)
        return self._joined(lambda frontier: frontier.base(state_id))

    def _final(self) -> Snapshot:
        history = self._history
        if history.one_by_one:
            return Snapshot.open(history.checkpoint or "", self._get)
        return self._joined(lambda frontier: frontier.final())

    def _left(self) -> Snapshot:
        """Return the context that the work of the run leaves to its cleanup."""
        history = self._history
        if history.one_by_one:
            return Snapshot.open(history.checkpoint or "", self._get)
        return self._joined(lambda frontier: frontier.left())

    def _joined(self, look: Callable[[Any], Snapshot]) -> Snapshot:
        frontier = self._joins.frontier(self._history)
        snapshot = look(frontier)
        self._note(frontier.take_made())
        return snapshot
