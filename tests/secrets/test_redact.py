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
from machine.secrets.placeholder import text_of
from machine.secrets.redact import Known, redact
from machine.secrets.rules import rules_of
from machine.secrets.substitute import opened, shown

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
).filter(lambda text: not is_plain(text))

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
    stored, edits, _ = redacted(document, known, request=request)
    assert canonical.encode(document) == before
    data = canonical.encode(stored)
    kept = canonical.decode(canonical.encode(edits))
    assert canonical.encode(opened(canonical.decode(data), kept)) == before


@MANY
@given(JSON)
def test_without_edits_a_document_is_as_it_was(document):
    stored, edits, learned = redacted(document)
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
    assert stored("upload-key-1234567").document == {"body": {"base64": {"$secret": "K"}}}


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
