"""Whatever JSON stands where a value of this library is expected, it is that value or an error of this library."""

from __future__ import annotations

import functools

import pytest
from absurd_logs import VALUES, concurrent_plan, recorded
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import CONFIGS, EVENTS, FAST, JSON, MANIFESTS, PROVENANCES, RUN_ID

from machine import RunConfig, canonical, codec
from machine.config import BuildProvenance, FanOutJoin, RunManifest
from machine.engine.fork_prefix import SharedPast
from machine.errors import CodecError, CorruptionError, LogError, StoreError
from machine.events import seal
from machine.kernel.snapshot import Snapshot
from machine.plan_shape import shape_of
from machine.recordings import bundle_line

WILD = st.sampled_from(VALUES) | JSON | st.integers(-(2**53) + 1, 2**53 - 1)


def places(value, path=()):
    """Return the paths of everything in a JSON value."""
    found = [path]
    if isinstance(value, dict):
        found += [place for key, item in value.items() for place in places(item, (*path, key))]
    elif isinstance(value, list):
        found += [place for index, item in enumerate(value) for place in places(item, (*path, index))]
    return found


def put(value, path, new):
    """Return a JSON value with another in one place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(value[path[0]], path[1:], new)
    return copy


@st.composite
def wild(draw, documents):
    """Draw a JSON document with something else in a place or two of it."""
    value = canonical.decode(canonical.encode(draw(documents)))
    for _ in range(draw(st.integers(0, 2))):
        value = put(value, draw(st.sampled_from(places(value))), draw(WILD))
    return value


MANY = settings(FAST, max_examples=200)
CONCURRENT = st.builds(
    RunConfig, execution_mode=st.builds(FanOutJoin, st.integers(1, 9), st.sampled_from(["finish", "cancel"]))
)


@MANY
@given(wild(EVENTS.map(codec.event_to_json)), WILD)
def test_an_event_is_decoded_or_is_none(event, extra):
    info = {"run_id": RUN_ID, "ts_millis": 1, "extra": extra}
    data = b'{"event":%b,"info":%b,"seq":1}' % (canonical.encode(event), canonical.encode(info))
    try:
        entry = codec.decode_entry(1, data)
    except LogError as exc:
        assert (exc.code, exc.seq) == ("log_bad_event", 1)  # noqa: PT017 - either outcome is right
    else:
        assert codec.encode_event(entry.event) == entry.body or entry.body == canonical.encode(event)


@MANY
@given(st.binary(max_size=40) | JSON.map(canonical.encode))
def test_bytes_are_an_entry_or_are_none(data):
    with pytest.raises(LogError):
        codec.decode_entry(1, data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "documents"),
    [(RunConfig, CONFIGS | CONCURRENT), (RunManifest, MANIFESTS), (BuildProvenance, PROVENANCES)],
)
def test_a_value_is_read_or_is_none(kind, documents):
    @MANY
    @given(wild(documents.map(codec.to_json)))
    def check(value):
        try:
            assert isinstance(codec.from_json(value, kind), kind)
        except CodecError as exc:
            assert exc.problems  # noqa: PT017 - either outcome is right

    check()


@MANY
@given(wild(st.just(concurrent_plan().graph.shape())))
def test_a_plan_is_read_or_is_none(shape):
    try:
        shape_of("0" * 64, canonical.encode(shape))
    except CorruptionError as exc:
        assert exc.code == "artifact_corrupt"  # noqa: PT017 - either outcome is right


@functools.cache
def forked():
    return recorded()[-1]


@settings(FAST, max_examples=60)
@given(st.data())
def test_a_shared_past_is_read_or_is_none(data):
    (shared,) = [content for kind, content in forked().artifacts.values() if kind == "shared_past"]
    value = data.draw(wild(st.just(canonical.decode(shared))))
    try:
        SharedPast.from_bytes(canonical.encode(value), lambda artifact_id: b"{}")
    except CorruptionError as exc:
        assert exc.code == "artifact_corrupt"  # noqa: PT017 - either outcome is right


NODES = [
    {"type": "leaf", "entries": {"a": {"value": 1}, "b": {"ref": "0" * 64}}},
    {"type": "branch", "count": 17, "children": {"0": "1" * 64, "f": "2" * 64}},
]


@MANY
@given(wild(st.sampled_from(NODES)))
def test_a_snapshot_is_read_or_is_none(node):
    data = canonical.encode(node)
    root = canonical.artifact_id(data)

    def load(artifact_id):
        if artifact_id != root:
            raise StoreError("not there")
        return data

    for read in (
        lambda snapshot: snapshot.to_dict(),
        lambda snapshot: list(snapshot.parts()),
        lambda snapshot: snapshot.get("a"),
        lambda snapshot: snapshot.update({"a": b"1", "z": None}),
        len,
    ):
        try:
            read(Snapshot.open(root, load))
        except StoreError as exc:
            assert exc.code  # noqa: PT017 - either outcome is right


HEADER = {
    "bundle": {"format": "machine-bundle", "version": 1},
    "hash": "blake3",
    "plan": {},
    "provenance": {},
    "run_id": RUN_ID,
}


@MANY
@given(wild(st.just(HEADER)) | wild(st.just({"event": {"type": "x"}, "info": {"ts_millis": 1}, "seq": 1})))
def test_a_line_of_a_bundle_is_read_or_is_none(value):
    line = canonical.encode(value)
    for parse in (
        bundle_line.parse_header,
        bundle_line.parse_artifact,
        lambda line: bundle_line.parse_event(line, RUN_ID),
        bundle_line.check_sum,
    ):
        with pytest.raises((ValueError, LogError)):
            parse(line)


DEEP = b"[" * 1000 + b"]" * 1000


@pytest.mark.parametrize(
    "payload", [b"1e999999", b"9" * 5000, b"-" + b"9" * 400, DEEP, b'"\\ud800"', b"[" * 100_000, b"NaN"]
)
def test_numbers_and_nests_that_no_json_holds_are_no_entry(payload):
    body = b'{"name":"n","attempt":0,"payload":{"a":%b},"state_id":"a.b.c","type":"domain_event"}' % payload
    with pytest.raises(LogError) as failure:
        codec.decode_entry(1, seal(1, body, RUN_ID, 0))
    assert failure.value.code == "log_bad_event"
