"""Documents in which nothing is to be redacted are told from all others, and are stored as the walk stores them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine import SecretPolicy
from machine.secrets import plain_documents
from machine.secrets.known_values import Known
from machine.secrets.plain_documents import is_plain_document
from machine.secrets.redact import redact
from machine.secrets.rules import rules_of
from machine.secrets.value_places import NAMING, VALUED

from .corpus import planted

RULES = rules_of(SecretPolicy())
NAMES = [
    *sorted(NAMING | VALUED),
    *("headers", "argv", "base64", "kty", "$secret", "$$secret", "password", "token", "raw", "db", "user"),
    *("commands", "key-4", "secret_data", "access_token", "d", "Headers", "expires_in", "path", "X-Api-Key"),
]
TEXTS = [
    *(
        "",
        "GET",
        "key-4",
        "Secret",
        "secret",
        "password",
        "--password",
        "-u",
        "a:b2c3d4e5f6",
        "authorization",
    ),
    *("Bearer abc123def456ghi7", "hunter2hunter2", "8f14e45fceea167a5a36dedd4bea2543", "--", "into", "a=b"),
    *("https://user:pa55word@h/", "sk-proj-9aB3xK7mQ2wE5rT8yU1iO4pL6", '{"password": "x1y2z3"}', "$secret"),
    *("__secret_A__", "securestring", "EC", "x" * 70, "a" * 5000, "aGVsbG8gd29ybGQh", "projects/a/secrets/b"),
]
DOCUMENTS = st.recursive(
    st.sampled_from([*TEXTS, 7, None, True]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)


def walked(document, rules, monkeypatch):
    """Return what is stored of a request when all its places are followed."""
    with monkeypatch.context() as patched:
        patched.setattr(plain_documents, "is_plain_document", lambda *_: False)
        return redact(rules, Known(), "redis", document, request=True, name=str)


@given(DOCUMENTS)
@pytest.mark.parametrize(
    "policy",
    [
        SecretPolicy(),
        SecretPolicy(names=["db"], allow=["password", "secret", "$.user"]),
        SecretPolicy(pointers=["/commands"]),
        SecretPolicy(patterns=["GE."]),
    ],
)
def test_what_is_called_plain_is_stored_as_the_walk_stores_it(policy, document):
    rules = rules_of(policy)
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert redact(rules, Known(), "redis", document, request=True, name=str) == walked(
            document, rules, monkeypatch
        )


@pytest.mark.parametrize(
    "document",
    [
        {"commands": [["GET", "key-4"], ["SET", "shop:7", "x" * 200]], "db": 0},
        {"messages": [{"text": "key-4"}], "method": "/shop.Stock/Get"},
        {"sql": "INSERT INTO stock VALUES (?, ?)", "parameters": [7, "tea"]},
    ],
)
def test_usual_requests_are_plain(document):
    assert is_plain_document(RULES, document)


def test_no_document_with_a_secret_is_plain():
    cases = [case for entry in planted() if entry.kind != "a" for case in entry.documents() if case.request]
    found = [case for case in cases if is_plain_document(RULES, case.document)]
    assert [case for case in found if walked(case.document, RULES, pytest.MonkeyPatch()).edits] == []
    assert len(found) < len(cases) / 2


def test_a_name_that_is_stored_escaped_is_not_plain():
    rules = rules_of(SecretPolicy(allow=["secret"]))
    assert is_plain_document(rules, {"secret": "tea"})
    assert not is_plain_document(rules, {"$secret": "tea"})
