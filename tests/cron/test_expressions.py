"""The instants of cron expressions, in ordinary nights and in the two odd ones of Berlin."""

from __future__ import annotations

import importlib.util
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.cron.expressions import LAST_MS, NAMED, times_of
from machine.errors import Code, UsageError

BERLIN = "Europe/Berlin"
SPRING = "2026-03-29"
"""The night in which 02:00 to 02:59 never comes: 01:00 UTC is 03:00."""
AUTUMN = "2026-10-25"
"""The night in which 02:00 to 02:59 comes twice: 00:00 and 01:00 UTC are 02:00."""


def ms(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


def clock(at):
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%H:%M")


def of_night(expression, night, tz=BERLIN):
    """Return the instants of a night in UTC, from just before midnight in Berlin to 03:00 UTC."""
    times = times_of(expression, tz)
    at, found = ms(f"{night} 03:00") - 5 * 3_600_000, []
    while (at := times.after(at)) <= ms(f"{night} 03:00"):
        found.append(clock(at))
    return found


EVERY_QUARTER = [
    f"{hour}:{quarter}" for hour in ("23", "00", "01", "02") for quarter in ("00", "15", "30", "45")
]


@pytest.mark.parametrize(
    ("expression", "spring", "autumn"),
    [
        # 02:30 comes at 03:00 where it is left out, and once, in the first of two equal hours
        ("30 2 * * *", ["01:00"], ["00:30"]),
        ("0,30 2,3 * * *", ["01:00", "01:30"], ["00:00", "00:30", "02:00", "02:30"]),
        ("30 1-3 * * *", ["00:30", "01:00", "01:30"], ["23:30", "00:30", "02:30"]),
        # by the time that elapses: an hour has four quarters in every night
        (
            "*/15 * * * *",
            ["22:15", "22:30", "22:45", *EVERY_QUARTER, "03:00"],
            ["22:15", "22:30", "22:45", *EVERY_QUARTER, "03:00"],
        ),
        (
            "0 * * * *",
            ["23:00", "00:00", "01:00", "02:00", "03:00"],
            ["23:00", "00:00", "01:00", "02:00", "03:00"],
        ),
        (
            "@hourly",
            ["23:00", "00:00", "01:00", "02:00", "03:00"],
            ["23:00", "00:00", "01:00", "02:00", "03:00"],
        ),
        # a star in either field: as often as the clock shows it
        ("*/30 2 * * *", [], ["00:00", "00:30", "01:00", "01:30"]),
    ],
)
def test_the_two_odd_nights(expression, spring, autumn):
    assert of_night(expression, SPRING) == spring
    assert of_night(expression, AUTUMN) == autumn


@pytest.mark.parametrize("expression", ["30 2 * * *", "*/15 * * * *", "0 * * * *"])
@pytest.mark.parametrize("night", [SPRING, AUTUMN])
def test_the_latest_is_one_of_those_that_come_and_none_is_lost_wherever_a_look_begins(expression, night):
    times = times_of(expression, BERLIN)
    begin, end = ms(f"{night} 03:00") - 5 * 3_600_000, ms(f"{night} 03:00")
    every, at = [], begin
    while (at := times.after(at)) <= end:
        every.append(at)
    for look in range(begin, end, 7 * 60_000):
        assert times.after(look) == next((one for one in every if one > look), times.after(end))
        assert times.latest(begin, look) == next((one for one in reversed(every) if one <= look), None)


def test_the_second_of_two_equal_hours_is_not_the_first_again():
    times = times_of("30 2 * * *", BERLIN)
    assert times.after(ms(f"{AUTUMN} 01:10")) == ms("2026-10-26 01:30")
    assert times.latest(ms(f"{AUTUMN} 00:31"), ms(f"{AUTUMN} 02:00")) is None


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("@hourly", "2026-01-15 13:00"),
        ("@daily", "2026-01-16 00:00"),
        ("@weekly", "2026-01-18 00:00"),
        ("@monthly", "2026-02-01 00:00"),
        ("@YEARLY", "2027-01-01 00:00"),
    ],
)
def test_five_names(name, first):
    assert name.lower() in NAMED
    assert times_of(name, "UTC").after(ms("2026-01-15 12:00")) == ms(first)


def test_a_look_over_years_is_short():
    times = times_of("0 0 29 2 *", "UTC")
    assert times.latest(0, ms("2026-01-01 00:00")) == ms("2024-02-29 00:00")
    assert times.latest(ms("2024-02-29 00:00"), ms("2026-01-01 00:00")) is None
    assert times.latest(5, 5) is None


@pytest.mark.parametrize("at", [LAST_MS, 10**18, -(10**18), 2**63 - 1])
def test_a_clock_that_is_far_off_finds_nothing(at):
    times = times_of("* * * * *", BERLIN)
    assert times.after(at) is None
    assert times.latest(at - 1, at) is None


@pytest.mark.parametrize(
    "expression",
    [
        *("", " ", "* * * *", "* * * * * *", "0 30 2 * * *", "60 * * * *", "* 24 * * *", "* * 32 * *"),
        *("a * * * *", "*/0 * * * *", "@reboot", "@", "5-1 * * * *", "0 0 30 2 *", "1 2 3 4 x"),
        *("9" * 5000 + " * * * *", "٣ * * * *", "²L * * * *", "0 0 * * ²L", "\ud800 * * * *", None, 5),
    ],
)
def test_a_bad_expression_is_refused(expression):
    with pytest.raises(UsageError) as caught:
        times_of(expression, BERLIN)
    assert caught.value.code == Code.INVALID_CRON
    assert caught.value.hint


@given(st.lists(st.text("0123456789*/,-#LW@JANMO", max_size=8), min_size=5, max_size=5).map(" ".join))
def test_random_text_is_an_expression_or_is_refused(expression):
    try:
        times = times_of(expression, "UTC")
    except UsageError as exc:
        assert exc.code == Code.INVALID_CRON  # noqa: PT017 - either is right
    else:
        assert times.after(0) > 0


@pytest.mark.parametrize(
    "tz",
    ["Europe/Berln", "", "Europe", "../zone", "/etc/passwd", "a" * 5000, "\0", "\ud800", None, 5, "CET+1"],
)
def test_an_unknown_zone_is_refused(tz):
    with pytest.raises(UsageError) as caught:
        times_of("@daily", tz)
    assert caught.value.code == Code.UNKNOWN_TIME_ZONE


def test_without_the_extra_it_says_how_to_get_it(monkeypatch):
    assert importlib.util.find_spec("cronsim")
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(UsageError) as caught:
        times_of("@daily", "UTC")
    assert caught.value.code == Code.CRON_NOT_INSTALLED
    assert caught.value.hint == "install it: pip install 'replay-machine[schedule]'"
