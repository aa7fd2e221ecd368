"""The numbers of durability in the documents are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from machine.config import Durability
from machine.engine.drive_run import _CAREFUL, _CAREFUL_AT_FIRST
from machine.stores.base import CommitLimits

DOCS = Path(__file__).parents[2] / "docs"
PATTERNS = {
    r"first (\d+) attempts, \d+ after a resume": _CAREFUL_AT_FIRST,
    r"first \d+ attempts, (\d+) after a resume": _CAREFUL,
    r"first (\d+) attempts of a resumed run": _CAREFUL,
    r"attempts of a resumed run.{0,60} (\d+) of a new one": _CAREFUL_AT_FIRST,
    r"Each life gets (\d+) attempts": _CAREFUL,
    r"whenever ([\d,]+) events wait": CommitLimits().max_pending,
    r"A run that is faster has ([\d,]+) events": CommitLimits().max_pending,
}
TEXTS = {
    "Durability": 3,
    "how-it-works.md": 3,
    "guarantees.md": 2,
    "decisions/deaths-are-counted-in-the-log.md": 3,
    "decisions/the-writer-waits.md": 1,
}
"""The texts that say such numbers, and how many each says."""


def said(name):
    text = Durability.__doc__ if name == "Durability" else (DOCS / name).read_text(encoding="utf-8")
    text = re.sub(r"[\s*]+", " ", text)
    return [(found[1], value) for pattern, value in PATTERNS.items() for found in re.finditer(pattern, text)]


@pytest.mark.parametrize("name", TEXTS)
def test_each_number_is_that_of_the_code(name):
    found = said(name)
    assert len(found) == TEXTS[name]
    assert [int(number.replace(",", "")) for number, _ in found] == [value for _, value in found]


def test_no_other_text_says_one():
    names = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert {name for name in names if said(name)} == TEXTS.keys() - {"Durability"}


def test_a_tenth_of_a_second_is_what_the_writer_waits():
    assert CommitLimits().max_delay == 0.1
