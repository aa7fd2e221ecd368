"""The `rec` of a handler, through which it emits domain events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from machine import canonical
from machine.catalogue import Catalogue
from machine.config import EventProfile
from machine.errors import Code, IdError, StateError
from machine.events import KERNEL_EVENTS, MAX_INLINE_PAYLOAD, ArtifactKind, DomainEvent, DomainEventRecorded
from machine.ids import ErrorCode
from machine.io.attempt_scope import AttemptScope, Payloads
from machine.watch.watch import engine_at_work

_KEPT = {
    "minimal": frozenset({"essential"}),
    "normal": frozenset({"essential", "normal"}),
    "verbose": frozenset({"essential", "normal", "verbose"}),
}


class Recorder:
    """The emitter of a handler's domain events.

    It can never emit a kernel event, so a handler cannot forge a fact.
    """

    def __init__(self, scope: AttemptScope) -> None:
        self._scope = scope

    @property
    def _catalogue(self) -> Catalogue:
        """The catalogue of the run; the standard one is made when it is first asked for."""
        if self._scope.run.catalogue is not None:
            return self._scope.run.catalogue
        from machine.catalogue import STANDARD  # noqa: PLC0415 - making 45 attrs classes takes long

        return STANDARD

    async def emit(self, event: DomainEvent) -> None:
        """Append one domain event. A known name has its payload validated by the catalogue."""
        await self.emit_many([event])

    async def emit_many(self, events: Sequence[DomainEvent]) -> None:
        """Append several domain events, all or none, next to each other."""
        scope = self._scope
        events = list(events)
        scope.check_open("emitted", *events)
        payloads = Payloads()
        recorded = [self._recorded(event, payloads) for event in events]
        kept = [event for event in recorded if event is not None]
        if kept:
            with engine_at_work():
                await scope.log.emit(kept, payloads)

    def _level(self, name: str) -> str:
        return str(self._catalogue.level(name))

    def _plain(self, name: str, payload: Any) -> dict[str, Any]:
        return self._catalogue.validate(name, payload)

    def _recorded(self, event: DomainEvent, payloads: Payloads) -> DomainEventRecorded | None:
        """Return the recorded form of an event, or None when the run does not record events of its level."""
        name = self._name_of(event)
        recorded = self._as_event(name, self._plain(name, event.payload), payloads)
        return recorded if _keeps(self._scope.run.config.event_profile, name, self._level(name)) else None

    def _name_of(self, event: DomainEvent) -> str:
        if not isinstance(event, DomainEvent):
            raise StateError(
                f"rec.emit takes a DomainEvent, not {type(event).__name__}", code=Code.INVALID_DOMAIN_EVENT
            )
        try:
            name = str(ErrorCode(event.name))
        except IdError:
            name = ""
        if not name or name in KERNEL_EVENTS:
            raise StateError(
                f"{event.name!r} cannot name a domain event",
                code=Code.INVALID_DOMAIN_EVENT,
                hint="it belongs to the kernel" if name else f"give {ErrorCode.rule}",
            )
        return name

    def _as_event(self, name: str, plain: dict[str, Any], payloads: Payloads) -> DomainEventRecorded:
        scope = self._scope
        payload: Any = scope.secrets.said(plain)
        data = canonical.encode(payload)
        if not data.startswith(b"{"):
            raise StateError(f"the payload of {name!r} must be a JSON object", code=Code.INVALID_DOMAIN_EVENT)
        if len(data) <= MAX_INLINE_PAYLOAD:
            return DomainEventRecorded(name, scope.state.id, scope.attempt, payload=canonical.decode(data))
        ref = payloads.add(ArtifactKind.DOMAIN_PAYLOAD, data)
        return DomainEventRecorded(name, scope.state.id, scope.attempt, payload_ref=ref)


def _keeps(profile: EventProfile, name: str, level: str) -> bool:
    return name in profile.keep if profile.type == "custom" else level in _KEPT[profile.type]
