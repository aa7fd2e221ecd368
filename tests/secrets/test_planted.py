"""Secrets that are planted in every place do not stand in what is stored."""

from __future__ import annotations

import base64
from collections import Counter

import pytest

from machine import SecretPolicy
from machine.canonical import encode
from machine.secrets.known_values import Known
from machine.secrets.placeholder import text_of
from machine.secrets.redact import redact, say, say_text
from machine.secrets.restore import opened
from machine.secrets.rules import rules_of
from machine.secrets.unredacted_search import refused

from .conftest import forms_of
from .corpus import leaves, planted

RULES = rules_of(SecretPolicy())
PLANTED = planted()
NAME = "PLANTED_SECRET"
WHOLE = 8
"""So much of a secret in what is stored is a leak."""


def stored_of(case, known):
    return redact(
        RULES,
        known,
        case.namespace,
        case.document,
        request=case.request,
        name=lambda place: place if case.request else f"field-f00df00df00d-1-{place}",
    )


def known_of(entry, value=None):
    known = Known()
    if entry.kind == "a":
        known.learn(NAME, value or entry.value, sure=True)
    return known


def stands_in(value, texts):
    """Tell whether a secret, a form of it, or a part of it that is long enough stands in texts."""
    text = "\n".join(texts)
    found = any(form in text.encode() for form in forms_of(value))
    pieces = {value[at : at + WHOLE] for at in range(len(value) - WHOLE + 1)}
    return found or any(piece in text for piece in pieces if "secret" not in piece)


def missed(kinds):
    """Return which entries of some kinds stand in what is stored or said, and where."""
    return {
        f"{entry.kind}: {entry.about}": places
        for entry in PLANTED
        if entry.kind in kinds and (places := leaks_of(entry))
    }


def leaks_of(entry):
    known = known_of(entry)
    cases = entry.documents()
    found = [
        case.namespace
        for case in cases
        if not (known or RULES.may_hold(encode(case.document)))
        or stands_in(entry.value, leaves(stored_of(case, known).document))
    ]
    if entry.place == "text":
        text = entry.filled()
        said = {"error": say_text(RULES, known, text), "payload": say(RULES, known, {"said": [text]})}
        found += [where for where, value in said.items() if stands_in(entry.value, leaves(value))]
    return found


def test_there_are_enough_of_each_kind():
    assert len({entry.about for entry in PLANTED}) == len(PLANTED)
    kinds = Counter(entry.kind for entry in PLANTED)
    assert sum(kinds.values()) >= 280
    assert min(kinds.values()) >= 60


def test_none_of_a_program_is_stored():
    assert missed("a") == {}


def test_none_of_a_place_for_credentials_is_stored():
    assert missed("b") == {}


def test_of_the_others_at_most_one_in_twenty_is_stored():
    found = missed("cd")
    assert len(found) * 20 <= sum(entry.kind in "cd" for entry in PLANTED), found


def test_each_is_opened_exactly():
    for entry in PLANTED:
        for case in entry.documents():
            result = stored_of(case, known_of(entry))
            assert encode(opened(result.document, result.edits)) == encode(case.document), entry.about


SENT = [entry for entry in PLANTED if entry.place in {"request", "exec", "write"}]


def test_a_rotated_secret_makes_the_same_request():
    different = [
        entry.about
        for entry in SENT
        for mine, other in zip(entry.documents(), entry.documents(entry.rotated()), strict=True)
        if encode(stored_of(mine, known_of(entry)).document)
        != encode(stored_of(other, known_of(entry, entry.rotated())).document)
    ]
    assert different == []


@pytest.mark.parametrize("source", [NAME, "field-0123456789ab-1-2"])
def test_a_placeholder_makes_the_same_request(source):
    different = []
    for entry in SENT:
        true, shown = Known(), Known()
        true.learn(source, entry.value, sure=True)
        shown.learn(source, text_of(source), sure=True)
        for mine, other in zip(entry.documents(), entry.documents(text_of(source)), strict=True):
            if encode(stored_of(mine, true).document) != encode(stored_of(other, shown).document):
                different.append(entry.about)
    assert different == []


def test_a_format_is_refused_in_a_context():
    passed = [
        entry.about
        for entry in PLANTED
        if entry.kind == "d" and entry.place == "text" and entry.filled().count(entry.value)
        for key, value, path in [("seen", {"a": [entry.filled()]}, "$.seen.a[0]")]
        if refused(RULES, Known(), key, value) != path
    ]
    assert len(passed) * 20 <= sum(entry.kind == "d" for entry in PLANTED), passed


def test_a_known_secret_is_refused_in_a_context():
    for entry in PLANTED:
        if entry.kind != "a":
            continue
        known = known_of(entry)
        plain = entry.value.isalpha() and entry.value.islower() and len(entry.value) < 16
        assert (refused(RULES, known, "seen", [entry.value]) == "$.seen[0]") is not plain, entry.about
        assert (refused(RULES, known, "seen", {entry.value: 1}) is not None) is not plain, entry.about
        part = f"<{entry.value}>"
        if len(entry.value) >= 8:
            assert (refused(RULES, known, "seen", part) == "$.seen") is not plain, entry.about
            packed = base64.b64encode(part.encode()).decode()
            assert (refused(RULES, known, "seen", packed) == "$.seen") is not plain, entry.about


def test_the_parts_of_a_place_that_are_no_secret_stay():
    kept = {
        "GitHub": "Bearer ",
        "one of three cookies": "; PHPSESSID=",
        "a set cookie": "; Path=/; HttpOnly; Secure; SameSite=Lax",
        "user-info": "@api.example/v1",
        "query, api_key": "&lang=en",
        "libpq": " dbname=x",
        "ODBC": ";Encrypt=yes",
        "YAML": "\n  port: 5432\n",
        "JSON, password": '"id": 7',
        "MongoDB": "@cluster0.example/shop?retryWrites=true",
        "curl -v": "\r\n> Accept: */*",
        "a form in a log": "&remember=1",
        "a command line": " --verbose",
        "sent form": "username=ann",
        "sent multipart": 'name="user"\r\n\r\nann',
    }
    seen = {}
    for entry in PLANTED:
        if entry.about in kept:
            texts = leaves(stored_of(entry.documents()[0], known_of(entry)).document)
            seen[entry.about] = (
                kept[entry.about] if any(kept[entry.about] in text for text in texts) else texts
            )
    assert seen == kept
