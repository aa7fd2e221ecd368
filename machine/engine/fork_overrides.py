"""Overrides of a fork: the fact of the shared past that each names, and its new outcome.

Nothing is written here.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from machine import canonical, codec
from machine.errors import Code, IoError, UsageError
from machine.events import Entry, FactRecorded, FactValue
from machine.io.attempt_scope import Payloads
from machine.io.effect_resolution import add_answer, response_of
from machine.io.files import OPEN, FileContent
from machine.io.http_message import HttpResponse
from machine.io.stream_end import bytes_of
from machine.kernel.sealed_facts import SECRET_PAYLOAD
from machine.kernel.snapshot import Load
from machine.secrets.both_formats import OfAttempt
from machine.secrets.secret_value import SECRET
from machine.secrets.stored_call import Answer


def overridden(
    entries: Sequence[Entry],
    at: int,
    values: Mapping[str, Any],
    *,
    load: Load,
    secrets: OfAttempt,
    payloads: Payloads,
) -> dict[int, Entry]:
    """Return the entries up to `at` whose outcome a caller replaces, by seq; their responses go to `payloads`.

    Raises `UsageError`: `fact_not_found` and `fact_ambiguous` for the key, `invalid_effect_outcome` for a value
    that no call of the namespace could have as its response, `usage` for a fact that is named twice.
    """
    found: dict[int, Entry] = {}
    names: dict[int, str] = {}
    for name, value in values.items():
        entry = _named(name, entries, at)
        fact = entry.event
        assert isinstance(fact, FactRecorded)
        if entry.seq in names:
            raise UsageError(f"{names[entry.seq]!r} and {name!r} are the same fact, at event {entry.seq}")
        names[entry.seq] = name
        request = canonical.decode_stored(fact.request_digest, load(fact.request_digest))
        answer = _response(fact, request, value, secrets)
        again = None if fact.piece is None else True
        event = attrs.evolve(fact, outcome=FactValue(add_answer(payloads, answer), again))
        info = {name: text for name, text in entry.info.items() if name != SECRET_PAYLOAD} | dict(answer.info)
        found[entry.seq] = entry._replace(event=event, body=codec.encode_event(event), info=info)
    return found


def _response(fact: FactRecorded, request: Any, value: Any, secrets: OfAttempt) -> Answer:
    if fact.namespace == SECRET:
        raise UsageError(
            "a secret is no fact to be replaced: a log never holds its value",
            hint="set the environment variable of that name",
        )
    if fact.namespace == "env" and (value is None or isinstance(value, str)):
        value = {"value": value}
    fits = True
    if fact.namespace == "env":
        fits = isinstance(value, Mapping) and value.keys() == {"value"}
    elif fact.namespace == "clock.now":
        fits = type(value) is int
    elif fact.piece is not None:
        fits = _is_read(bytes_of if fact.piece else _head, value)
    elif fact.namespace in {"file.read", OPEN}:
        fits = _is_read(FileContent.from_json, value)
    if not fits:
        raise UsageError(
            f"no call of {fact.namespace} has that as its response",
            code=Code.INVALID_EFFECT_OUTCOME,
            hint="machine facts RUN --json shows the one it had, under outcome.value",
        )
    namespace = fact.namespace if fact.piece is None else ""  # a part of an answer is no answer
    return secrets.answer(fact, request, canonical.decode(response_of(namespace, request, value)))


def _head(value: Any) -> object:
    if "status" in value:
        return HttpResponse.from_json({**value, "body": {"text": ""}})
    return value["path"], value["size"]


def _is_read(read: Callable[[Any], object], value: Any) -> bool:
    try:
        read(value)
    except (IoError, LookupError, TypeError, ValueError):
        return False
    return True


# -- the named fact -------------------------------------------------------------------------------------------


def _named(name: str, entries: Sequence[Entry], at: int) -> Entry:
    """Return the fact that a key names: in full, by its seq, or by a beginning that no other key has."""
    facts = [entry for entry in entries if isinstance(entry.event, FactRecorded)]
    shared = [entry for entry in facts if entry.seq <= at]
    exact = [entry for entry in shared if _key(entry) == name or name == str(entry.seq)]
    if exact:
        return next((entry for entry in reversed(exact) if _key(entry) == name), exact[0])
    begun = [entry for entry in shared if name and _begins(name, entry)]
    begun = [entry for entry in begun if _piece(entry) is None] or begun
    if len({_key(entry) for entry in begun}) == 1:
        return begun[-1]  # the last of several outcomes under one key counts
    if begun:
        raise UsageError(
            f"{name!r} begins the keys of {len(begun)} facts",
            code=Code.FACT_AMBIGUOUS,
            details={"key": name, "candidates": [_key(entry) for entry in begun]},
            hint=f"give more of it, or the event it was recorded at: {_told(begun[:4])}",
        )
    later = [entry for entry in facts if entry.seq > at and name in {_key(entry), str(entry.seq)}]
    where = f"; it was recorded at event {later[0].seq}" if later else ""
    near = difflib.get_close_matches(name, [_short(entry) for entry in shared], 3, 0.3)
    close = [entry for entry in shared if _short(entry) in near] or shared
    raise UsageError(
        f"there is no fact {name!r} up to event {at}{where}",
        code=Code.FACT_NOT_FOUND,
        details={"key": name, "nearest": [_key(entry) for entry in close[:4]]},
        hint=f"there is {_told(close[:4])}" if close else "nothing had been learned by then",
    )


def _key(entry: Entry) -> str:
    assert isinstance(entry.event, FactRecorded)
    return entry.event.key


def _piece(entry: Entry) -> int | None:
    assert isinstance(entry.event, FactRecorded)
    return entry.event.piece


def _short(entry: Entry) -> str:
    """Return the key of a fact without its leading `@` and op: `@op.step.state/0/...` is `step.state/0/...`."""
    key = _key(entry)
    return key.partition(".")[2] if key.startswith("@") else key


def _begins(name: str, entry: Entry) -> bool:
    return _key(entry).startswith(name) or _short(entry).startswith(name)


def _told(entries: Sequence[Entry]) -> str:
    return ", ".join(f"{'/'.join(_short(entry).split('/')[:3])} at event {entry.seq}" for entry in entries)
