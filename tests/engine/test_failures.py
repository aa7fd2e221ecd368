"""Failures: what is told of them, and what follows: causes, notes, groups, and a wait that was asked for."""

from __future__ import annotations

import asyncio
import email.utils
import itertools
import json

import httpx
import pytest

from machine import Failure, FixedBackoff, Plan, RetryPolicy, replay, run
from machine.codec import decode_entry
from machine.errors import OtherIoError, RateLimitedError, TransportError
from machine.events import RetryScheduled, StateFailed
from machine.exception_causes import causes_of, causes_text
from machine.failed_attempt_info import LONGEST_WAIT, read_causes, read_wait
from machine.io.http_message import HttpResponse
from machine.retry_after import seconds_asked, wait_asked
from machine.testing import golden_live

HOURS = 3600.0


def failing(handler, **options):
    plan = Plan("op")
    plan.state("step.only", **options)(handler)
    return plan


def entries(store, run_id):
    return [decode_entry(stored.seq, stored.data) for stored in store.read_range(run_id)]


def chained():
    try:
        try:
            {}["ROOT"]
        except KeyError as exc:
            exc.add_note("look in the drawer")
            raise
    except KeyError as exc:
        raise RuntimeError("no customer") from exc


def kept_from_sight():
    try:
        {}["HIDDEN"]
    except KeyError:
        raise RuntimeError("no customer") from None


def while_handling():
    try:
        {}["ROOT"]
    except KeyError:
        raise RuntimeError("no customer")  # noqa: B904 - it is the point


def noted():
    exc = ValueError("bad row")
    exc.add_note("in line 7")
    raise exc


def grouped():
    inner = ValueError("two")
    inner.__cause__ = KeyError("deep")
    raise ExceptionGroup("several", [TypeError("one"), ExceptionGroup("more", [inner, OSError("three")])])


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (chained, [("cause", 0, "KeyError: 'ROOT'"), ("note", 1, "look in the drawer")]),
        (kept_from_sight, []),
        (while_handling, [("context", 0, "KeyError: 'ROOT'")]),
        (noted, [("note", 0, "in line 7")]),
        (
            grouped,
            [
                ("member", 0, "TypeError: one"),
                ("member", 0, "ExceptionGroup: more (2 sub-exceptions)"),
                ("member", 1, "ValueError: two"),
                ("cause", 2, "KeyError: 'deep'"),
                ("member", 1, "OSError: three"),
            ],
        ),
    ],
)
def test_what_stands_behind_an_exception_is_recorded_beside_it(store, raised, told):
    plan = failing(lambda ctx, io, rec: raised())
    result = run(plan, store=store)

    seen = [
        (cause.relation, cause.depth, cause.text.partition(" (test_")[0]) for cause in result.error.causes
    ]
    assert seen == told
    (failed,) = [entry for entry in entries(store, result.run_id) if isinstance(entry.event, StateFailed)]
    assert read_causes(failed.info) == result.error.causes
    assert b"causes" not in failed.body
    assert replay(result.run_id, plan=plan, store=store).identical


def test_the_place_of_a_cause_is_told(store):
    result = run(failing(lambda ctx, io, rec: chained()), store=store)

    assert result.error.causes[0].text.endswith(" in chained)")
    assert "test_failures.py:" in result.error.causes[0].text


def test_a_group_of_one_is_the_failure_itself_with_the_notes_of_both(store):
    async def handler(ctx, io, rec):
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(asyncio.to_thread(noted))
        except BaseExceptionGroup as group:
            group.add_note("while loading")
            raise

    result = run(failing(handler), store=store)

    assert result.error.message == "ValueError: bad row"
    assert [cause.text for cause in result.error.causes] == ["while loading", "in line 7"]


def test_causes_are_bounded_and_end_where_they_go_in_circles():
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert [cause.text for cause in causes_of(one)] == ["ValueError: two"]

    many = ExceptionGroup("many", [ValueError("x" * 5000) for _ in range(1000)])
    found = causes_of(many)
    assert len(found) == 33
    assert "left out" in found[-1].text
    assert max(len(cause.text) for cause in found) < 1100

    deep = ValueError("0")
    for number in range(1, 100):
        outer = ValueError(str(number))
        outer.__cause__ = deep
        deep = outer
    assert len(causes_of(deep)) == 8


def test_a_cause_whose_text_or_notes_are_odd_is_told_as_well_as_can_be():
    class BrokenError(Exception):
        def __str__(self):
            raise ValueError

    exc = ValueError("x")
    exc.__cause__ = BrokenError()
    exc.__notes__ = ["lone \ud800", 7]
    found = causes_of(exc)
    assert found[0].text == "lone \\ud800"
    assert found[1].text.endswith("BrokenError: (its text cannot be had: ValueError)")

    exc.__notes__ = "look in the drawer"
    assert [cause.text for cause in causes_of(exc)][:-1] == ["look in the drawer"]

    for odd in (7, None, b"bytes", {"a": 1}, itertools.repeat("without end")):
        exc.__notes__ = odd
        assert len(causes_of(exc)) == 1


