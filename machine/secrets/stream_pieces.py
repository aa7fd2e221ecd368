"""The pieces of a stream as they are stored, and how much of what was received may be half a secret."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeGuard

from machine import canonical
from machine.errors import Code
from machine.events import FactRecorded
from machine.secrets.attempt_secrets import AttemptSecrets
from machine.secrets.both_formats import OfAttempt
from machine.secrets.held_back import HeldBack, begun
from machine.secrets.redact import redact
from machine.secrets.reserved_store_key import key_inside
from machine.secrets.stored_call import Answer


def may_stream(secrets: OfAttempt) -> TypeGuard[AttemptSecrets]:
    """Say whether answers may be recorded in pieces: some rules for secrets need the whole of an answer."""
    return isinstance(secrets, AttemptSecrets) and not (
        secrets.run.stand_ins or secrets.run.rules.stand_ins or secrets.run.rules.pointers
    )


def held_back(secrets: AttemptSecrets) -> HeldBack:
    """Return what holds back the received end of a stream while it may be half a secret."""

    def begins(line: bytes) -> bool:
        text = line.decode("utf-8", "replace")
        return bool(line) and not secrets.is_clean_piece(canonical.encode({"data": {"text": text}}))

    def uncut(held: bytes, kept: int) -> int:
        forms = list(_forms(secrets))
        kept = max(kept, *(begun(held, form) for form in forms), 0)
        while (more := max((_cut_by(held, kept, form) for form in forms), default=0)) > kept:
            kept = more
        return kept

    return HeldBack(begins, uncut)


def _forms(secrets: AttemptSecrets) -> Iterator[bytes]:
    for value, known in secrets.run.known.items():
        yield from (form.encode("utf-8", "surrogatepass") for form in {value, *known.forms.all()})


def _cut_by(data: bytes, kept: int, form: bytes) -> int:
    """Return how many of the last bytes to hold back so that this form is not split; 0 where it is not."""
    end = len(data) - kept
    at = data.find(form, max(end - len(form) + 1, 0), end + len(form) - 1)
    return 0 if at < 0 else len(data) - at


def stored_piece(
    secrets: AttemptSecrets, fact: FactRecorded, request: Any, piece: dict[str, Any], line: bytes
) -> Answer:
    """Return a piece as it is stored; `line` is what was handed out before of the line that it goes on with.

    Raises what `AttemptSecrets.answer` raises.
    """
    packed = piece["data"]
    if line and "text" in packed:
        before, text = line.decode("utf-8", "replace"), packed["text"]
        raw = canonical.encode({"data": {"text": before + text}})
        if not secrets.is_clean_piece(raw):
            if secrets.run.reserved.holds(raw) and secrets.run.refuses(Code.SECRET_RESERVED):
                raise key_inside(f"the answer of {fact.namespace}")
            if _found(secrets, fact, before + text, len(before)) > _found(secrets, fact, text, 0):
                return secrets.sealed_piece(fact, text)
    return secrets.answer(fact, request, piece)


def _found(secrets: AttemptSecrets, fact: FactRecorded, text: str, begin: int) -> int:
    """Return how many secrets a text has that end behind a place."""
    document = {"data": {"text": text}}
    found = redact(
        secrets.run.rules,
        secrets.run.known,
        fact.namespace,
        document,
        request=False,
        name=lambda place: place,
    )
    if not found.edits:
        return 0
    ((_, cuts),) = found.edits
    if not isinstance(cuts, list):
        return 1
    count = shift = 0
    for first, last, true in cuts:
        at = first + shift
        shift += len(true) - (last - first)
        count += at + len(true) > begin
    return count


def stored_end(secrets: AttemptSecrets, fact: FactRecorded, response: Any, *, sealed: bool) -> Answer:
    """Return the end of a stream as it is stored, with a seal of its own if a part of the stream has one."""
    data = canonical.encode(response)
    return secrets.sealed_beside(fact, data) if sealed else Answer(data)
