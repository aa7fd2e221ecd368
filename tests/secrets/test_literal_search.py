"""A search for many texts at once finds what a search for each of them finds."""

from __future__ import annotations

import random

import pytest

from machine.secrets import known_values
from machine.secrets.known_values import Known
from machine.secrets.literal_search import LiteralSearch
from machine.secrets.pattern_search import PIECE

from .test_linear import MOST, growth


def known(count):
    found = Known()
    for at in range(count):
        found.learn(f"K{at}", f"sk-live-of-the-shop-{at * 7919 % 100_003:06}-Xk29", sure=True)
    return found


def one_by_one(texts, text):
    found = set()
    for number, sought in enumerate(texts):
        at = text.find(sought)
        while at >= 0:
            found.add((at, number))
            at = text.find(sought, at + len(sought))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_it_finds_the_same_places(seed):
    drawn = random.Random(seed)
    texts = list({"".join(drawn.choices("aab\u00e9?\U0001f511", k=drawn.randint(1, 60))) for _ in range(30)})
    texts.append("long" * PIECE)
    parts = [drawn.choice([*texts, "a", "lorem ipsum ", "\u00e9" * 40]) for _ in range(400)]
    text = "".join(parts)
    found = list(LiteralSearch(texts).places(text))
    assert len(found) == len(set(found))
    assert set(found) == one_by_one(texts, text)


@pytest.mark.parametrize("count", [1, 40, 300])
def test_many_known_values_are_replaced_as_few_are(count, monkeypatch):
    many = known(count)
    drawn = random.Random(count)
    values = [value for value, _ in many.items()]
    text = " ".join(
        drawn.choice(many._values[drawn.choice(values)].forms.all()) + "lorem ipsum " * 40 for _ in range(200)
    )
    for known_few, short in ((0, 0), (len(values), len(text))):
        monkeypatch.setattr(known_values, "_FEW", known_few)
        monkeypatch.setattr(known_values, "SHORT", short)
        marked = many.marked(text), [source for source, _ in many.near([text]).items()]
        monkeypatch.undo()
        if known_few == 0:
            first = marked
    assert first[0] == marked[0]
    assert set(first[1]) <= set(marked[1])
    assert len(first[0].cuts) == 200


def test_what_is_learned_later_is_found_too():
    many = known(100)
    many.near(["x"])
    for at in range(200):
        value = f"learned-later-{at}-Xk29"
        many.learn(f"L{at}", value, sure=True)
        assert [one for one, _ in many.near([f"so {value} is"]).items()] == [value]
    assert len(many._searches) <= 10


def test_alike_values_are_looked_for_in_linear_time():
    def look(count):
        many = known(count)
        assert len(many.near([" ".join(value for value, _ in many.items())])._values) == count

    assert growth(look, 64, 1024) <= MOST