def test_causes_hold_no_secret(store, monkeypatch):
    monkeypatch.setenv("API_KEY", "correct-horse-battery")

    async def handler(ctx, io, rec):
        await io.secret("API_KEY")
        try:
            raise KeyError("correct-horse-battery")  # noqa: TRY301 - the cause is the point
        except KeyError as exc:
            exc.add_note("it was correct-horse-battery")
            raise RuntimeError("refused") from exc

    result = run(failing(handler, side_effects="read_only_io"), store=store)

    assert [cause.relation for cause in result.error.causes] == ["cause", "note"]
    assert all(b"correct-horse" not in stored.data for stored in store.read_range(result.run_id))


def test_causes_that_cannot_be_read_count_as_none():
    odd = '[{"depth":"x","relation":"a","text":"b"}]'
    for written in (None, 7, "", "{", "[7]", '[{"relation":"cause"}]', odd):
        assert read_causes({"causes": written}) == ()
    for said, waits in ((None, 0), (7, 0), ("", 0), ("-1", 0), ("٣", 0), ("9" * 50, 0), ("5", 5)):
        assert read_wait({"retry_after_ms": said}) == waits
    assert read_wait({"retry_after_ms": "999999999"}) == LONGEST_WAIT * 1000


def test_a_replay_that_fails_as_the_recording_did_not_says_why(store):
    bad = False

    async def handler(ctx, io, rec):
        if bad:
            chained()

    plan = failing(handler)
    result = run(plan, store=store)
    bad = True
    divergence = replay(result.run_id, plan=plan, store=store).divergence

    assert divergence.kind == "event_differs"
    assert [line.partition(" (test_")[0].strip() for line in divergence.raised[1:]] == [
        "caused by KeyError: 'ROOT'",
        "look in the drawer",
    ]
    assert divergence.raised[0].startswith("  raised at test_failures.py:")


def test_a_golden_whose_run_failed_tells_the_causes(store):
    result = run(failing(lambda ctx, io, rec: chained()), store=store)
    told = golden_live.ended_badly(result, ["completed"])

    assert any("caused by KeyError: 'ROOT'" in line for line in told.lines)


def test_causes_are_indented_by_their_depth():
    exc = ValueError("x")
    exc.__cause__ = KeyError("y")
    exc.__cause__.add_note("first\nsecond")

    assert causes_text(causes_of(exc)) == ["  caused by KeyError: 'y'", "    first", "      second"]


# -- groups --------------------------------------------------------------------------------------------------


def no():
    return Failure("refused", code="card_refused", retryable=False)


def yes():
    return OtherIoError("busy", code="busy", retryable=True)


@pytest.mark.parametrize(
    ("group", "retryable"),
    [
        (lambda: ExceptionGroup("g", [no(), no()]), False),
        (lambda: ExceptionGroup("g", [no(), yes()]), False),
        (lambda: ExceptionGroup("g", [yes(), ValueError("x"), no()]), False),
        (lambda: ExceptionGroup("g", [yes(), ExceptionGroup("h", [yes(), no()])]), False),
        (lambda: ExceptionGroup("g", [yes(), ExceptionGroup("h", [yes(), ValueError("x")])]), True),
        (lambda: ExceptionGroup("g", [ValueError("x"), yes()]), True),
        (lambda: BaseExceptionGroup("g", [asyncio.CancelledError(), yes()]), True),
        (lambda: BaseExceptionGroup("g", [asyncio.CancelledError(), no()]), False),
        (lambda: ExceptionGroup("g", [no()]), False),
        (lambda: ExceptionGroup("g", [ExceptionGroup("h", [no(), no()])]), False),
    ],
)
def test_a_group_may_be_retried_only_if_every_member_may(store, group, retryable):
    tried = []

    async def handler(ctx, io, rec):
        tried.append(1)
        raise group()

    plan = failing(handler, retry=RetryPolicy(2))
    result = run(plan, store=store)

    assert (len(tried), result.error.retryable) == (2 if retryable else 1, retryable)
    assert replay(result.run_id, plan=plan, store=store).identical


# -- a wait that was asked for -------------------------------------------------------------------------------

NOW = 1_700_000_000.0
DATE = email.utils.formatdate(NOW, usegmt=True)


