"""The formats that a text may have: it is looked through once for the marks of all."""

from __future__ import annotations

import pytest

from machine import SecretPolicy
from machine.secrets.credential_formats import FORMATS
from machine.secrets.rules import rules_of

NEEDLES = [needle for form in FORMATS for needle in form.needles]
active = rules_of(SecretPolicy()).formats_in
ROOM = " \u00e9\ud800" * (1 << 19)


@pytest.mark.parametrize("needle", NEEDLES)
def test_a_long_text_may_have_the_formats_whose_mark_is_in_it(needle):
    text = f"{ROOM}{needle}{'a1B2c3D4' * 2}"
    assert [form for form in FORMATS if any(mark in text for mark in form.needles)] == active(text)


def test_a_long_text_may_have_all_formats_and_none():
    assert active(ROOM) == []
    assert active(ROOM + "a1B2 ".join((*NEEDLES, ""))) == list(FORMATS)
    assert active("a1B2 ".join((*NEEDLES, ""))) == list(FORMATS)
