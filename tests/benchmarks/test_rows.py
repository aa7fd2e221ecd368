"""Rows: a goal is judged by the ratio where there is one, and a figure that is missing says why."""

from __future__ import annotations

import json
from pathlib import Path

from contest import Found
from rows import Row, at_least, at_most, cells, markdown, row

FOUND = Found(
    {
        "ours": [{"us": 50.0}, {"us": 70.0}, {"us": 60.0}],
        "peer": [{"us": 700.0}, {"us": 600.0}, {"us": 660.0}],
    },
    {"gone": "ModuleNotFoundError: No module named 'gone'"},
)


def test_a_goal_without_a_ratio_is_of_the_value():
    assert row(FOUND, "ours", "us", "µs", goal=at_most(60)).met is True
    assert row(FOUND, "ours", "us", "µs", goal=at_most(59)).met is False


def test_a_goal_with_a_ratio_is_of_the_ratio():
    assert row(FOUND, "peer", "us", "µs", over="ours", goal=at_least(11)).met is True
    assert row(FOUND, "peer", "us", "µs", over="ours", goal=at_least(11.5)).met is False


def test_a_peer_that_is_absent_has_a_row_that_says_so():
    missing = row(FOUND, "gone", "us", "µs", over="ours", goal=at_least(20))
    assert missing.met is None
    assert missing.to_json()["absent"] == FOUND.absent["gone"]
    assert "No module named 'gone'" in cells(missing.to_json())[1]


def test_a_ratio_over_somebody_absent_is_not_judged():
    assert row(FOUND, "peer", "us", "µs", over="gone", goal=at_least(1)).met is None


def test_what_is_kept_holds_the_goal_and_whether_it_was_met():
    kept = row(FOUND, "peer", "us", "µs", over="ours", goal=at_least(20)).to_json()
    assert kept["goal"] == {"at_least": 20, "of": "ratio"}
    assert (kept["value"], kept["ratio"], kept["met"]) == (660.0, 11.0, False)


def test_a_row_is_printed_with_its_ratio_its_goal_and_the_verdict():
    kept = row(FOUND, "peer", "us", "µs", over="ours", goal=at_least(20)).to_json()
    assert cells(kept) == ["peer", "660 µs", "11 × ours", "≥ 20 ×", "MISSED"]
    assert cells(Row(what="alone", value=1234.5, unit="B").to_json()) == ["alone", "1,234 B", "", "", ""]


def test_the_page_shows_the_table_that_was_kept_last():
    docs = Path(__file__).resolve().parents[2] / "docs"
    kept = max((docs / "performance").glob("*.json"))
    figures = json.loads(kept.read_text(encoding="utf-8"))["figures"]
    assert markdown(figures) in (docs / "performance.md").read_text(encoding="utf-8")
