"""Secrets of format 1 in any JSON: nothing stays, everything comes back, nothing is hidden twice."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine import RunConfig, SecretPolicy, canonical, codec
from machine.errors import ConfigError
from machine.secrets.format_1.rules import rules_of
from machine.secrets.format_1.run_secrets import Format1RunSecrets

from .conftest import forms_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=8, max_size=40).filter(
    lambda text: text.strip() == text and "$secret" not in text and not text.isascii() | (len(set(text)) < 4)
) | st.from_regex(r"[A-Za-z0-9+/=&%\"\\ ]{3}[A-Za-z0-9+/=&%\"\\ -]{4,20}[A-Za-z0-9]", fullmatch=True)
NAMES = st.sampled_from(["password", "X-Api-Key", "access_token", "clientSecret", "DB_PASSWD", "private-key"])
TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
KEY = bytes(range(32))


@given(TREES, NAMES, VALUES)
def test_a_secret_field_is_hidden_and_comes_back(tree, name, value):
    secrets = Format1RunSecrets(SecretPolicy(), KEY)
    request = {"around": tree, "deep": [{name: value}], "text": f"<{value}>"}
    data = canonical.encode(request)
    hidden = secrets.request("http", data)
    assert json.dumps(value, ensure_ascii=False).encode() not in hidden
    assert canonical.encode(secrets.restored(hidden)) == data


@given(TREES, NAMES, VALUES)
def test_hiding_twice_is_hiding_once(tree, name, value):
    secrets = Format1RunSecrets(SecretPolicy(), KEY)
    once = secrets.request(
        "http", canonical.encode({"a": tree, name: value, "b": f"https://u:p4ssw0rd@h/?q={value}"})
    )
    assert secrets.request("http", once) == once


@given(NAMES, VALUES)
def test_the_same_secret_has_the_same_placeholder_whatever_was_learned_before(name, value):
    data = canonical.encode({name: value, "b": value})
    fresh, used = Format1RunSecrets(SecretPolicy(), KEY), Format1RunSecrets(SecretPolicy(), KEY)
    used.request("http", canonical.encode({"password": "another-secret-value", "x": 1}))
    used.request("http", data)
    assert fresh.request("http", data) == used.request("http", data)


@given(VALUES)
def test_a_value_that_was_read_is_hidden_in_all_its_forms(value):
    secrets = Format1RunSecrets(SecretPolicy(), KEY)
    secrets.read("NAME", value)
    packed = [base64.b64encode(b"x" * before + value.encode() + b"yz").decode() for before in range(3)]
    forms = (value, quote(value), quote(value, safe=""), quote_plus(value), json.dumps(value)[1:-1], *packed)
    for form in forms:
        hidden, captured = secrets.response("http", {}, canonical.encode({"text": f"<<{form}>>", "a": form}))
        leaked = [known for known in forms_of(value) if known in hidden]
        assert (leaked, captured) == ([], False)


@given(TREES)
def test_what_holds_no_secret_is_left_as_it_is(tree):
    secrets = Format1RunSecrets(SecretPolicy(), KEY)
    secrets.read("NAME", "a value nobody writes by chance")
    data = canonical.encode({"around": tree})
    assert secrets.request("http", data) == data


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Authorization",
            "proxy-authorization",
            "Cookie",
            "Set-Cookie",
            "X-API-Key",
            "api_key",
            "apiKey",
            "APIKEY",
        ),
        *(
            "access_token",
            "refreshToken",
            "id-token",
            "client_secret",
            "password",
            "PASSWD",
            "secret",
            "token",
        ),
        *(
            "private_key",
            "AWS_SECRET_ACCESS_KEY",
            "db.password",
            "GITHUB_TOKEN",
            "password2",
            "X-Amz-Signature",
        ),
    ],
)
def test_a_name_is_secret_however_it_is_written(name):
    assert rules_of(SecretPolicy()).is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "tokens",
        "input_tokens",
        "next_page_token",
        "key",
        "author",
        "passed",
        "PWD",
        "secretary",
        "$secret",
        "tokenizer",
    ],
)
def test_a_name_that_only_looks_alike_is_not(name):
    assert not rules_of(SecretPolicy()).is_secret(name)


@pytest.mark.parametrize(
    "text",
    [
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_" + "a1B2" * 9,
        "xoxb-123456789012-abcdefghijkl",
        "sk_live_abcdefghij0123456789",
        "AIza" + "Sy1_-" * 7,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_a_secret_is_told_by_its_look(text):
    secrets = Format1RunSecrets(SecretPolicy(), KEY)
    data = canonical.encode({"note": f"see {text} there"})
    hidden = secrets.request("exec", data)
    assert text.encode()[:20] not in hidden
    assert canonical.encode(secrets.restored(hidden)) == data


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"patterns": ["("]}, "patterns"),
        ({"patterns": ["x*"]}, "empty"),
        ({"names": "token"}, "a list of strings"),
        ({"stable": ["-"]}, "stable"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(given, problem):
    with pytest.raises(ConfigError, match=problem):
        SecretPolicy(**given)


def test_a_policy_that_says_nothing_is_not_in_the_configuration():
    assert "secrets" not in codec.to_json(RunConfig())
    said = RunConfig(secrets=SecretPolicy(allow=["token"], stable=["A"]))
    assert codec.from_json(codec.to_json(said), RunConfig) == said
