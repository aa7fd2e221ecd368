"""The clock transport: the time as milliseconds, and waiting that can be cut."""

from __future__ import annotations

import math
import time

import anyio
import pytest

from machine.errors import Code, OtherIoError
from machine.io.clock import ClockTransport, now_request, sleep_request
from machine.io.transport import Transport

pytestmark = pytest.mark.anyio


async def test_now_is_integer_milliseconds_between_two_reads_of_the_clock():
    before = time.time_ns() // 1_000_000
    now = await ClockTransport().perform("clock.now", now_request())
    assert type(now) is int
    assert before <= now <= time.time_ns() // 1_000_000


async def test_sleep_waits_at_least_as_long_as_asked_and_answers_null():
    started = time.perf_counter()
    assert await ClockTransport().perform("clock.sleep", sleep_request(0.02)) is None
    assert time.perf_counter() - started >= 0.019


async def test_sleep_can_be_cancelled():
    with anyio.move_on_after(0.01) as scope:
        await ClockTransport().perform("clock.sleep", sleep_request(3600))
    assert scope.cancelled_caught


@pytest.mark.parametrize("seconds", [-1, math.inf, math.nan, 365 * 86400 + 1, "1", True, None])
def test_a_sleep_that_is_no_time_up_to_a_year_is_refused(seconds):
    with pytest.raises(OtherIoError) as caught:
        sleep_request(seconds)
    assert caught.value.code == Code.IO_INVALID_REQUEST
    assert not caught.value.info.retryable


@pytest.mark.parametrize("request_", [{}, {"seconds": "1"}, {"seconds": -1}, None, []])
async def test_a_foreign_request_is_refused_when_performed(request_):
    with pytest.raises(OtherIoError) as caught:
        await ClockTransport().perform("clock.sleep", request_)
    assert caught.value.code == Code.IO_INVALID_REQUEST


async def test_another_namespace_is_not_served():
    with pytest.raises(OtherIoError) as caught:
        await ClockTransport().perform("clock.set", {})
    assert caught.value.code == Code.IO_UNKNOWN_NAMESPACE


async def test_the_clock_is_a_transport_without_effects():
    clock = ClockTransport()
    assert isinstance(clock, Transport)
    assert not clock.is_effect("clock.now", now_request())
    assert not clock.is_certain_effect("clock.now", now_request())
    assert clock.with_idempotency_key("clock.now", now_request(), "key") == now_request()
    await clock.aclose()
