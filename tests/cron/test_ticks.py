"""The decision which instant of a schedule is due: missed, overlapping, and in the two odd nights of Berlin."""

from __future__ import annotations

from datetime import UTC, datetime

import attrs
import pytest

from machine.cron.expressions import times_of
from machine.cron.ticks import Decision, decide, instant_text, last_tick, tick_key
from machine.kernel.run_index import RunRow
from machine.stores.schedule import CatchUp, Overlap
from machine.testing.store_samples import run_id_of, schedule_of

MINUTE, HOUR = 60_000, 3_600_000


def ms(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def clock(at):
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%d %H:%M")


@attrs.define
class World:
    """A schedule, its runs, and a clock."""

    schedule: object
    now: int
    rows: dict = attrs.field(factory=dict)
    questions: int = 0
    segments: dict = attrs.field(factory=dict)
    """The last segments of runs that went on, by the first."""

    def last_segment(self, run_id):
        return self.segments[run_id].run_id

    def run_row(self, run_id):
        return next(row for row in self.segments.values() if row.run_id == run_id)

    def last_invocation(self, first, before, *, created_by_ms=None):
        self.questions += 1
        found = [
            row
            for key, row in self.rows.items()
            if first <= key < before and (created_by_ms is None or row.created_ms <= created_by_ms)
        ]
        return max(found, key=lambda row: row.invocation_key, default=None)

    @property
    def times(self):
        return times_of(self.schedule.cron, self.schedule.tz)

    def look(self):
        return decide(self.schedule, self.times, self.now, self).due_ms

    def start(self, at, lasts=0, status="completed"):
        key = tick_key(self.schedule.name, at)
        assert key not in self.rows, "one run for an instant"
        ended = status == "completed"
        run_id = run_id_of(len(self.rows))
        row = RunRow(run_id, "op", status, self.now, self.now + (lasts if ended else 0), 1, key)
        self.rows[key] = row
        if ended:
            self.now += lasts

    def at(self, now, lasts=1000):
        """Start all that is due at a time, each run after the other, and return the instants."""
        self.now = max(self.now, now)
        started = []
        while (at := self.look()) is not None:
            self.start(at, lasts)
            started.append(clock(at))
        return started

    def through(self, until, every=40_000):
        """Look every few seconds, as a scheduler does."""
        started = []
        while self.now <= until:
            started += self.at(self.now, lasts=1)
            self.now += every
        return started


def world(cron, since, *, catch_up="skip", overlap="skip", tz="Europe/Berlin", **changes):
    since = ms(since)
    schedule = schedule_of(
        "one",
        cron=cron,
        tz=tz,
        catch_up=CatchUp(catch_up),
        overlap=Overlap(overlap),
        since_ms=since,
        **changes,
    )
    return World(schedule, since)


# on time


@pytest.mark.parametrize("catch_up", CatchUp)
@pytest.mark.parametrize("overlap", Overlap)
@pytest.mark.parametrize(
    ("cron", "night", "instants"),
    [
        ("30 2 * * *", "2026-03-29", ["29 01:00"]),
        ("30 2 * * *", "2026-10-25", ["25 00:30"]),
        ("0 * * * *", "2026-03-29", ["29 00:00", "29 01:00"]),
        ("0 * * * *", "2026-10-25", ["25 00:00", "25 01:00"]),
        (
            "*/15 * * * *",
            "2026-03-29",
            [f"29 {h}:{m}" for h in ("00", "01") for m in ("00", "15", "30", "45")],
        ),
        (
            "*/15 * * * *",
            "2026-10-25",
            [f"25 {h}:{m}" for h in ("00", "01") for m in ("00", "15", "30", "45")],
        ),
    ],
)
def test_a_scheduler_that_is_there_starts_each_instant_of_an_odd_night_once(
    cron, night, instants, catch_up, overlap
):
    one = world(cron, f"{night} 00:00", catch_up=catch_up, overlap=overlap)
    one.schedule = attrs.evolve(one.schedule, since_ms=one.now - 1)
    assert one.through(ms(f"{night} 01:59")) == instants


# missed


@pytest.mark.parametrize(
    ("catch_up", "cron", "night", "instants"),
    [
        ("skip", "30 2 * * *", "2026-03-29", []),
        ("one", "30 2 * * *", "2026-03-29", ["29 01:00"]),
        ("all", "30 2 * * *", "2026-03-29", ["29 01:00"]),
        ("skip", "30 2 * * *", "2026-10-25", []),
        ("one", "30 2 * * *", "2026-10-25", ["25 00:30"]),
        ("all", "30 2 * * *", "2026-10-25", ["25 00:30"]),
        ("one", "0 * * * *", "2026-03-29", ["29 02:00"]),
        ("all", "0 * * * *", "2026-03-29", ["28 23:00", "29 00:00", "29 01:00", "29 02:00"]),
        ("one", "0 * * * *", "2026-10-25", ["25 02:00"]),
        ("all", "0 * * * *", "2026-10-25", ["24 23:00", "25 00:00", "25 01:00", "25 02:00"]),
        ("one", "*/15 * * * *", "2026-03-29", ["29 02:30"]),
        ("one", "*/15 * * * *", "2026-10-25", ["25 02:30"]),
    ],
)
@pytest.mark.parametrize("overlap", Overlap)
def test_a_scheduler_that_was_away_in_an_odd_night_catches_up(catch_up, cron, night, instants, overlap):
    since = f"{night[:-2]}{int(night[-2:]) - 1} 22:30"
    one = world(cron, since, catch_up=catch_up, overlap=overlap)
    assert one.at(ms(f"{night} 02:31:05")) == instants
    assert one.at(ms(f"{night} 02:40")) == []


@pytest.mark.parametrize("night", ["2026-03-29", "2026-10-25"])
def test_all_quarters_of_an_odd_night_are_caught_up_in_order(night):
    one = world("*/15 * * * *", f"{night} 00:00", catch_up="all")
    wanted = [f"{night[-2:]} {h}:{m}" for h in ("00", "01") for m in ("00", "15", "30", "45")][1:]
    assert one.at(ms(f"{night} 01:59")) == wanted


def test_an_instant_is_in_time_for_a_minute():
    one = world("30 2 * * *", "2026-06-01 00:00", tz="UTC")
    one.now = ms("2026-06-01 02:30:59.999")
    assert one.look() == ms("2026-06-01 02:30")
    one.now += 1
    assert one.look() is None
    one.now = ms("2026-06-01 02:29:59.999")
    assert one.look() is None


def test_nothing_before_the_schedule_was_added_or_resumed_is_missed():
    one = world("30 2 * * *", "2026-06-03 02:30", catch_up="all", tz="UTC")
    assert one.at(ms("2026-06-04 02:29")) == []
    assert one.at(ms("2026-06-04 12:00")) == ["04 02:30"]
    one.schedule = attrs.evolve(one.schedule, paused=True)
    assert one.at(ms("2026-06-07 12:00")) == []
    assert decide(one.schedule, one.times, one.now, one) == Decision(None, None)
    one.schedule = one.schedule.paused_or_resumed(paused=False, now_ms=one.now)
    assert one.at(one.now) == []
    assert one.at(ms("2026-06-08 12:00")) == ["08 02:30"]


def test_a_year_of_minutes_is_caught_up_by_its_latest_with_few_questions():
    one = world("* * * * *", "2025-06-01 00:00", catch_up="one")
    assert one.at(ms("2026-06-01 00:00:30")) == ["01 00:00"]
    assert one.questions < 10


# overlapping


def test_an_instant_that_comes_while_the_last_run_is_not_over_is_skipped():
    one = world("0 * * * *", "2026-06-01 00:30", catch_up="all", overlap="skip", tz="UTC")
    one.now = ms("2026-06-01 01:00:01")
    one.start(one.look(), status="running")
    (key,) = one.rows
    for status in ("running", "suspended", "interrupted"):
        one.rows[key] = one.rows[key]._replace(status=status)
        one.now = ms("2026-06-01 03:30")
        assert decide(one.schedule, one.times, one.now, one) == Decision(None, one.now)
    one.rows[key] = one.rows[key]._replace(status="failed", updated_ms=ms("2026-06-01 03:20"))
    assert one.at(one.now) == [], "02:00 and 03:00 came while it was not over"
    assert one.at(ms("2026-06-01 04:00:10")) == ["01 04:00"]


@pytest.mark.parametrize("catch_up", CatchUp)
def test_an_instant_that_waits_for_the_last_run_is_started_after_it(catch_up):
    one = world("0 * * * *", "2026-06-01 00:30", catch_up=catch_up, overlap="queue", tz="UTC")
    one.now = ms("2026-06-01 01:00:01")
    one.start(one.look(), status="running")
    (key,) = one.rows
    one.now = ms("2026-06-01 03:30")
    assert one.look() is None
    one.rows[key] = one.rows[key]._replace(status="completed", updated_ms=ms("2026-06-01 03:20"))
    assert one.at(one.now) == ["01 02:00", "01 03:00"]


def test_what_was_missed_before_a_caught_up_run_began_does_not_overlap_it():
    one = world("0 * * * *", "2026-06-01 00:30", catch_up="all", overlap="skip", tz="UTC")
    # each takes forty minutes: 05:00 comes during the first and 06:00 during the third
    assert one.at(ms("2026-06-01 04:50"), lasts=40 * MINUTE) == [
        "01 01:00",
        "01 02:00",
        "01 03:00",
        "01 04:00",
    ]
    assert clock(one.now) == "01 07:30"
    assert one.at(ms("2026-06-01 08:00:01")) == ["01 08:00"]


@pytest.mark.parametrize(
    ("catch_up", "overlap", "then"),
    [
        ("skip", "skip", []),
        ("one", "skip", ["01 05:00"]),
        ("all", "skip", ["01 05:00"]),
        ("skip", "queue", ["01 06:00", "01 07:00"]),
        ("one", "queue", ["01 05:00", "01 06:00", "01 07:00"]),
        ("all", "queue", ["01 05:00", "01 06:00", "01 07:00"]),
    ],
)
def test_what_was_missed_before_a_late_run_began_and_what_overlaps_it_are_told_apart(catch_up, overlap, then):
    one = world("0 * * * *", "2026-06-01 03:30", catch_up=catch_up, overlap=overlap, tz="UTC")
    one.now = ms("2026-06-01 05:10")  # 05:00 is missed already when the run of 04:00 begins
    one.start(ms("2026-06-01 04:00"), lasts=130 * MINUTE)
    assert one.at(ms("2026-06-01 07:30")) == then


def test_an_instant_before_the_beginning_of_a_run_that_is_not_over_waits_for_it_too():
    one = world("* * * * *", "2026-06-01 00:59:30", catch_up="all", tz="UTC")
    one.now = ms("2026-06-01 01:02:30")
    one.start(ms("2026-06-01 01:00"), status="running")
    assert one.look() is None


# the keys


def test_keys_of_a_schedule_sort_by_their_instants():
    early, late = ms("2026-06-01 09:59"), ms("2026-11-01 00:00")
    assert tick_key("a", early) == "schedule:a:2026-06-01T09:59:00Z"
    assert tick_key("a", early) < tick_key("a", late)
    assert instant_text(10**18) == instant_text(10**17)
    assert instant_text(-5) == "1970-01-01T00:00:00Z"


def test_a_key_that_a_user_has_made_up_is_no_tick():
    one = world("0 * * * *", "2026-06-01 00:30", tz="UTC")
    one.now = ms("2026-06-01 01:00:01")
    one.start(ms("2026-06-01 01:00"))
    for word in ("2026-06-01T01:00:00Zz", "2026-06-01", "2026-06-01T00:59", "2027-01-01T00:00:00Z", "x"):
        key = f"schedule:one:{word}"
        one.rows[key] = RunRow(run_id_of(99), "op", "running", one.now, one.now, 1, key)
    found = last_tick(one, "one", one.now)
    assert (found.instant_ms, found.run_id) == (ms("2026-06-01 01:00"), run_id_of(0))
    assert last_tick(one, "on", one.now) is None
    assert one.at(ms("2026-06-01 02:00:30")) == ["01 02:00"]


def test_a_clock_that_goes_back_starts_nothing_twice_and_comes_back_to_where_it_was():
    one = world("0 * * * *", "2026-06-01 00:30", tz="UTC")
    one.at(ms("2026-06-01 01:00:01"))
    one.at(ms("2026-06-01 02:00:01"))
    one.now = ms("2026-06-01 01:00:30")
    assert one.look() is None
    assert one.at(ms("2026-06-01 03:00:30")) == ["01 03:00"]


@pytest.mark.parametrize("now", [-(10**18), 0, 10**17, 2**63 - 1])
def test_a_clock_that_is_far_off_starts_nothing(now):
    one = world("0 * * * *", "2026-06-01 00:30", catch_up="one")
    one.now = now
    assert one.look() is None or now > ms("2026-06-01 01:00")


def test_a_run_that_goes_on_as_another_is_over_with_the_last_one():
    one = world("0 * * * *", "2026-06-01 00:30", catch_up="all", overlap="queue", tz="UTC")
    one.now = ms("2026-06-01 01:00:01")
    one.start(ms("2026-06-01 01:00"))
    (key, first), *_ = one.rows.items()
    one.rows[key] = first._replace(next_run_id=run_id_of(7))
    one.segments = {first.run_id: first._replace(run_id=run_id_of(7), status="running", invocation_key=None)}
    one.now = ms("2026-06-01 02:30")
    assert last_tick(one, "one", one.now).ended_ms is None
    assert one.look() is None
    one.segments = {first.run_id: one.segments[first.run_id]._replace(status="failed", updated_ms=one.now)}
    assert last_tick(one, "one", one.now).ended_ms == one.now
    assert clock(one.look()) == "01 02:00", "it came while the last one was running, and was queued"
