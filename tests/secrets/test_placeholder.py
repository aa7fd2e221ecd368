"""The spelling of placeholders can be read back, and nothing else is taken for one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import FAST, TEXT

from machine.secrets.placeholder import (
    TEXT as PLACEHOLDER,
)
from machine.secrets.placeholder import (
    key_escaped,
    key_unescaped,
    object_of,
    source_from,
    source_of,
    text_of,
    typed_source,
)

SOURCES = st.from_regex(r"[A-Za-z0-9_.-]{1,128}", fullmatch=True)
NASTY = st.text("_-.AF2", min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("API_KEY", "__secret_API_KEY__"),
        ("cookie.sid", "__secret_cookie-2Esid__"),
        ("field-0a1b2c3d4e5f-0-1", "__secret_field-2D0a1b2c3d4e5f-2D0-2D1__"),
        ("_a__b_", "__secret_-5Fa-5F-5Fb-5F__"),
    ],
)
def test_a_source_is_spelled_so(source, text):
    assert text_of(source) == text


@FAST
@given(SOURCES | NASTY)
def test_a_source_is_read_back(source):
    text = text_of(source)
    assert source_of(text) == source
    assert re.fullmatch(r"[A-Za-z0-9_-]+", text)
    inner = text.removeprefix("__secret_").removesuffix("__")
    assert "__" not in inner
    assert not inner.startswith("_")
    assert not inner.endswith("_")


@FAST
@given(st.lists(SOURCES | NASTY, min_size=1, max_size=4), st.sampled_from(["", "_", "x", "__", " ", "-"]))
def test_placeholders_are_found_in_running_text(sources, between):
    text = between.join(["", *map(text_of, sources), ""])
    assert [source_of(found[0]) for found in PLACEHOLDER.finditer(text)] == sources


@pytest.mark.parametrize(
    "text",
    [
        "",
        "__secret____",
        "__secret_a_",
        "__secret_a-2__",
        "__secret_a-41__",
        "x__secret_a__",
        "__secret_a__ ",
        "__secret_é__",
    ],
)
def test_other_text_is_no_placeholder(text):
    assert source_of(text) is None


@FAST
@given(st.sampled_from(["$secret", "$$secret", "$$$secret", "secret", "$ecret"]) | TEXT)
def test_a_key_from_outside_is_never_that_of_a_placeholder(key):
    assert key_escaped(key) != "$secret"
    assert key_unescaped(key_escaped(key)) == key


def test_an_object_says_its_source_and_its_kind():
    assert typed_source(object_of("A")) == ("A", None)
    assert typed_source(object_of("A", "number")) == ("A", "number")
    assert typed_source({"$$secret": "A"}) is None
    assert typed_source("__secret_A__") is None


@FAST
@given(TEXT)
def test_any_place_gives_a_source(place):
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", source_from(place))
