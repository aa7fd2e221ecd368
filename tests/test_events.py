"""The envelope and its chain: what goes in comes out, and what was tampered with never passes for the same."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import EVENTS, FAST, NASTY_TEXT, OTHER_RUN_ID, RUN_ID, error_of

from machine import canonical, codec
from machine.envelope import split_envelope
from machine.errors import CodecError, LogError
from machine.events import (
    KERNEL_EVENTS,
    DomainEventRecorded,
    StateCompleted,
    StateEntered,
    StateFailed,
    StateSkipped,
    chain_next,
    seal,
)

SEQS = st.integers(1, 2**40)
TIMES = st.integers(0, 2**43)
# an escape such as \u001f can be spelled with other bits, and a line break cannot
PLAIN = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]) | st.just("\n"), max_size=12)
INFOS = st.none() | st.dictionaries(st.sampled_from(["trace", "provenance_id", "zone"]), PLAIN | NASTY_TEXT)
BODY = codec.encode_event(StateSkipped("op.step.a", "because"))


def envelope(event=BODY, info=b'{"run_id":"r","ts_millis":1}', seq=b"1"):
    return b'{"event":%b,"info":%b,"seq":%b}' % (event, info, seq)


def refused(data, seq=1):
    with pytest.raises(LogError) as caught:
        codec.decode_entry(seq, data)
    assert caught.value.seq == seq
    return caught.value.code


@FAST
@given(EVENTS, SEQS, TIMES, INFOS)
def test_what_is_sealed_comes_back_whole(event, seq, ts_millis, info):
    body = codec.encode_event(event)
    data = seal(seq, body, RUN_ID, ts_millis, info)
    entry = codec.decode_entry(seq, data)

    assert entry.event == event
    assert entry.body == body
    assert (entry.seq, entry.run_id, entry.ts_millis) == (seq, RUN_ID, ts_millis)
    assert entry.info == {**(info or {}), "run_id": RUN_ID, "ts_millis": ts_millis}
    assert split_envelope(seq, data) == (canonical.decode(body), body, entry.info)


@FAST
@given(EVENTS, SEQS, TIMES, INFOS)
def test_an_envelope_is_canonical_json(event, seq, ts_millis, info):
    data = seal(seq, codec.encode_event(event), RUN_ID, ts_millis, info)

    assert canonical.encode(canonical.decode(data)) == data


@pytest.mark.parametrize("text", [',"info":{', '"},"info":{"run_id":"x"},"seq":1}', '\\",\\"info\\":{', "\\"])
def test_text_that_looks_like_the_seam_of_an_envelope_is_only_text(text):
    event = DomainEventRecorded("mine", "op.step.a", 0, payload={text: text, "info": {"seq": text}})
    body = codec.encode_event(event)
    entry = codec.decode_entry(3, seal(3, body, RUN_ID, 0, {"trace": text}))

    assert (entry.event, entry.body, entry.info["trace"]) == (event, body, text)


def test_info_cannot_take_the_place_of_what_the_envelope_says():
    entry = codec.decode_entry(1, seal(1, BODY, RUN_ID, 5, {"run_id": OTHER_RUN_ID, "ts_millis": "7"}))

    assert (entry.run_id, entry.ts_millis) == (RUN_ID, 5)


# -- the chain -----------------------------------------------------------------------------------------------


@FAST
@given(EVENTS, SEQS, TIMES, st.none() | st.dictionaries(st.just("trace"), PLAIN), st.data())
def test_one_flipped_bit_changes_the_chain_and_never_passes_for_the_same_entry(
    event, seq, ts_millis, info, data
):
    good = seal(seq, codec.encode_event(event), RUN_ID, ts_millis, info)
    entry = codec.decode_entry(seq, good)
    bit = data.draw(st.integers(0, 8 * len(good) - 1))
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8

    assert chain_next(bytes(32), bytes(bad)) != chain_next(bytes(32), good)
    try:
        assert codec.decode_entry(seq, bytes(bad)) != entry
    except LogError as exc:
        assert exc.seq == seq  # noqa: PT017 - either outcome is right


HASH = canonical.artifact_id(b"")
ODD = [b"", b"0", b"-1", b"1.0", b"1e1", b" ", b'"', b"\\", b"\n", b"A", b"_.", b"null", b'"x":1,', b"9" * 17]


@pytest.mark.parametrize("event", [StateEntered("op.step.a", 0, HASH), StateCompleted("op.step.a", HASH)])
def test_the_envelope_of_a_step_is_read_as_any_other_is(event):
    good = seal(7, codec.encode_event(event), RUN_ID, 5)
    places = itertools.product(range(len(good) + 1), ODD, range(3))
    for bad in {good[:at] + odd + good[at + gone :] for at, odd, gone in places}:
        try:
            value, body, info = split_envelope(7, bad)
            slowly = codec.event_from_json(value), body, info
        except (LogError, CodecError):
            slowly = None
        try:
            entry = codec.decode_entry(7, bad)
            assert (entry.event, entry.body, entry.info) == slowly
        except LogError:
            assert slowly is None


@FAST
@given(st.lists(st.binary(max_size=4), min_size=2, max_size=5, unique=True), st.data())
def test_the_chain_notices_what_is_changed_lost_reordered_or_inserted(log, data):
    def chain(envelopes):
        value = bytes(32)
        for stored in envelopes:
            value = chain_next(value, stored)
        return value

    shuffled = data.draw(st.permutations(log))
    gone = data.draw(st.integers(0, len(log) - 1))

    assert len(chain(log)) == 32
    assert (chain(shuffled) == chain(log)) == (shuffled == log)
    assert chain(log[:gone] + log[gone + 1 :]) != chain(log)
    assert chain([*log[:gone], b"more", *log[gone:]]) != chain(log)


# -- bytes that are no envelope ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"7",
        b"[]",
        b"{}",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        envelope(event=b"null"),
        envelope(event=b"[]"),
        envelope(event=b'"x"'),
        envelope(event=b"{}"),
        envelope(event=b'{"type":"unheard_of"}'),
        envelope(event=b'{"type":[]}'),
        envelope(event=b'{"type":null}'),
        envelope(event=b'{"type":{"type":"state_skipped"}}'),
        envelope(event=BODY[:-1] + b',"more":1}'),
        envelope(info=b"null"),
        envelope(info=b"[]"),
        envelope(info=b"{}"),
        envelope(info=b'{"run_id":"r"}'),
        envelope(info=b'{"ts_millis":1}'),
        envelope(info=b'{"run_id":7,"ts_millis":1}'),
        envelope(info=b'{"run_id":"r","ts_millis":1.5}'),
        envelope(info=b'{"run_id":"r","ts_millis":true}'),
        envelope()[:-1],
        envelope()[:-1] + b',"tail":1}',
        b'{"event":%b,"info":{"run_id":"r","ts_millis":1}}' % BODY,
        b'{"info":{"run_id":"r","ts_millis":1},"event":%b,"seq":1}' % BODY,
    ],
    ids=lambda data: ascii(data[:60]),
)
def test_bytes_that_are_no_envelope_are_a_bad_event(data):
    assert refused(data) == "log_bad_event"


@pytest.mark.parametrize("seq", [b"2", b"0", b"-1", b'"1"', b"null", b"1.5", b"true", b"[1]"])
def test_an_envelope_that_claims_another_seq_is_refused(seq):
    assert refused(envelope(seq=seq)) in {"log_seq_gap", "log_bad_event"}


@pytest.mark.parametrize(
    "data",
    [
        envelope(info=b'{"run_id":"r","ts_millis":1,"x":{"a":1,"info":{}}}'),
        envelope(event=b"{}" + b',"event":' + BODY),
        envelope(event=b" " + BODY),
        envelope(event=BODY + b"\n"),
        envelope(event=BODY.replace(b"because", b"\\u0062ecause")),
    ],
    ids=[
        "an object in info",
        "a second event",
        "a leading space",
        "a trailing line break",
        "another spelling",
    ],
)
def test_a_body_is_the_canonical_bytes_of_its_event_or_the_entry_is_refused(data):
    assert refused(data) == "log_bad_event"


@FAST
@given(st.binary(max_size=80) | st.builds(envelope, *[st.binary(max_size=20)] * 3))
def test_any_bytes_give_an_entry_or_a_log_error(data):
    try:
        codec.decode_entry(1, data)
    except LogError as exc:
        assert exc.seq == 1  # noqa: PT017 - either outcome is right


# -- names ---------------------------------------------------------------------------------------------------


def test_the_kernel_events_are_those_of_the_contract():
    assert {
        "run_started",
        "cleanup_begun",
        "state_entered",
        "state_completed",
        "state_skipped",
        "state_failed",
        "retry_scheduled",
        "fact_recorded",
        "effect_intended",
        "wait_begun",
        "run_suspended",
        "run_resumed",
        "limit_reached",
        "run_completed",
    } == KERNEL_EVENTS


@pytest.mark.parametrize(
    ("code", "cut"),
    [("orphan_attempt_recovered", True), ("state_timeout", True), ("handler_error", False), ("mine", False)],
)
def test_an_attempt_was_cut_when_it_was_ended_from_outside(code, cut):
    assert StateFailed("op.step.a", error_of(code)).cut is cut
