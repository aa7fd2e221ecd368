"""The `rec` of a handler, through which it emits domain events."""

from __future__ import annotations

from collections.abc import AsyncIterable, Sequence
from typing import Any

from machine import canonical
from machine.catalogue import Catalogue
from machine.config import EventProfile
from machine.engine.output_writer import OutputWriter, as_bytes, comes_in_pieces, pieces_from
from machine.errors import Code, IdError, StateError
from machine.events import KERNEL_EVENTS, MAX_INLINE_PAYLOAD, ArtifactKind, DomainEvent, DomainEventRecorded
from machine.ids import ArtifactName, ErrorCode
from machine.io.attempt_scope import AttemptScope, Payloads
from machine.watch.watch import engine_at_work

_LONGEST_KIND = 64
"""The most characters of the kind of an artifact."""

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

    async def artifact(self, name: str, data: Any, kind: str = "output") -> str:
        """Store bytes, text or JSON as an artifact of this run under a name, and return its id.

        `data` may also be an open file, an iterator or an async iterator of bytes or text, which is stored in
        pieces as it comes, with bounded memory. `machine artifacts` and `machine.artifacts` list what a run has
        written. A name is of one artifact of the run; only a later attempt of the same state may write it again,
        and its artifact then counts. Secrets in a whole text or JSON value are replaced by placeholders; bytes that
        are no text, and what comes in pieces, may hold none.

        Raises `IdError` for a name that is empty or a path, `CanonicalError` for what is not JSON, and `StateError`
        (`artifact_name_taken`, `artifact_too_large`, `invalid_artifact`, `secret_in_event`): nothing is in the log
        then.
        """
        writer = self.begin_artifact(name, kind)
        form = "pieces"
        if isinstance(data, AsyncIterable):
            async for piece in data:
                writer.feed(as_bytes(piece))
        elif comes_in_pieces(data):
            for piece in pieces_from(data):
                writer.feed(piece)
        else:
            form = writer.value(data)
        return await self.end_artifact(writer, form)

    def begin_artifact(self, name: str, kind: str) -> OutputWriter:
        """Return the writer of an artifact, if its name is free. Raises as `artifact` does."""
        name = str(ArtifactName(name))
        scope = self._scope
        scope.check_open("stored", name)
        if not isinstance(kind, str) or not 1 <= len(kind) <= _LONGEST_KIND or not kind.isprintable():
            raise StateError(
                f"the kind of artifact {name!r} must be 1 to {_LONGEST_KIND} printable characters, not {kind!r}",
                code=Code.INVALID_ARTIFACT,
            )
        for what, text in (("the name of an artifact", name), ("the kind of an artifact", kind)):
            scope.secrets.refuse_in_key(what, text)
        self._refuse_taken(name)
        return OutputWriter(scope, name, kind)

    async def end_artifact(self, writer: OutputWriter, form: str) -> str:
        """Record an artifact whose bytes its writer has, and return its id."""
        scope = self._scope
        scope.check_open("stored", writer.name)
        self._refuse_taken(writer.name)  # another task of the handler, or another state, may have written it
        payloads = Payloads()
        event = writer.event(form, payloads)
        with engine_at_work():
            await scope.log.emit([event], payloads)
        return writer.artifact_id

    def _refuse_taken(self, name: str) -> None:
        """Raise `StateError` (`artifact_name_taken`) when this attempt may not write an artifact of this name."""
        scope = self._scope
        found = scope.log.output(name)
        if found is None or found.left_to(scope.state.id, scope.attempt):
            return
        raise StateError(
            f"artifact {name!r} was written by {found.state_id} already",
            code=Code.ARTIFACT_NAME_TAKEN,
            details={"name": name, "state_id": found.state_id, "artifact_id": found.artifact_id},
            hint="an artifact of a run has a name of its own",
        )

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
