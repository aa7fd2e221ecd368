"""docs/errors.md: every code of the library has a section that tells cause and remedy, and no other has one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from machine.errors import Code

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


@pytest.fixture(scope="module")
def sections():
    text = PAGE.read_text(encoding="utf-8")
    parts = re.split(r"(?m)^#{2,4} `?([a-z][a-z0-9_]*)`?$", text)
    names = parts[1::2]
    assert len(names) == len(set(names)), "a code has two sections"
    return dict(zip(names, parts[2::2], strict=True))


@pytest.mark.parametrize("code", Code)
def test_every_code_has_a_section_with_cause_and_remedy(sections, code):
    assert code in sections, f"docs/errors.md has no section {code}"
    assert "cause" in sections[code].lower()
    assert "remedy" in sections[code].lower()


def test_there_is_no_section_for_a_code_that_does_not_exist(sections):
    assert sorted(set(sections) - set(Code)) == []
