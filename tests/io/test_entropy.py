"""Randomness: fresh bytes from outside, and what is derived from recorded ones."""

from __future__ import annotations

import subprocess
import sys
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.errors import Code, OtherIoError
from machine.io.entropy import EntropyTransport, bytes_from, random_bytes_request, random_from, uuid_from
from machine.io.transport import Transport

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("n", [1, 16, 65536])
async def test_as_many_fresh_bytes_come_as_asked_for(n):
    transport = EntropyTransport()
    one = bytes_from(await transport.perform("random.bytes", random_bytes_request(n)))
    other = bytes_from(await transport.perform("random.bytes", random_bytes_request(n)))
    assert len(one) == len(other) == n
    assert n == 1 or one != other


@pytest.mark.parametrize("n", [0, -1, 65537, 1.5, "1", True, None])
def test_a_number_of_bytes_out_of_range_is_refused(n):
    with pytest.raises(OtherIoError) as caught:
        random_bytes_request(n)
    assert caught.value.code == Code.IO_INVALID_REQUEST


@pytest.mark.parametrize("request_", [{}, {"bytes": 10**9}, {"bytes": True}, None])
async def test_a_foreign_request_is_refused_when_performed(request_):
    with pytest.raises(OtherIoError) as caught:
        await EntropyTransport().perform("random.bytes", request_)
    assert caught.value.code == Code.IO_INVALID_REQUEST


async def test_another_namespace_is_not_served():
    with pytest.raises(OtherIoError) as caught:
        await EntropyTransport().perform("random.dice", {})
    assert caught.value.code == Code.IO_UNKNOWN_NAMESPACE


@given(st.binary(min_size=16, max_size=16))
def test_a_uuid_is_of_version_4_and_a_function_of_its_bytes(data):
    made = uuid_from(data)
    assert (made.version, made.variant) == (4, uuid.RFC_4122)
    assert made == uuid_from(data)


def test_a_uuid_of_the_wrong_number_of_bytes_is_refused():
    with pytest.raises(OtherIoError):
        uuid_from(b"too short")


def test_a_generator_gives_the_same_stream_in_any_process_and_for_any_hash_seed():
    expected = random_from(bytes(range(32))).random()
    assert expected == 0.8836070240739063
    program = "from machine.io.entropy import random_from; print(random_from(bytes(range(32))).random())"
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        )
        assert float(run.stdout) == expected


async def test_entropy_is_a_transport_without_effects():
    assert isinstance(EntropyTransport(), Transport)
    assert not EntropyTransport().is_effect("random.bytes", {"bytes": 1})
