"""The bytes of the three events that logs mostly consist of, written and read without the JSON of each.

They are the beginning of an attempt, its completion, and the fact of a call. This one place spells them: it
writes what `canonical` writes of their JSON, and reads only that; `codec` does the same for every other event.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from machine import canonical
from machine.events import DRIVER, Entry, Event, FactRecorded, FactValue, StateCompleted, StateEntered

_NUMBER: Final = rb"(0|[1-9][0-9]{0,14})"
_HASH: Final = rb'"([0-9a-f]{64})"'
_NAME: Final = rb'"([a-z0-9_.]+)"'
_DRIVER: Final = rb'(?:"driver":"([a-zA-Z0-9_.: -]+)",)?'
_INFO: Final = rb',"info":\{%b"run_id":"([0-9a-f-]+)","ts_millis":%b\},"seq":%b\}' % (
    _DRIVER,
    _NUMBER,
    _NUMBER,
)

_STEP: Final = re.compile(
    rb'\{"event":(\{(?:"attempt":%b,"base_snapshot_id":%b,"state_id":%b,"type":"state_entered"'
    rb'|"context_snapshot_id":%b,"state_id":%b,"type":"state_completed")\})%b'
    % (_NUMBER, _HASH, _NAME, _HASH, _NAME, _INFO)
)
_FACT: Final = re.compile(
    rb'\{"event":(\{"attempt":%b,"key":"([a-z0-9A-Z_.@/:-]+)","namespace":%b,'
    rb'"outcome":\{"payload_id":%b,"type":"value"\},"request_digest":%b,"state_id":%b,"type":"fact_recorded"\})%b'
    % (_NUMBER, _NAME, _HASH, _HASH, _NAME, _INFO)
)
"""The envelopes of these events, in their one canonical spelling: a match needs no decoding to be checked."""


def spelled(event: Event) -> bytes | None:
    """Return the canonical body of one of these events; None for any other, and for names beyond ASCII."""
    if type(event) is StateEntered:
        if event.state_id.isascii() and event.base_snapshot_id.isascii():
            ids = orjson.dumps(event.base_snapshot_id), orjson.dumps(event.state_id)
            return b'{"attempt":%d,"base_snapshot_id":%b,"state_id":%b,"type":"state_entered"}' % (
                event.attempt,
                *ids,
            )
    elif type(event) is StateCompleted:
        plain = event.not_taken is None and event.next_input_id is None
        if plain and event.state_id.isascii() and event.context_snapshot_id.isascii():
            ids = orjson.dumps(event.context_snapshot_id), orjson.dumps(event.state_id)
            if event.wrote is None:
                return b'{"context_snapshot_id":%b,"state_id":%b,"type":"state_completed"}' % ids
            wrote = canonical.encode(event.wrote)
            return b'{"context_snapshot_id":%b,"state_id":%b,"type":"state_completed","wrote":%b}' % (
                *ids,
                wrote,
            )
    elif type(event) is FactRecorded:
        outcome = event.outcome
        if type(outcome) is FactValue and outcome.again is None and event.piece is None:
            try:
                text = orjson.dumps(
                    {
                        "attempt": event.attempt,
                        "key": event.key,
                        "namespace": event.namespace,
                        "outcome": {"payload_id": outcome.payload_id, "type": "value"},
                        "request_digest": event.request_digest,
                        "state_id": event.state_id,
                        "type": "fact_recorded",
                    }
                )
            except TypeError:  # a lone surrogate, which `canonical` refuses with its path
                return None
            return b"%b" % text if text.isascii() else None  # a copy: what orjson returns holds 4 kB or more
    return None


def read(seq: int, data: bytes) -> Entry | None:
    """Return the entry that stored bytes at `seq` are, if they are one of these in its spelling, else None."""
    event: Event
    if (step := _STEP.fullmatch(data)) is not None:
        body, attempt, base, entered, after, completed, driver, run, ts, claimed = step.groups()
        if attempt is not None:
            event = StateEntered(entered.decode(), int(attempt), base.decode())
        else:
            event = StateCompleted(completed.decode(), after.decode())
    elif (fact := _FACT.fullmatch(data)) is not None:
        body, attempt, *names, driver, run, ts, claimed = fact.groups()
        key, namespace, payload, digest, state = [name.decode() for name in names]
        event = FactRecorded(key, namespace, digest, FactValue(payload), state, int(attempt))
    else:
        return None
    if int(claimed) != seq:
        return None
    run_id, ts_millis = run.decode(), int(ts)
    info: dict[str, Any] = {"run_id": run_id, "ts_millis": ts_millis}
    if driver is not None:
        info[DRIVER] = driver.decode()
    return Entry(seq, event, body, run_id, ts_millis, info)
