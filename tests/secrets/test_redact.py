"""What is stored for a document: no secret of it, and all that leads back to it."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import FAST, JSON

from machine import SecretPolicy, canonical
from machine.secrets.encodings import is_plain
from machine.secrets.known_values import Known
from machine.secrets.placeholder import text_of
from machine.secrets.redact import redact, say, say_text
from machine.secrets.restore import SecretNeeded, opened, shown
from machine.secrets.rules import rules_of
from machine.secrets.unredacted_search import refused

RULES = rules_of(SecretPolicy())
MANY = settings(FAST, max_examples=300)


def redacted(document, known=None, *, request=False, namespace="http", rules=RULES, under=None):
    """Redact with sources that are numbered, as an engine gives them for an answer."""
    count = iter(range(1, 100_000))
    name = str if request else lambda place: f"field-{next(count)}"
    known = Known() if known is None else known
    return redact(rules, known, namespace, document, request=request, name=name, under=under)


def knowing(*pairs, sure=True):
    known = Known()
    for source, value in pairs:
        known.learn(source, value, sure=sure)
    return known


# -- there and back ------------------------------------------------------------------------------------------

SECRET = st.one_of(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=24),
    st.text(min_size=8, max_size=16).filter(lambda text: text.isprintable()),
    st.sampled_from(
        ["a+b/c?d=e&f%41", "s3cr3t value\n2", "'q\"u\\ote;d", "päss-wörd-€-1", "\U0001f511key-0123"]
    ),
).filter(lambda text: not is_plain(text) and text not in text_of("API_KEY"))

FIELDS = st.sampled_from(
    (
        *(
            "password",
            "api_key",
            "token",
            "note",
            "headers",
            "authorization",
            "set-cookie",
            "secrets",
            "name",
        ),
        *("value", "$secret", "$$secret", "text", "base64", "argv", "url", "client_secret"),
    )
)
PLANTED = st.recursive(
    JSON
    | st.sampled_from(
        [
            "https://bob:hunter2-9@h/?sig=aB3dE5fG7h",
            '{"password": "aB3dE5fG7h", "n": [1, {"secrets": ["x9X8x7X6x5"]}]}',
            "Authorization: Bearer aB3dE5fG7hJ9",
            "AKIAIOSFODNN7EXAMPLE",
            "__secret_K__",
            "//79",
        ]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS, inner, max_size=5),
    max_leaves=10,
)


@MANY
@given(PLANTED, st.booleans(), st.lists(SECRET, max_size=2))
def test_what_was_replaced_is_put_back_exactly(document, request, secrets):
    known = knowing(*((f"S{at}", value) for at, value in enumerate(secrets)))
    before = canonical.encode(document)
    stored, edits, *_ = redacted(document, known, request=request)
    assert canonical.encode(document) == before
    data = canonical.encode(stored)
    kept = canonical.decode(canonical.encode(edits))
    assert canonical.encode(opened(canonical.decode(data), kept)) == before


@MANY
@given(JSON)
def test_without_edits_a_document_is_as_it_was(document):
    stored, edits, learned, _ = redacted(document)
    if not edits:
        assert not learned
        assert canonical.encode(shown(stored)) == canonical.encode(document)


# -- the same request, with the value and with its placeholder -----------------------------------------------


def b64(text, before=""):
    return base64.b64encode((before + text).encode()).decode()


WRITTEN = {
    "as it is": lambda v: v,
    "within text": lambda v: f"say {v} now",
    "quoted": lambda v: quote(v, safe=""),
    "quoted as a path": quote,
    "quoted as a form": quote_plus,
    "quoted twice": lambda v: quote(quote(v, safe=""), safe=""),
    "a form": lambda v: urlencode({"a": 1, "client_secret": v, "q": v}),
    "JSON": lambda v: json.dumps({"a": [v], "password": v}),
    "compact JSON": lambda v: json.dumps({"a": v}, ensure_ascii=False, separators=(",", ":")),
    "JSON in JSON": lambda v: json.dumps({"a": json.dumps({"b": f"x {v}"})}),
    "JSON in JSON in JSON": lambda v: json.dumps([json.dumps([json.dumps([v])])]),
    "base64": b64,
    "base64 after 1": lambda v: b64(v, "x"),
    "base64 after 2": lambda v: b64(v, "xy"),
    "base64 with more": lambda v: f"v={b64(v + ':tail', 'me:')}; next",
    "base64url": lambda v: base64.urlsafe_b64encode(f"u:{v}".encode()).decode(),
    "base64 without padding": lambda v: base64.urlsafe_b64encode(v.encode()).decode().rstrip("="),
    "quoted base64": lambda v: quote(b64(v, "k="), safe=""),
    "basic": lambda v: f"Basic {b64('bob:' + v)}",
    "bearer": lambda v: f"Bearer {v}",
    "hex": lambda v: v.encode().hex(),
    "upper hex": lambda v: v.encode().hex().upper(),
    "a repr": lambda v: repr({"password": v, "user": "bob"}),
    "user-info": lambda v: f"https://bob:{quote(v, safe='')}@example.com/a",
    "a query": lambda v: f"https://example.com/?api_key={quote(v, safe='')}&a=1",
    "a DSN": lambda v: f"host=db user=bob password={v} dbname=x",
    "a cookie": lambda v: f"sid={v}; theme=dark",
    "twice": lambda v: f"{v} and {quote(v, safe='')}",
}
PLACES = {
    "a body": lambda text: {"method": "POST", "url": "https://h/", "body": {"text": text}},
    "json": lambda text: {"json": {"note": text, "password": text, "list": [text]}},
    "a header": lambda text: {
        "headers": {"authorization": text, "x-api-key": text, "x-own": text, "cookie": text}
    },
    "a url": lambda text: {"url": f"https://h/{text}?a=1"},
    "argv": lambda text: {"argv": ["tool", "--password", text, f"--token={text}", text]},
    "env": lambda text: {"env": {"DB_PASSWORD": text, "NOTE": text}},
    "a key": lambda text: {"json": {text: 1, "other": {text: text}}},
}


@pytest.mark.parametrize("written", WRITTEN)
@settings(FAST, max_examples=30)
@given(st.sampled_from(sorted(PLACES)), SECRET)
def test_a_handler_with_the_placeholder_makes_the_same_request(written, place, value):
    assume(not (written == "a repr" and "'" in value))  # which the quotes around it depend on

    def stored(value):
        document = PLACES[place](WRITTEN[written](value))
        return canonical.encode(redacted(document, knowing(("API_KEY", value)), request=True).document)

    live, replayed = stored(value), stored(text_of("API_KEY"))
    assert live == replayed
    assert value.encode() not in live


def test_binary_data_with_a_secret_is_sealed_whole_in_both():
    def stored(value):
        body = {"base64": base64.b64encode(b"\xff\xfe" + value.encode()).decode()}
        return redacted({"body": body}, knowing(("K", value)), request=True)

    assert stored("upload-key-1234567").document == stored(text_of("K")).document
    sealed = stored("upload-key-1234567")
    assert sealed.document == {"body": {"text": {"$secret": "K"}}}
    assert opened(sealed.document, sealed.edits)["body"].keys() == {"base64"}
    passed_on = redacted(shown(sealed.document), knowing(("K", text_of("K"))), request=True)
    assert passed_on.document == sealed.document


def test_binary_data_with_what_only_an_answer_had_is_left_alone():
    body = {"base64": base64.b64encode(b"\xff\xfeupload-key-1234567").decode()}
    known = knowing(("K", "upload-key-1234567"), sure=False)
    assert redacted({"body": body}, known, request=True).document == {"body": body}
    assert redacted({"body": body}).edits == []


def test_two_secrets_are_never_one_request():
    known = knowing(("A", "first-secret-1"), ("B", "other-secret-2"))
    a = redacted({"headers": {"authorization": "Bearer first-secret-1"}}, known, request=True)
    b = redacted({"headers": {"authorization": "Bearer other-secret-2"}}, known, request=True)
    assert a.document != b.document


# -- what is stored ------------------------------------------------------------------------------------------

VALUE = "s3cr3t-Value-42"


def test_a_whole_leaf_is_an_object_and_a_part_is_text():
    stored = redacted({"a": VALUE, "b": f"x {VALUE}", VALUE: [VALUE]}, knowing(("K", VALUE))).document
    assert stored == {
        "a": {"$secret": "K"},
        "b": "x __secret_K__",
        "__secret_K__": [{"$secret": "K"}],
    }


def test_a_secret_within_json_text_within_a_string_within_json_text():
    inner = json.dumps({"log": json.dumps({"auth": {"client_secret": "aB3dE5fG7h", "n": "é\n"}})})
    document = {"body": {"text": json.dumps({"a": [inner]})}}
    stored, edits, learned, _ = redacted(document)
    assert "aB3dE5fG7h" not in json.dumps(stored)
    assert json.loads(json.loads(json.loads(stored["body"]["text"])["a"][0])["log"])["auth"] == {
        "client_secret": "__secret_field-2D1__",
        "n": "é\n",
    }
    assert opened(stored, edits) == document
    assert learned == [("field-1", "aB3dE5fG7h", False)]


def test_what_is_found_in_one_place_is_replaced_in_all():
    document = {"a": "it is aB3dE5fG7h", "z": {"api_key": "aB3dE5fG7h"}}
    assert redacted(document).document == {
        "a": "it is __secret_field-1__".replace("field-1", "field-2D1"),
        "z": {"api_key": {"$secret": "field-1"}},
    }


def test_two_found_values_have_two_sources_and_one_has_one():
    document = {"list": [{"password": "aB3dE5fG7h"}, {"password": "x9X8x7X6x5"}, {"password": "aB3dE5fG7h"}]}
    sources = [item["password"]["$secret"] for item in redacted(document).document["list"]]
    assert sources == ["field-1", "field-2", "field-1"]


def test_a_plain_secret_is_replaced_only_as_a_whole_and_only_in_requests():
    known = knowing(("PW", "hunter"))
    request = {"note": "hunter", "text": "a hunter", "headers": {"authorization": "Bearer hunter"}}
    assert redacted(request, known, request=True).document == {
        "note": {"$secret": "PW"},
        "text": "a hunter",
        "headers": {"authorization": "Bearer __secret_PW__"},
    }
    assert redacted({"note": "hunter"}, known).document == {"note": "hunter"}


def test_plain_values_are_never_learned():
    assert redacted({"json": {"password": "required"}}, request=True).learned == []
    assert redacted({"headers": [["set-cookie", "theme=dark"]]}).learned == []


def test_the_value_that_a_secret_was_asked_for_is_sealed_whatever_it_is():
    for value in ("hunter", "x", VALUE):
        stored, _, learned, _ = redacted({"value": value}, namespace="secret", under="PW")
        assert stored == {"value": {"$secret": "field-1"}}
        assert learned == [("field-1", value, True)]


def test_a_variable_is_judged_by_the_name_it_was_asked_for():
    assert redacted({"value": "aB3dE5fG7h"}, namespace="env", under="DB_PASS").edits
    assert not redacted({"value": "aB3dE5fG7h"}, namespace="env", under="HOME").edits


def test_keys_that_become_alike_stay_apart():
    document = {quote(VALUE + "/"): 1, VALUE + "/": 2, quote(VALUE + "/", safe=""): 3}
    stored, edits, *_ = redacted(document, knowing(("K", VALUE + "/")))
    assert len(stored) == len(document)
    assert opened(stored, edits) == document


def test_a_text_with_more_than_a_thousand_findings_is_sealed_whole():
    text = "".join(f"password=aB3dE5fG{at:04};\n" for at in range(1001))
    stored, edits, learned, _ = redacted({"text": text})
    assert stored == {"text": {"$secret": "field-1"}}
    assert opened(stored, edits) == {"text": text}
    assert learned == [("field-1", text, False)]
    known = f"{VALUE} " * 1001
    assert redacted({"text": known}, knowing(("K", VALUE))).document == {"text": {"$secret": "K"}}


def test_a_source_says_nothing_that_is_no_name():
    document = {"headers": {"cookie": "k7#Q9z8812345678=aB3dE5fG7h"}, "json": {"x 1234567 api_key": "aB3d"}}
    stored = json.dumps(redacted(document, request=True).document)
    assert "__secret_cookie__" in stored
    assert '{"$secret": "field"}' in stored


@pytest.mark.parametrize("said", ["Bearer 7929271687", f"{VALUE} password", "__secret_K__ password"])
def test_a_value_says_a_name_only_if_it_is_one(said):
    document = {"key": said, "value": "x"}
    assert redacted(document, knowing(("K", VALUE)), request=True).document["value"] == "x"


def test_what_was_redacted_holds_nothing_more():
    document = {"text": f"password={VALUE} and {VALUE}", "n": [1, "https://a:b1c2d3e4@h/"]}
    once = redacted(document, knowing(("K", VALUE))).document
    assert redacted(once, knowing(("K", VALUE))).edits == []


# -- without the key -----------------------------------------------------------------------------------------


def test_without_the_key_placeholders_are_text():
    document = {"a": VALUE, "b": f"x {VALUE}", "$secret": "own", "$$secret": {"$secret": 1}}
    stored = redacted({"c": document}, knowing(("K", VALUE))).document
    assert shown(stored)["c"]["a"] == "__secret_K__"
    assert shown(stored)["c"]["b"] == "x __secret_K__"
    assert set(shown(stored)["c"]) == set(document)


def test_without_the_key_a_number_is_needed():
    stored = redacted({"json": {"password": 1234}}, request=True).document
    with pytest.raises(SecretNeeded) as caught:
        shown(stored)
    assert caught.value.source == "password"


# -- what nobody reads back, and what is refused -------------------------------------------------------------


def test_what_is_said_has_placeholders_as_text():
    known = knowing(("K", VALUE))
    assert (
        say_text(RULES, known, f"bad {VALUE}, password=aB3dE5fG7h")
        == "bad __secret_K__, password=__secret_password__"
    )
    said = say(RULES, known, {"e": [VALUE, 1], VALUE: None, "api_key": "aB3dE5fG7h"})
    assert said == {
        "e": ["__secret_K__", 1],
        "__secret_K__": None,
        "api_key": "__secret_api-5Fkey__".replace("-5F", "_"),
    }


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, VALUE]}, "$.seen.a[1]"),
        ({"a": f"x {VALUE}"}, "$.seen.a"),
        ({VALUE: 1}, f'$.seen["{VALUE}"]'),
        ({"a": base64.b64encode(f"u:{VALUE}".encode()).decode()}, "$.seen.a"),
        ({"a": "__secret_K__"}, "$.seen.a"),
        ({"b": "x7#k"}, "$.seen.b"),
        ({"b": "x x7#k"}, None),
        ({"b": "hunter"}, None),
        ({"password": "aB3dE5fG7h", "api_key": "x", "token": "aB3dE5fG7hJ9kL2mN4pQ"}, None),
        ("ghp_" + "a1B2" * 9, "$.seen"),
        ({"a": {"b": "see " + "AKIA" + "IOSFODNN7EXAMPLE"}}, "$.seen.a.b"),
        ("__secret_OTHER__", None),
    ],
)
def test_a_known_secret_or_a_shape_is_refused_with_its_path(value, path):
    known = knowing(("K", VALUE), ("S", "x7#k"), ("P", "hunter"))
    found = refused(RULES, known, "seen", value)
    if path is not None and VALUE in path:
        assert found is not None
        assert found.startswith("$.seen")
    else:
        assert found == path


def test_a_key_that_is_a_secret_is_refused():
    assert refused(RULES, knowing(("K", VALUE)), VALUE, 1) is not None
    assert refused(RULES, Known(), "password", "required") is None