@pytest.mark.parametrize(
    ("said", "date", "seconds"),
    [
        ("1", "", 1.0),
        (" 30 ", "", 30.0),
        ("0", "", 0.0),
        ("1.5", "", 1.5),
        ("99999999999999", "", 6 * HOURS),
        ("9" * 400, "", 6 * HOURS),
        ("-5", "", None),
        ("soon", "", None),
        ("", "", None),
        ("nan", "", None),
        ("1e3", "", None),
        ("٣", "", None),
        ("1, 2", "", None),
        (email.utils.formatdate(NOW + 20, usegmt=True), DATE, 20.0),
        (email.utils.formatdate(NOW + 20, usegmt=True), "", 20.0),
        (email.utils.formatdate(NOW + 20, usegmt=True), "garbage", 20.0),
        (email.utils.formatdate(NOW - 20, usegmt=True), DATE, 0.0),
        (email.utils.formatdate(NOW + 20), DATE, 20.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", DATE, 6 * HOURS),
        ("Fri, 99 Dec 2023 23:59:59 GMT", DATE, None),
    ],
)
def test_retry_after_is_a_number_or_a_date_and_nothing_absurd(said, date, seconds):
    assert seconds_asked(said, date, NOW) == seconds


def answer(status, *headers):
    return HttpResponse(status, "http://a.test/", headers, b"")


def raised_by(status, *headers):
    with pytest.raises((RateLimitedError, TransportError)) as caught:
        answer(status, *headers).raise_for_status()
    return caught.value


def test_what_an_answer_asks_to_wait_leaves_its_error_as_it_was():
    for status, code in ((429, "rate_limited"), (503, "http_status")):
        exc = raised_by(status, ("retry-after", "7"))
        assert (exc.code, exc.retry_after, wait_asked(exc, NOW)) == (code, 7.0, 7000)
        exc = raised_by(status, ("retry-after", email.utils.formatdate(NOW + 9, usegmt=True)), ("date", DATE))
        assert (exc.retry_after, wait_asked(exc, 0.0)) == (None, 9000)
    assert raised_by(503, ("retry-after", "7")).info.details == {"status": 503, "url": "http://a.test/"}
    assert wait_asked(raised_by(500, ("retry-after", "7")), NOW) == 0
    assert wait_asked(raised_by(404, ("retry-after", "7")), NOW) == 0


def test_whoever_says_it_is_heard():
    limited, busy = RateLimitedError("x", retry_after=2), TransportError("x", retry_after=3.5, retryable=True)
    wrapped = ValueError("x")
    wrapped.__cause__ = limited
    limited.__cause__ = wrapped
    request = httpx.Request("GET", "http://a.test")
    others = httpx.HTTPStatusError(
        "x", request=request, response=httpx.Response(429, headers={"Retry-After": "4"}, request=request)
    )

    assert wait_asked(limited, NOW) == 2000
    assert wait_asked(busy, NOW) == 3500
    assert wait_asked(wrapped, NOW) == 2000
    assert wait_asked(others, NOW) == 4000
    assert wait_asked(ExceptionGroup("g", [limited, busy]), NOW) == 3500
    assert wait_asked(ValueError("x"), NOW) == 0
    for odd in (-1, float("nan"), float("inf"), "3"):
        assert wait_asked(RateLimitedError("x", retry_after=odd), NOW) == 0


@pytest.mark.parametrize(("backoff", "asked", "waited"), [(0.0, 0.03, 30), (0.05, 0.03, 50), (0.0, 0.0, 0)])
def test_the_longer_of_the_backoff_and_what_was_asked_is_recorded_and_waited(
    store, scripted, backoff, asked, waited
):
    outside = scripted(lambda request: RateLimitedError("slow down", retry_after=asked))

    async def handler(ctx, io, rec):
        await io.call("api", {})

    plan = failing(handler, side_effects="read_only_io", retry=RetryPolicy(2, FixedBackoff(backoff)))
    result = run(plan, store=store, transports={"api": outside})

    log = entries(store, result.run_id)
    assert [entry.event.delay_ms for entry in log if isinstance(entry.event, RetryScheduled)] == [waited]
    entered = [entry.ts_millis for entry in log if entry.event.type == "state_entered"]
    assert entered[1] - entered[0] >= waited - 1
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_recording_from_before_waits_were_honoured_replays(store, scripted, monkeypatch):
    """It has the delay of its policy, and nothing in the info of the failure."""
    outside = scripted(lambda request: RateLimitedError("slow down", retry_after=5000))

    async def handler(ctx, io, rec):
        await io.call("api", {})

    plan = failing(handler, side_effects="read_only_io", retry=RetryPolicy(2))
    with monkeypatch.context() as patch:
        patch.setattr("machine.engine.attempt_result.wait_asked", lambda *_: 0)
        result = run(plan, store=store, transports={"api": outside})

    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_failure_that_is_not_tried_again_says_what_was_asked(store):
    async def handler(ctx, io, rec):
        raise RateLimitedError("slow down", retry_after=3600)

    result = run(failing(handler), store=store)
    (failed,) = [entry for entry in entries(store, result.run_id) if isinstance(entry.event, StateFailed)]
    assert json.loads(failed.info["retry_after_ms"]) == 3_600_000
