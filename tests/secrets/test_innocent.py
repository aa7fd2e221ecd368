"""What holds no secret is stored as it is, and refused nowhere."""

from __future__ import annotations

import pytest

from machine import SecretPolicy
from machine.canonical import encode
from machine.secrets.known_values import Known
from machine.secrets.redact import redact
from machine.secrets.restore import opened, shown
from machine.secrets.rules import rules_of
from machine.secrets.unredacted_search import refused

from .corpus import innocents

RULES = rules_of(SecretPolicy())
INNOCENTS = innocents()


@pytest.fixture(scope="module")
def stored():
    """Return every document with its entry and what is stored for it, all seen by one attempt."""
    known, found = Known(), []
    for entry in INNOCENTS:
        for case in entry.documents():
            before = encode(case.document)
            result = redact(
                RULES,
                known,
                case.namespace,
                case.document,
                request=case.request,
                name=lambda place: f"field-0123456789ab-1-{place}",
            )
            assert encode(case.document) == before, entry.about
            for learned in result.learned:
                known.learn(learned[0], learned[1], sure=learned[2])
            found.append((entry, case, result))
    return known, found


def test_there_are_enough():
    assert len(INNOCENTS) >= 280


def test_at_most_one_in_a_hundred_holds_a_placeholder(stored):
    changed = {entry.about: result.learned for entry, _, result in stored[1] if result.edits}
    assert len(changed) * 100 <= len(INNOCENTS), changed


def test_what_has_no_edits_is_stored_as_it_is(stored):
    for entry, case, result in stored[1]:
        if not result.edits and "$" not in str(case.document):
            assert encode(result.document) == encode(case.document), entry.about


def test_each_is_opened_exactly(stored):
    for entry, case, result in stored[1]:
        assert encode(opened(result.document, result.edits)) == encode(case.document), entry.about


def test_one_without_placeholders_is_shown_as_it_is_without_the_key(stored):
    for entry, case, result in stored[1]:
        if not result.edits:
            assert encode(shown(result.document)) == encode(case.document), entry.about


def test_none_is_refused_in_a_context(stored):
    known = stored[0]
    for entry in INNOCENTS:
        for name, value in members_of(entry):
            assert refused(RULES, Known(), name, value) is None, entry.about
            assert refused(RULES, known, name, value) is None, (entry.about, known.sources)


def members_of(entry):
    """Return the keys and values of a context that holds what an entry holds."""
    if entry.place == "member":
        return list(entry.content.items())
    return [("seen", entry.content), (entry.about, 1)]


def test_a_quick_look_never_passes_over_what_is_replaced(stored):
    for entry, case, result in stored[1]:
        assert not result.edits or RULES.may_hold(encode(case.document)), entry.about
