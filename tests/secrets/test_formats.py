"""The formats that a text may have: a long text is looked through once, a short one for each mark."""

from __future__ import annotations

import pytest

from machine.secrets import formats
from machine.secrets.formats import FORMATS, active

NEEDLES = [needle for form in FORMATS for needle in form.needles]
ROOM = " \u00e9\ud800" * (1 << 19)


@pytest.mark.parametrize("needle", NEEDLES)
def test_a_long_text_may_have_the_formats_whose_mark_is_in_it(needle):
    text = f"{ROOM}{needle}{'a1B2c3D4' * 2}"
    assert [form for form in FORMATS if any(mark in text for mark in form.needles)] == active(FORMATS, text)


def test_a_long_text_may_have_all_formats_and_none():
    assert active(FORMATS, ROOM) == []
    assert active(FORMATS, ROOM + " ".join(NEEDLES)) == list(FORMATS)


def test_a_short_text_is_told_as_a_long_one_is(monkeypatch):
    text = "see a1B2c3D4 ".join(NEEDLES) + "_a1B2c3D4 -a1B2c3D4"
    short = active(FORMATS, text)
    monkeypatch.setattr(formats, "_LONG", 0)
    assert active(FORMATS, text) == short == list(FORMATS)
