"""Known values are found in all the forms in which programs write them, and plain ones are not looked for."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import FAST

from machine.secrets.encodings import is_plain
from machine.secrets.known_values import Known

VALUE = 'pa$s/w+örd="1"\\2 z'
HOLDER = "__secret_K__"


def marked(text, value=VALUE, *, sure=True):
    known = Known()
    known.learn("K", value, sure=sure)
    return known.marked(text)


FORMS = {
    "as it is": VALUE,
    "JSON": json.dumps(VALUE)[1:-1],
    "JSON in UTF-8": json.dumps(VALUE, ensure_ascii=False)[1:-1],
    "JSON in JSON": json.dumps(json.dumps(VALUE)[1:-1])[1:-1],
    "a repr": repr(VALUE)[1:-1],
    "percent": quote(VALUE, safe=""),
    "percent, small": quote(VALUE, safe="")
    .replace("%2F", "%2f")
    .replace("%2B", "%2b")
    .replace("%C3%B6", "%c3%b6")
    .replace("%3D", "%3d")
    .replace("%5C", "%5c"),
    "a path": quote(VALUE),
    "a form": quote_plus(VALUE),
    "hex": VALUE.encode().hex(),
    "HEX": VALUE.encode().hex().upper(),
    "HTML": html.escape(VALUE),
    "UTF-8 as latin-1": VALUE.encode().decode("latin-1"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_found_alone_and_within_text(form):
    text = FORMS[form]
    assert marked(text).text == HOLDER
    assert marked(f"<{text}>").text == f"<{HOLDER}>"
    assert marked(f"<{text}>").true() == f"<{text}>"


@FAST
@given(st.binary(max_size=7), st.text(min_size=8, max_size=20), st.binary(max_size=7), st.booleans())
def test_base64_that_has_a_value_is_replaced_whole(before, value, after, urlsafe):
    assume(not is_plain(value))
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    text = encode(before + value.encode() + after).decode()
    found = marked(f"x: {text}.", value)
    assert found.text == f"x: {HOLDER}."
    assert found.cuts[0].true == text


@pytest.mark.parametrize(
    "value",
    ["required", "TRUE", "Bearer", "abc", "1234567", "null", "password", "        ", "aaaaaaaaaaaaaaaaaaaa"],
)
def test_a_plain_value_is_not_looked_for(value):
    assert is_plain(value)
    assert marked(f"x {value} y", value).cuts == ()


def test_a_plain_value_is_known_as_a_whole_only_when_it_is_sure():
    known = Known()
    known.learn("A", "hunter", sure=False)
    assert not known
    known.learn("A", "hunter", sure=True)
    assert known.source_of("hunter") == "A"
    assert known.source_of("hunter", plain=False) is None


@pytest.mark.parametrize(
    ("text", "found"), [("pin x7#k!", True), ("ax7#kb", False), ("x7#k", True), ("x7#k0", False)]
)
def test_a_short_value_counts_as_a_whole_word(text, found):
    assert bool(marked(text, "x7#k").cuts) is found


def test_the_first_source_of_a_value_stays():
    known = Known()
    known.learn("A", "one-secret-1", sure=False)
    known.learn("B", "one-secret-1", sure=True)
    assert known.source_of("one-secret-1") == "A"
    assert known.values_of("A") == [("one-secret-1", True)]


def test_a_copy_learns_for_itself():
    known = Known()
    known.learn("A", "one-secret-1", sure=True)
    other = known.copy()
    other.learn("B", "other-secret-2", sure=True)
    assert set(known.sources) == {"A"}
    assert set(other.sources) == {"A", "B"}


def test_of_many_values_those_of_a_text_are_found():
    known = Known()
    for at in range(200):
        known.learn(f"S{at}", f"value-number-{at:04}-x", sure=True)
    texts = ["see value-number-0123-x", base64.b64encode(b"a value-number-0007-x").decode()]
    near = known.near(texts)
    assert [near.marked(text).text for text in texts] == ["see __secret_S123__", "__secret_S7__"]
    assert len(near.near(texts).values_of("S5")) == 0
    known.learn("LATER", "later-number-9999", sure=True)
    assert known.near(["later-number-9999"]).marked("later-number-9999").text == "__secret_LATER__"


def test_a_longer_value_is_taken_before_one_within_it():
    known = Known()
    known.learn("A", "abc-def-12", sure=True)
    known.learn("B", "x-abc-def-12-y", sure=True)
    assert known.marked("x-abc-def-12-y").text == "__secret_B__"
