"""The index of runs is a pure, total projection of a log."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine.events import seal
from machine.kernel.run_index import RunRow, advance
from machine.testing.store_samples import ANSWER, RESUMED, log_of, run_id_of, suspended

RUN = run_id_of(1)
EMPTY = RunRow(RUN, "", "pending", 0, 0, 0)
START = 1_700_000_000_000

numbers = st.integers(-(2**63), 2**64 - 1) | st.none() | st.booleans() | st.floats(allow_nan=False)
envelopes = st.builds(
    lambda kind, more, ts, seq: orjson.dumps(
        {"event": {**more, "type": kind}, "info": {"run_id": RUN, "ts_millis": ts}, "seq": seq},
        option=orjson.OPT_SORT_KEYS,
    ),
    st.sampled_from(["run_started", "run_suspended", "run_completed", "run_odd", "state_entered"]),
    st.dictionaries(
        st.sampled_from(["op_id", "status", "waits"]),
        st.none()
        | st.integers(-5, 5)
        | st.text(st.characters(codec="utf-8"))
        | st.lists(st.just("x") | st.builds(lambda due: {"due_ms": due}, numbers), max_size=3),
    ),
    numbers,
    st.integers(0, 9),
)
anything = st.binary(max_size=60) | st.binary(max_size=9).map(b'{"type":"run_'.__add__) | envelopes


def rows(log):
    return [(event.seq, event.data) for event in log]


def test_a_run_goes_through_its_statuses():
    log = rows(log_of(RUN, 4, op="billing", status="completed"))
    assert advance(None, RUN, []) == EMPTY
    assert advance(None, RUN, log[:1]) == RunRow(RUN, "billing", "running", START + 1, START + 1, 1)
    assert advance(None, RUN, log[:3]) == RunRow(RUN, "billing", "running", START + 1, START + 1, 3)
    assert advance(None, RUN, log) == RunRow(RUN, "billing", "completed", START + 1, START + 4, 4)


def test_a_suspended_run_has_the_earliest_end_of_its_waits():
    log = [
        seal(1, b'{"op_id":"one","type":"run_started"}', RUN, START),
        seal(2, suspended(9, None, 7), RUN, 4),
    ]
    events = list(enumerate(log, 1))
    assert advance(None, RUN, events) == RunRow(RUN, "one", "suspended", START, 4, 2, None, 7)
    assert advance(None, RUN, [*events, (3, seal(3, ANSWER, RUN, 5))]).wake_ms == 7
    for body in (RESUMED, suspended(None), b'{"status":"failed","type":"run_completed"}'):
        assert advance(None, RUN, [*events, (3, seal(3, body, RUN, 5))]).wake_ms is None


@pytest.mark.parametrize(
    "waits",
    [
        b"{}",
        b"[[]]",
        b'[{"due_ms":"7"}]',
        b'[{"due_ms":true}]',
        b'[{"due_ms":-1}]',
        b'[{"due_ms":1.5}]',
        b'[{"due_ms":9223372036854775808}]',
    ],
)
def test_waits_that_are_none_wake_nobody(waits):
    body = b'{"type":"run_suspended","waits":%b}' % waits
    assert advance(EMPTY, RUN, [(1, seal(1, body, RUN, START))]) == RunRow(RUN, "", "suspended", 0, START, 1)


def test_a_domain_event_cannot_pass_for_a_run_level_one():
    body = b'{"name":"x","payload":{"op_id":"forged","type":"run_started"},"type":"domain_event"}'
    assert advance(EMPTY, RUN, [(1, seal(1, body, RUN, START))]) == RunRow(RUN, "", "pending", 0, 0, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'"type":"run_',
        b'["type":"run_"]',
        b'{"event":{"type":"run_started"}}',
        b'{"event":["type","run_started"],"info":{"ts_millis":1},"x":{"type":"run_started"}}',
        b'{"event":{"type":"run_started"},"info":{"ts_millis":"1"}}',
        b'{"event":{"type":"run_started"},"info":{"ts_millis":true}}',
        b'{"event":{"type":"run_started"},"info":{"ts_millis":-1}}',
        b'{"event":{"type":"run_started"},"info":{"ts_millis":18446744073709551615}}',
        b'{"event":{"type":"run_started"},"info":[]}',
        b'"\\"type\\":\\"run_"',
        b"[" * 5000 + b'"type":"run_',
    ],
)
def test_what_is_no_envelope_moves_the_head_alone(data):
    assert advance(EMPTY, RUN, [(1, data)]) == RunRow(RUN, "", "pending", 0, 0, 1)


def test_an_op_or_status_that_is_no_text_is_passed_over():
    odd = [
        seal(1, b'{"op_id":7,"type":"run_started"}', RUN, START),
        seal(2, b'{"status":null,"type":"run_completed"}', RUN, START),
        seal(3, b'{"type":"run_completed"}', RUN, START),
    ]
    assert advance(None, RUN, enumerate(odd, 1)) == RunRow(RUN, "", "running", START, START, 3)


@settings(derandomize=True, database=None, deadline=None, max_examples=300)
@given(st.lists(anything, max_size=8), st.integers(0, 8))
def test_it_is_total_and_does_not_depend_on_how_events_are_grouped(log, cut):
    events = list(enumerate(log, 1))
    whole = advance(None, RUN, events)
    assert advance(advance(None, RUN, events[:cut]), RUN, events[cut:]) == whole
    assert whole.head_seq == len(log)
    assert all(type(each) is str for each in (whole.op_id, whole.status))
    assert all(0 <= each < 2**63 for each in (whole.created_ms, whole.updated_ms, whole.wake_ms or 0))
