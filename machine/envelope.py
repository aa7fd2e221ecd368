"""The envelope of an event, its canonical bytes, and the chain over the envelopes of a log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from blake3 import blake3

from machine import canonical
from machine.errors import CanonicalError, Code, CodecError, LogError


def chain_next(previous: bytes, data: bytes) -> bytes:
    """Return `BLAKE3(previous || data)`: the chain value after the envelope bytes `data`."""
    return blake3(previous + data).digest()


def seal(seq: int, body: bytes, run_id: str, ts_millis: int, info: Mapping[str, str] | None = None) -> bytes:
    """Return the canonical envelope bytes of an event body.

    They are joined, not encoded: the keys of an envelope are fixed and already in order (RFC 8785 section 3.2.3),
    so the body is encoded only once. `info` adds informational strings.
    """
    if not info:
        return b'{"event":%b,"info":{"run_id":"%b","ts_millis":%d},"seq":%d}' % (
            body,
            run_id.encode(),
            ts_millis,
            seq,
        )
    extra = orjson.dumps({**info, "run_id": run_id, "ts_millis": ts_millis}, option=orjson.OPT_SORT_KEYS)
    return b'{"event":%b,"info":%b,"seq":%d}' % (body, extra, seq)


def split_envelope(seq: int, data: bytes) -> tuple[dict[str, Any], bytes, dict[str, Any]]:
    """Return the event object, the bytes of the body, and the info object of stored envelope bytes at `seq`.

    Raises `LogError` (`log_bad_event`, or `log_seq_gap` when the envelope claims another seq).
    """
    try:
        envelope = canonical.decode(data)
        event, info, claimed = envelope["event"], envelope["info"], envelope["seq"]
        run_id, ts_millis = info["run_id"], info["ts_millis"]
        spelled = canonical.encode(envelope)
    except (CodecError, CanonicalError, LookupError, TypeError):
        raise LogError(seq, "its bytes are not an envelope", code=Code.LOG_BAD_EVENT) from None
    fits = (
        isinstance(event, dict)
        and isinstance(run_id, str)
        and type(ts_millis) is int
        and ts_millis >= 0
        and type(claimed) is int
        and len(envelope) == 3  # noqa: PLR2004 - event, info and seq
        and not any(isinstance(item, dict | list) for item in info.values())
        and spelled == data
    )
    if not fits:
        raise LogError(seq, "its bytes are not an envelope", code=Code.LOG_BAD_EVENT)
    if claimed != seq:
        raise LogError(seq, f"its envelope claims to be event {claimed}", code=Code.LOG_SEQ_GAP)
    # canonical, and info is flat: its opening is the last of its kind, for in a string quotes are escaped
    return event, data[len(b'{"event":') : data.rindex(b',"info":{')], info
