"""The events that are spelled and read without JSON, held against the definition: the JSON of each, encoded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import EVENTS_BY_KIND, FAST

from machine import canonical, codec, event_bytes
from machine.errors import CanonicalError, LogError
from machine.events import FactRecorded, FactValue, StateCompleted, StateEntered, seal

RUN_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
HASH = "ab" * 32
NAMES = st.text(alphabet='a.9_é"\\\n\ud800', min_size=1, max_size=4)
FACTS = st.builds(
    FactRecorded, NAMES, NAMES, st.just(HASH), st.just(FactValue(HASH)), NAMES, st.integers(0, 2**53 - 1)
)
THREE = st.one_of(*(EVENTS_BY_KIND[kind] for kind in (StateEntered, StateCompleted, FactRecorded)))
USUAL = [
    StateEntered("op.a.b", 3, HASH),
    StateCompleted("op.a.b", HASH),
    FactRecorded(f"@op.a.b/0/http/{HASH}/0", "http", HASH, FactValue(HASH), "op.a.b", 0),
]


def the_long_way(function, *args):
    """Return what a function gives, or the error that it raises."""
    try:
        return function(*args)
    except (LogError, CanonicalError) as exc:
        return type(exc), str(exc)


@FAST
@given(THREE | FACTS)
def test_a_spelled_event_is_its_canonical_json(event):
    body = event_bytes.spelled(event)
    assert body is None or body == canonical.encode(codec.event_to_json(event))


@FAST
@given(st.sampled_from(USUAL), st.integers(0, 400), st.sampled_from(["cut", "twice", *'0a"\\{}-:, é']))
def test_what_is_read_is_what_the_json_says_and_nothing_else_is_read(event, at, change):
    data = seal(7, codec.encode_event(event), RUN_ID, 1)
    at %= len(data)
    put = {"cut": b"", "twice": data[at : at + 1] * 2}.get(change, change.encode())
    for stored in (data, data[:at] + put + data[at + 1 :]):
        entry = event_bytes.read(7, stored)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(codec, "read", lambda seq, data: None)
            told = the_long_way(codec.decode_entry, 7, stored)
        assert entry in (None, told)
        assert the_long_way(codec.decode_entry, 7, stored) == told


@pytest.mark.parametrize("event", USUAL, ids=lambda event: event.type)
def test_the_usual_ones_are_spelled_and_read(event):
    body = event_bytes.spelled(event)
    assert body is not None
    entry = event_bytes.read(7, seal(7, body, RUN_ID, 1))
    assert entry is not None
    assert (entry.event, entry.body, entry.run_id, entry.ts_millis) == (event, body, RUN_ID, 1)
    assert event_bytes.read(8, seal(7, body, RUN_ID, 1)) is None
