"""The page on divergences lists every kind and every cause there is."""

from __future__ import annotations

import re
from pathlib import Path

from machine.recordings.divergence import Cause, DivergenceKind

PAGE = Path(__file__).resolve().parents[2] / "docs" / "divergences.md"


def rows(heading):
    section = PAGE.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)[1:]


def test_every_kind_is_listed():
    assert sorted(rows("Kinds")) == sorted(DivergenceKind)


def test_every_cause_is_listed():
    assert sorted(rows("Causes")) == sorted(Cause)
