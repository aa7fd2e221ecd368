"""Names that are skipped before a closer look are those that it would find nothing under."""

from __future__ import annotations

import itertools
import random

import pytest

from machine import SecretPolicy
from machine.secrets import name_ends
from machine.secrets.header_names import HEADERS
from machine.secrets.named_values import named_values
from machine.secrets.names import EXACT, Strength, field_strength
from machine.secrets.redacted_text import Work
from machine.secrets.rules import rules_of
from machine.secrets.running_text import folded

RULES = rules_of(SecretPolicy())
WEAK = [word.replace("[_-]", "_") for word in name_ends._WEAK]
RANDOM = "Xk29fQ77aaZbQp44Lm03"
BEFORE = ["", '"', "'", "\n", " ", "/", "=", "4 ", "the ", "api ", "x-auth-", "my_", "DB_", "<", "\\"]
NAMES = [
    *("password", "PASSWORD", "pw", "secret", "token", "TOKEN", "tokens", "key", "Key", "keys", "api_key"),
    *("auth", "session", "SESSION", "session_id", "cookie", "Cookie", "cookies", "authorization", "Bearer"),
    *("jwt", "sig", "verifier", "credentials", "passwords", "key2"),
]
SEPARATORS = [
    *(":", ": ", "=", " = ", '":', '": "', "': '", '="', "='", ":\n  ", ': "', ": '", ':\\"', "=>", " -> "),
    *(
        " ",
        "  ",
        " is ",
        " to ",
        " for db is ",
        " of a: ",
        ",",
        ", '",
        "(",
        '("',
        " (",
        ">",
        "](",
        ": b'",
        ": |\n",
    ),
    *(": [", ': ["', ": {'a': '", " = str(", ": &a ", ':"\\"', "%3d", ' a="b">', " value=", "\t"),
]
VALUES = [
    *("", "a", "abc", "abcde", "monday", "aBcDeFgHiJ", "item-17", "Bearer " + RANDOM, "a=" + RANDOM, RANDOM),
    *(
        RANDOM[:8],
        RANDOM[:14],
        "0123456789abcdef" * 2,
        "0123456789abcdefABCDEF" * 2,
        "River.2578",
        "$1$a",
        "x y",
    ),
    *(
        "abcdefghijklmnopqrstuvwxyz",
        f"a; b={RANDOM}",
        f"\n  - {RANDOM}",
        f"a b {RANDOM}",
        "aB3$x9Q",
        '"',
        "'",
    ),
]
ENDS = ["", '"', "'", "\n", " ", ",", ";x", "</", ")", "]", "\\"]


def found(text, *, request):
    return list(named_values(RULES, text, folded(text), Work(), request=request))


@pytest.mark.parametrize("request_", [False, True])
def test_what_is_skipped_holds_nothing(request_, monkeypatch):
    drawn = random.Random(7)
    texts = [
        "".join(map(drawn.choice, (BEFORE, NAMES, SEPARATORS, VALUES, ENDS)))
        for _ in itertools.repeat(None, 20_000)
    ]
    quick = [found(text, request=request_) for text in texts]
    every = name_ends._regex(own=True, request=request_)
    monkeypatch.setattr(name_ends, "_regex", lambda **_: every)
    for text, one in zip(texts, quick, strict=True):
        assert (text, one) == (text, found(text, request=request_))
    assert sum(map(bool, quick)) > 1000


@pytest.mark.parametrize("word", WEAK)
def test_a_weak_word_is_weak_and_no_header(word):
    assert field_strength(word) is Strength.WEAK
    assert word not in HEADERS


@pytest.mark.parametrize("word", name_ends._SILENT)
def test_a_silent_word_says_nothing_alone(word):
    assert field_strength(word) is Strength.NONE
    assert word not in HEADERS


@pytest.mark.parametrize("word", [*WEAK, *name_ends._SILENT])
def test_a_word_that_says_more_with_another_before_it_is_listed(word):
    spelled = word.replace("_", " ")
    assert any(name.endswith(f" {spelled}") for name in EXACT) == (word in name_ends._SECOND)


def test_a_text_in_lower_case_has_each_character_at_its_place():
    text = "".join(map(chr, (code for code in range(0x1F000) if not 0xD800 <= code < 0xE000)))
    assert [folded(char) for char in text] == list(folded(text))
    assert folded("\u0130 I\u0307 A") == "i i\u0307 a"
