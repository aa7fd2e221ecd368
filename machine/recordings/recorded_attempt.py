"""One recorded attempt that is about to be replayed: its calls and waits by key, and the events still to come."""

from __future__ import annotations

from collections.abc import Mapping

from machine.events import EffectIntended, Entry, FactRecorded, StateCompleted, StateFailed, WaitBegun
from machine.io.permission import ASKED_FOR
from machine.kernel.sealed_facts import reused
from machine.recordings.redacted_request_matching import RecordedRequests


class RecordedAttempt:
    """The entries of one attempt; `requests` are the recorded ones, among which those of a replay are found."""

    def __init__(self, requests: RecordedRequests) -> None:
        self.facts: dict[str, list[FactRecorded]] = {}
        """The facts that are still to come, by key."""
        self.intents: dict[str, EffectIntended] = {}
        self.begins: dict[str, WaitBegun] = {}
        """The keys of its waits for external input."""
        self.asks: dict[str, str] = {}
        """The keys of the approvals that a policy asked for, by the keys of the calls that it asked about."""
        self.left: dict[bytes, int] = {}
        """The number of events still to come, by their bytes."""
        self.reused: Mapping[str, str] = {}
        """The facts of earlier attempts that answered its calls, by the keys of the calls, as far as it says."""
        self._requests = requests

    def expect(self, entry: Entry) -> None:
        """Add an entry that is still to come."""
        event, body = entry.event, entry.body
        self.left[body] = self.left.get(body, 0) + 1
        self._requests.note(event)
        if isinstance(event, FactRecorded):
            self.facts.setdefault(event.key, []).append(event)
        elif isinstance(event, EffectIntended):
            self.intents[event.key] = event
        elif isinstance(event, WaitBegun):
            self.begins[event.key] = event
            if isinstance(call_key := entry.info.get(ASKED_FOR), str):
                self.asks.setdefault(call_key, event.key)
        elif isinstance(event, StateCompleted | StateFailed):
            self.reused = reused(entry)

    def passed(self, entry: Entry) -> None:
        """Take away an entry that the replay has reached."""
        if entry.body in self.left:
            self.left[entry.body] -= 1
        if isinstance(entry.event, FactRecorded) and (left := self.facts.get(entry.event.key)):
            left.pop(0)

    def has(self, body: bytes) -> bool:
        """Say whether an event is still to come, but for secrets that it was recorded without."""
        return bool(self.left.get(body)) or any(
            count and self._requests.same(recorded, body) for recorded, count in self.left.items()
        )
