"""Findings in stored documents and texts: where, by which rule, how long; what stands for a secret is none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.canonical import encode
from machine.secrets.placeholder import object_of, text_of
from machine.secrets.policy import SecretPolicy
from machine.secrets.rules import rules_of
from machine.secrets.scan_findings import Found, found, found_in_text

RULES = rules_of(SecretPolicy())
AWS = "AKIAIOSFODNN7EXAMPLE"
PLACEHOLDER = '{"$secret":"API_KEY","mac":"0123456789abcdef0123456789abcdef"}'
QUOTED = "%7B%22%24secret%22%3A%22API_KEY%22%2C%22mac%22%3A%220123456789abcdef0123456789abcdef%22%7D"


def test_a_finding_has_its_path_and_where_it_stands_in_its_text():
    document = {"a": [1, {"b c": f"é{AWS} and {AWS}"}], "plain": "text"}
    assert found(RULES, encode(document)) == [
        Found('$.a[1]["b c"]', "aws_access_key_id", 20, 1),
        Found('$.a[1]["b c"]', "aws_access_key_id", 20, 26),
    ]


def test_offsets_are_those_of_the_text_as_it_stands_whatever_is_before():
    text = f"{text_of('A')} {PLACEHOLDER} {AWS}"
    (one,) = found(RULES, encode({"a": text}))
    assert text[one.at : one.at + one.length] == AWS
    (one,) = found_in_text(RULES, text)
    assert text[one.at : one.at + one.length] == AWS


def test_keys_are_looked_at_too():
    assert found(RULES, encode({f"x {AWS}": 1})) == [Found("$", "aws_access_key_id", 20, 2)]


def test_text_of_json_within_json_is_looked_at():
    inner = json.dumps({"password": "hunter-2Xq9-77b"})
    (one,) = found(RULES, encode({"body": {"text": inner}}))
    assert (one.path, one.rule, inner[one.at : one.at + one.length]) == (
        "$.body.text",
        "password",
        "hunter-2Xq9-77b",
    )


def test_a_name_alone_decides_in_a_request_only():
    document = encode({"password": "winter", "api_key": 1234})
    assert found(RULES, document) == []
    assert {(one.path, one.rule) for one in found(RULES, document, request=True)} == {
        ("$.password", "password"),
        ("$.api_key", "api_key"),
    }


def test_a_value_is_judged_by_the_name_it_was_asked_for_by():
    document = encode({"value": "hunter-2Xq9-77b"})
    assert found(RULES, document) == []
    (one,) = found(RULES, document, under="DB_PASSWORD")
    assert (one.path, one.rule) == ("$.value", "DB_PASSWORD")


PLACES = [
    lambda it: {"headers": {"authorization": it, "x-api-key": it}},
    lambda it: {"headers": [["set-cookie", it]]},
    lambda it: {"password": it, "secrets": {"a": it, "b": [it]}, "client_secret": it},
    lambda it: {"argv": ["curl", "--password", it]},
    lambda it: it,
]
IN_TEXT = [
    lambda it: {"headers": {"authorization": f"Bearer {it}", "cookie": f"sid={it}; b={it}"}},
    lambda it: {"url": f"https://u:{it}@h/?access_token={it}"},
    lambda it: {"text": f"password={it}\nAPI_KEY: {it}\nexport DB_PASS='{it}'"},
    lambda it: {"text": f"password={it}&client_secret={it}"},
    lambda it: {it: it},
    lambda it: {"text": f"host=db password={it} user=x"},
    lambda it: {"password": f"pre-{it}"},
]


@pytest.mark.parametrize("place", [*PLACES, *IN_TEXT])
@pytest.mark.parametrize("request_", [False, True])
@pytest.mark.parametrize("text", [text_of("API_KEY"), text_of("field-0123456789ab-1-2"), PLACEHOLDER, QUOTED])
def test_text_that_stands_for_a_secret_is_no_finding(place, text, request_):
    document = place(text)
    for nested in (document, {"body": {"text": json.dumps(document)}}, [json.dumps(json.dumps(document))]):
        assert found(RULES, encode(nested), request=request_) == []
    if not request_:
        assert found_in_text(RULES, json.dumps(document, indent=2)) == []
        assert found_in_text(RULES, f"{json.dumps(document)}\n{json.dumps(document)}") == []


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("request_", [False, True])
@pytest.mark.parametrize(
    "leaf", [object_of("API_KEY"), object_of("field-0123456789ab-1-2", "number"), json.loads(PLACEHOLDER)]
)
def test_an_object_that_stands_for_a_secret_is_no_finding(place, leaf, request_):
    document = place(leaf)
    for nested in (document, {"body": {"text": json.dumps(document)}}, [json.dumps(json.dumps(document))]):
        assert found(RULES, encode(nested), request=request_) == []
    if not request_:
        assert found_in_text(RULES, json.dumps(document, indent=2)) == []


def test_what_stands_beside_a_placeholder_is_found():
    document = {"headers": {"authorization": text_of("A"), "x-api-key": AWS}, "text": f"{PLACEHOLDER} {AWS}"}
    assert [one.path for one in found(RULES, encode(document))] == [
        "$.headers['x-api-key']".replace("'", '"'),
        "$.text",
    ]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5) | st.just(f"<{AWS}>"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(_JSON)
def test_each_planted_secret_is_found_where_it_is(document):
    def planted(value, path):
        if value == f"<{AWS}>":
            yield path
        elif isinstance(value, dict):
            for key, member in value.items():
                name = f".{key}" if key.isidentifier() else f"[{json.dumps(key)}]"
                yield from planted(member, path + name)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from planted(item, f"{path}[{index}]")

    told = found(RULES, encode(document))
    assert sorted(one.path for one in told) == sorted(planted(document, "$"))
    assert {(one.rule, one.at, one.length) for one in told} <= {("aws_access_key_id", 1, 20)}
