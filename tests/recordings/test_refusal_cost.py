"""What a bundle costs to refuse: no more for twice the size than twice as much, counted and not timed."""

from __future__ import annotations

import sys
import tracemalloc

import pytest
from absurd_logs import Absurd, recorded
from blake3 import blake3

from machine import canonical, open_bundle
from machine.errors import BundleError
from machine.recordings import bundle_line


@pytest.fixture(scope="module")
def runs():
    return {run.name: run for run in recorded()}


@pytest.fixture(scope="module")
def header(runs, tmp_path_factory):
    run = runs["failing"]
    absurd = Absurd(run, run.events, tmp_path_factory.mktemp("cost") / "sound.run")
    assert absurd.imports()
    return absurd.path.read_bytes().split(b"\n")[0]


def summed(text):
    return b'%b,"sum":"%b"}' % (text[:-1], blake3(text).hexdigest()[:16].encode())


def event(value, seq=1):
    return summed(canonical.encode({"event": value, "info": {"ts_millis": 1}, "seq": seq}))


def waits(count):
    return [event({"type": "run_suspended", "waits": [0] * count})]


def unknown_fields(count):
    return [event({"type": "run_resumed", "by": "x", **{f"f{number}": 0 for number in range(count)}})]


def nested(count):
    return [summed(b'{"event":%b,"info":{},"seq":1}' % (b"[" * count + b"]" * count))]


def long_numbers(count):
    return [summed(b'{"event":{"a":%b},"info":{},"seq":1}' % (b"9" * count))]


def exponents(count):
    return [summed(b'{"event":{"a":[%b]},"info":{},"seq":1}' % b",".join([b"1e999999"] * count))]


def empty_lines(count):
    return [b""] * count


def artifacts_that_nothing_names(count):
    lines = []
    for number in range(count):
        data = canonical.encode(number)
        lines.append(
            bundle_line.artifact_line(bundle_line.Artifact(canonical.artifact_id(data), "fact_payload", data))
        )
    return lines


def quotes(count):
    return [summed(b'{"artifact":{"id":"%b","kind":"x","text":"%b"}}' % (b"0" * 64, b'\\"' * count))]


def kinds(count):
    return [summed(b'{"artifact":{"id":"%b","json":%b}}' % (b"0" * 64, b'","kind":"x"}' * count))]


def lone_words(count):
    return [event({"type": "fact_recorded", "key": "@a/" + "/0" * count})]


def large_ints(count):
    return [event({"type": "domain_event", "payload": {"a": [2**53 - 1] * count}})]


HOSTILE = [
    waits,
    unknown_fields,
    nested,
    long_numbers,
    exponents,
    empty_lines,
    artifacts_that_nothing_names,
    quotes,
    kinds,
    lone_words,
    large_ints,
]


def cost(path):
    """Return how many calls a refusal takes, and how many bytes are held at once."""
    calls = 0

    def count(frame, what, argument):
        nonlocal calls
        calls += what in {"call", "c_call"}

    tracemalloc.start()
    sys.setprofile(count)
    try:
        with pytest.raises(BundleError) as failure:
            open_bundle(path)
    finally:
        sys.setprofile(None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert len(str(failure.value)) < 10_000
    return calls, peak


@pytest.mark.parametrize("hostile", HOSTILE)
def test_twice_the_size_is_refused_for_twice_the_cost(header, tmp_path, hostile):
    costs = []
    for count in (4_000, 8_000):
        path = tmp_path / f"{count}.run"
        path.write_bytes(b"\n".join([header, *hostile(count), b""]))
        costs.append((*cost(path), path.stat().st_size))
    (calls, peak, size), (twice_calls, twice_peak, twice_size) = costs
    grown = twice_size / size
    assert twice_calls <= 1.2 * grown * calls + 1000
    assert twice_peak <= 1.2 * grown * peak + 1_000_000
    assert twice_peak <= 100 * twice_size + 2_000_000, "of a few bytes many are made"
