"""Domain events in a replay: compared with the recording and not validated against a catalogue again.

A catalogue that has become stricter, or is missing, therefore makes no old recording diverge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from machine.catalogue import Level
from machine.engine.recorder import Recorder
from machine.errors import CodecError, MachineError
from machine.events import DomainEvent, DomainEventRecorded
from machine.io.attempt_scope import AttemptScope, Payloads
from machine.recordings.replay_log import ReplayLog


class ReplayRecorder(Recorder):
    """A recorder that emits domain events as they were recorded; `levels` are those of the run's own kinds."""

    def __init__(self, scope: AttemptScope, log: ReplayLog, levels: Mapping[str, Level]) -> None:
        super().__init__(scope)
        self._log = log
        self._levels = levels

    def _recorded(self, event: DomainEvent, payloads: Payloads) -> DomainEventRecorded | None:
        name = self._name_of(event)
        for form in _forms(event.payload):
            made = Payloads()
            try:
                recorded = self._as_event(name, form, made)
            except MachineError:  # this form cannot be the recorded one
                continue
            if self._log.has(recorded):
                payloads.items.update(made.items)
                return recorded
        return super()._recorded(event, payloads)

    def _refuse_taken(self, name: str) -> None:
        scope = self._scope
        if not self._log.expects_output(name, scope.state.id, scope.attempt):
            super()._refuse_taken(name)

    def _level(self, name: str) -> str:
        return str(self._levels.get(name) or super()._level(name))

    def _plain(self, name: str, payload: Any) -> dict[str, Any]:
        missing = name in self._levels and name not in self._catalogue
        if missing and (refused := self._log.failed_as(CodecError(f"payload of {name}", []))) is not None:
            raise refused  # it is unknown today whether it would be
        form = next(_forms(payload), None) if missing else None
        return super()._plain(name, payload) if form is None else form


def _forms(payload: Any) -> Iterator[dict[str, Any]]:
    """Yield the forms in which a payload may have been recorded: its kind decides about null members."""
    from machine.catalogue.payload_converter import unchecked, without_null  # noqa: PLC0415 - it brings cattrs, which is slow

    plain = unchecked(payload)
    if plain is None:
        return
    yield plain
    yield {key: value for key, value in plain.items() if value is not None}
    yield without_null(plain)


def recorder_of(log: ReplayLog, levels: Mapping[str, Level]) -> Callable[[AttemptScope], ReplayRecorder]:
    """Return the provider of a handler's `rec` for a replay."""
    return lambda scope: ReplayRecorder(scope, log, levels)
