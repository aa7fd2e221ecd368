"""The divergences of a replay that a call of the handler makes: one that is new, missing, or answered otherwise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import NoReturn

from machine import canonical
from machine.events import DomainEventRecorded, Entry, Event, FactRecorded
from machine.io.call_identity import Call
from machine.kernel.outputs import Output, output_of
from machine.kernel.reuse import comparable
from machine.kernel.sealed_facts import REQUEST_MAC
from machine.recordings.divergence import Divergence
from machine.recordings.make_divergence import Differences


class DivergentCalls(ABC):
    """The part of the log of a replay that says how a call differs from the recording."""

    _recorded: Sequence[Entry]
    _at: int
    """The position of the replay in the recording."""
    _begin: int
    """The position at which the attempt began."""
    _end: int
    """The position of its last entry."""
    _early: Event | None
    _differences: Differences

    @abstractmethod
    def _diverge(self, divergence: Divergence) -> NoReturn:
        """End the replay with a divergence."""

    @abstractmethod
    def _raise_if_over(self) -> None:
        """Raise the reason why the replay has ended, if it has."""

    @abstractmethod
    def _seq(self) -> int:
        """Return the seq of the event at the position of the replay."""

    def _left_of_attempt(self) -> Sequence[Entry]:
        return self._recorded[self._at : self._end + 1]

    def unrecorded(self, call: Call, unused: Collection[str]) -> NoReturn:
        """Raise: the handler made a call that was never recorded."""
        if self._early is not None:
            self._missing()
        before, left = self._recorded[: self._begin], self._left_of_attempt()
        left = [*(entry for entry in before if getattr(entry.event, "key", "") in unused), *left]
        self._diverge(self._differences.unrecorded(call, left, self._seq()))

    def put(self, kind: str, data: bytes) -> str:
        """Return the id of an artifact: a replay stores nothing."""
        del kind
        return canonical.artifact_id(data)

    def output(self, name: str) -> Output | None:
        """Return the last output that has a name in the recording, wherever it was written, or None."""
        events = (entry.event for entry in reversed(self._recorded))
        outputs = (output_of(event) for event in events if type(event) is DomainEventRecorded)
        return next((output for output in outputs if output is not None and output.name == name), None)

    def expects_output(self, name: str, state_id: str, attempt: int) -> bool:
        """Say whether an attempt is still to write an output of a name by the recording."""
        for entry in self._left_of_attempt():
            event = entry.event
            if type(event) is DomainEventRecorded and (event.state_id, event.attempt) == (state_id, attempt):
                output = output_of(event)
                if output is not None and output.name == name:
                    return True
        return False

    def nothing_comes(self) -> NoReturn:
        """Raise: the handler waits for external input, where the recording has something else."""
        self._raise_if_over()
        self._missing()

    def not_given_up(self, fact: FactRecorded) -> NoReturn:
        """Raise: the handler waits for a call that it cancelled in the recording."""
        entry = next(entry for entry in self._left_of_attempt() if entry.event == fact)
        self._diverge(self._differences.not_given_up(entry, fact))

    def secret_needed(self, fact: FactRecorded, source: str) -> NoReturn:
        """Raise: a response needs the true value of a secret, which this replay does not have."""
        entry = next(entry for entry in reversed(self._recorded[: self._at]) if entry.event == fact)
        self._diverge(self._differences.secret_needed(entry, fact, source))

    def compare_sealed(self, fact: FactRecorded, mac: str) -> None:
        """Raise if the keyed hash of a fact's request differs from the recorded one."""
        entry = next(entry for entry in self._left_of_attempt() if entry.event == fact)
        recorded = entry.info.get(REQUEST_MAC)
        if isinstance(recorded, str) and comparable(recorded, mac) and recorded != mac:
            self._diverge(self._differences.sealed(entry, fact, recorded, mac))

    def _missing(self, event: Event | None = None) -> NoReturn:
        ended = event and f"the handler ended ({event.type}) without making a recorded call"
        summary = ended or "a recorded call is not made"
        self._diverge(self._differences.missing(self._recorded[self._at], summary, event))
