"""Domain events in a replay: held against what was recorded of them, and not checked by a catalogue again.

So neither a catalogue that has become stricter nor one that is missing makes an old recording diverge.
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

__all__ = ["ReplayRecorder", "recorder_of"]


class ReplayRecorder(Recorder):
    """Emits domain events as they were recorded. `levels` are those of the kinds that the run had of its own."""

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
            except MachineError:  # this form cannot be what was recorded
                continue
            if self._log.has(recorded):
                payloads.items.update(made.items)
                return recorded
        return super()._recorded(event, payloads)

    def _level(self, name: str) -> str:
        return str(self._levels.get(name) or super()._level(name))

    def _plain(self, name: str, payload: Any) -> dict[str, Any]:
        missing = name in self._levels and name not in self._scope.catalogue
        if missing and (refused := self._log.failed_as(CodecError(f"payload of {name}", []))) is not None:
            raise refused  # nobody can say today whether it would be
        form = next(_forms(payload), None) if missing else None
        return super()._plain(name, payload) if form is None else form


def _forms(payload: Any) -> Iterator[dict[str, Any]]:
    """Yield what a payload may have been recorded as: the kind decides what became of members that are null."""
    from machine.catalogue.payloads import unchecked, without_null  # noqa: PLC0415 - it brings cattrs, which is slow

    plain = unchecked(payload)
    if plain is None:
        return
    yield plain
    yield {key: value for key, value in plain.items() if value is not None}
    yield without_null(plain)


def recorder_of(log: ReplayLog, levels: Mapping[str, Level]) -> Callable[[AttemptScope], ReplayRecorder]:
    """Return what gives a handler its `rec` when it is run on a recording."""
    return lambda scope: ReplayRecorder(scope, log, levels)
