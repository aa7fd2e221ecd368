"""Runs that a filter selects: the language, its faults, and the same runs in every store."""

from __future__ import annotations

import pytest

from machine import Failure, Plan, RetryPolicy, open_store, run
from machine.engine import run_reader
from machine.engine.filter_text import And, Comparison, Not, Or, parsed
from machine.engine.filtered_runs import filtered
from machine.errors import UsageError
from machine.stores.memory import MemoryStore

HOUR = 3600 * 1000


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("status = failed", Comparison("status", "=", ("failed",))),
        ("""state='pay.charge'""", Comparison("state", "=", ("pay.charge",))),
        ('op = "a b"', Comparison("op", "=", ("a b",))),
        ("waiting > 1h30m", Comparison("waiting", ">", (5400 * 1000,))),
        ("age<=2d", Comparison("age", "<=", (48 * HOUR,))),
        ("attempts in (1, 2)", Comparison("attempts", "in", (1, 2))),
        ("not op = x", Not(Comparison("op", "=", ("x",)))),
        (
            "op = x or op = y and not (age > 1s)",
            Or(
                (
                    Comparison("op", "=", ("x",)),
                    And((Comparison("op", "=", ("y",)), Not(Comparison("age", ">", (1000,))))),
                )
            ),
        ),
        ('op = "and" AND op = "("', And((Comparison("op", "=", ("and",)), Comparison("op", "=", ("(",))))),
    ],
)
def test_a_filter_is_read(text, tree):
    assert parsed(text) == tree


@pytest.mark.parametrize(
    ("text", "position", "column"),
    [
        ("", 1, None),
        ("stat = failed", 1, None),
        ("status failed", 8, "status"),
        ("status =", 9, "status"),
        ("status = failed op = x", 17, "op"),
        ("status < failed", 8, "status"),
        ("attempts = many", 12, "attempts"),
        ("attempts = 1h", 12, "attempts"),
        ("waiting > 5", 11, "waiting"),
        ("waiting > 1w", 11, "waiting"),
        ("age > 1h and (op = x", 21, "op"),
        ("op = x)", 7, "op"),
        ("op in x", 7, "op"),
        ("op in (x y)", 10, "op"),
        ("op = 'x", 6, "op"),
        ("op = x & age > 1h", 8, "op"),
        ("op = and", 6, "op"),
        ("op = ,", 6, "op"),
        ("not", 4, None),
        ("(" * 200, 101, None),
        ("attempts = " + "9" * 30, 12, "attempts"),
    ],
)
def test_a_filter_that_means_nothing_names_the_position_and_the_column(text, position, column):
    with pytest.raises(UsageError) as caught:
        parsed(text)

    assert caught.value.code == "invalid_filter"
    assert caught.value.info.details["position"] == position
    assert caught.value.info.details.get("column") == column


PLAN = Plan("op")


@PLAN.state("work.first", retry=RetryPolicy(3))
async def first(ctx, io):
    if ctx["do"] == "retry":
        raise ValueError("again")
    if ctx["do"] == "fail":
        raise Failure("no", code="out_of_stock")


@PLAN.state("work.second", after=[first])
async def second(ctx, io):
    if ctx["do"] == "wait":
        await io.wait_signal("paid")


@pytest.fixture(params=["memory", "sqlite"])
def full(request, tmp_path):
    """Return a store with a run of each kind, and the name of each by its id."""
    store = MemoryStore() if request.param == "memory" else open_store(f"sqlite:///{tmp_path}/runs.db")
    with store:
        names = {
            run(PLAN, store=store, input={"do": do}).run_id: do for do in ("done", "fail", "retry", "wait")
        }
        later = store.clock() + HOUR
        store.clock = lambda: later
        yield store, names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("status = failed", "fail retry"),
        ("op = op", "done fail retry wait"),
        ("op = other or status = completed", "done"),
        ("status != failed and age > 30m", "done wait"),
        ("age < 30m", ""),
        ("state = work.first", "fail retry"),
        ("state = op.work.second", "wait"),
        ("state != work.first", "done wait"),
        ("error.code = out_of_stock", "fail"),
        ('error.code in (handler_error, "out_of_stock")', "fail retry"),
        ("not error.code = out_of_stock and status = failed", "retry"),
        ("attempts = 3", "retry"),
        ("retries >= 1", "retry"),
        ("attempts in (1, 2)", "done fail wait"),
        ("wait = signal", "wait"),
        ("waiting > 59m", "wait"),
        ("waiting > 2h", ""),
        ("error.code = handler_error and state = work.first or waiting > 1m", "retry wait"),
        (f"plan = {PLAN.graph.plan_id}", "done fail retry wait"),
        ("events > 1000", ""),
    ],
)
def test_a_filter_selects_the_same_runs_of_every_store(full, text, expected):
    store, names = full

    found = [names[each.row.run_id] for each in filtered(store, parsed(text))]

    assert sorted(found) == sorted(expected.split())
    assert [each for each in names.values() if each in found] == found[::-1]


def test_a_log_is_read_only_where_the_row_does_not_decide(full, monkeypatch):
    store, _ = full
    read = []
    folded = run_reader.folded
    monkeypatch.setattr(run_reader, "folded", lambda *given: read.append(given[1]) or folded(*given))

    assert list(filtered(store, parsed("status = cancelled and state = x"))) == []
    assert list(filtered(store, parsed("age > 5d and error.code = x"))) == []
    assert len(list(filtered(store, parsed("age > 1s or error.code = x")))) == 4
    assert read == []
    list(filtered(store, parsed("status = suspended and state = x")))
    assert len(read) == 1


def test_a_status_that_there_is_not_is_refused(full):
    with pytest.raises(UsageError) as caught:
        list(filtered(full[0], parsed("not (age > 1h or status = faild)")))
    assert caught.value.code == "invalid_filter"


def test_a_run_that_cannot_be_read_is_named_and_stops_no_other(full):
    store, names = full
    broken = next(run_id for run_id, do in names.items() if do == "fail")
    read_range = store.read_range
    damage = lambda run_id, *given: read_range(run_id, *given) if run_id != broken else iter(())  # noqa: E731 - short
    store.read_range = damage

    found = list(filtered(store, parsed("error.code = handler_error")))

    assert [(names[each.row.run_id], each.error is not None) for each in found] == [
        ("retry", False),
        ("fail", True),
    ]
