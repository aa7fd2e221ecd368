"""What the quick look over canonical bytes passes, the full walk changes nothing of."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import FAST

from machine import SecretPolicy
from machine.canonical import encode
from machine.errors import CanonicalError
from machine.secrets.header_names import HEADERS, PARAMETERS, WEAK_PARAMETERS
from machine.secrets.known_values import Known
from machine.secrets.names import EXACT, PLURAL, WEAK, Strength
from machine.secrets.placeholder import BEGIN, MARK, text_of
from machine.secrets.program_arguments import _PROGRAMS as PROGRAMS
from machine.secrets.program_arguments import _SETS as SETS
from machine.secrets.program_arguments import _SETTERS as SETTERS
from machine.secrets.program_arguments import _STORES as STORES
from machine.secrets.program_arguments import _VALUES as VALUES
from machine.secrets.redact import redact
from machine.secrets.reserved_store_key import Reserved
from machine.secrets.rules import rules_of
from machine.secrets.store_key import KEY_VARIABLE
from machine.secrets.unnamed_passwords import _PATTERNS as PATTERNS
from machine.secrets.value_places import _TYPES as TYPES

from .corpus import HOST, innocents, planted

RULES = rules_of(SecretPolicy())
PLANTED = planted()


def passed_over(document, known, *, request, namespace="http", under=None):
    """Return what the walk changes in a document that the quick look passes; None if that is nothing."""
    raw = encode(document)
    if not RULES.is_clean(raw) or known.may_be_in(raw):
        return None
    found = redact(RULES, known, namespace, document, request=request, name=str, under=under)
    return None if encode(found.document) == raw and not found.edits and not found.learned else found


# -- forms in which a text may stand ---------------------------------------------------------------------------


def base64_of(text):
    return base64.b64encode(text.encode()).decode()


def multipart(text, head='Content-Disposition: form-data; name="q"'):
    return f"--x\r\n{head}\r\n\r\n{text}\r\n--x--\r\n"


FORMS = {
    "as it is": str,
    "json": lambda text: json.dumps({"at": [text]}),
    "json of ascii, as a value of json": lambda text: json.dumps({"in": json.dumps([text, 1])}),
    "json as PHP writes it": lambda text: json.dumps({"at": text}).replace("/", "\\/"),
    "json with real letters": lambda text: json.dumps([text], ensure_ascii=False),
    "hex": lambda text: text.encode().hex(),
    "base64": base64_of,
    "base64 of json": lambda text: base64_of(json.dumps({"at": text})),
    "base64url": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "percent": lambda text: quote(text, safe=""),
    "form": lambda text: f"a=1&b={quote_plus(text)}",
    "query": lambda text: f"https://{HOST}/?q={quote(text)}&n=1",
    "bearer": lambda text: f"Authorization: Bearer {text}",
    "user-info": lambda text: f"postgres://ann:{quote(text, safe='')}@{HOST}/db",
    "setting": lambda text: f"x = {text}\n",
    "multipart": multipart,
    "multipart without a name": lambda text: multipart(text, "content-type: text/plain"),
}
DATA = {
    "text": str.encode,
    "binary": lambda text: b"\xff\x00" + text.encode() + b"\xfe",
    "multipart": lambda text: multipart(text).encode(),
    "multipart with bytes": lambda text: multipart(text).encode() + b"\xff",
}


def packed(text, how):
    return {"base64": base64.b64encode(DATA[how](text)).decode()}


NAMES = sorted({*EXACT, *PLURAL, *WEAK, *HEADERS, *PARAMETERS, *WEAK_PARAMETERS})
MEMBERS = st.sampled_from(
    ["value", "name", "key", "type", "id", "headers", "argv", "json", "base64", "payload"]
)
names = st.one_of(
    MEMBERS,
    st.text(max_size=6),
    st.sampled_from(NAMES).flatmap(
        lambda name: st.sampled_from([name, name.replace(" ", "_").upper(), name.replace(" ", "-")])
    ),
)
values = st.one_of(
    st.sampled_from([entry.value for entry in PLANTED]),
    st.sampled_from(
        ["\n", "ab", 'a"', "a\\b", "aB3$x", "a/b1", "1234", "Widget", "é", text_of("K"), MARK, BEGIN]
    ),
    st.text(min_size=1, max_size=12).filter(lambda text: text.isprintable()),
)


def documents(secret):
    """Return a strategy of documents of JSON with a secret in some of their places."""
    texts = st.one_of(
        st.builds(lambda form, text: FORMS[form](text), st.sampled_from(sorted(FORMS)), st.just(secret)),
        st.builds(
            lambda form, text: f"so {FORMS[form](text)} is", st.sampled_from(sorted(FORMS)), st.just(secret)
        ),
        st.text(max_size=8),
        names,
    )
    leaves = st.one_of(
        texts,
        st.builds(packed, st.just(secret), st.sampled_from(sorted(DATA))),
        st.none() | st.booleans() | st.integers(-9, 10**12),
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
        max_leaves=6,
    )


@settings(FAST, max_examples=250)
@given(
    values.flatmap(lambda secret: st.tuples(st.just(secret), documents(secret))), st.booleans(), st.booleans()
)
def test_the_walk_changes_nothing_that_the_quick_look_passes(planted, sure, request_):
    secret, document = planted
    for known in (Known(), Known()):
        assert passed_over(document, known, request=request_) is None
        known.learn("K", secret, sure=sure)
        assert passed_over(document, known, request=request_) is None


# -- the corpora -----------------------------------------------------------------------------------------------


def wrapped(document):
    """Yield a document, and its text in every form."""
    yield document
    text = json.dumps(document, ensure_ascii=False)
    for form in FORMS.values():
        yield {"said": form(text)}
    for how in DATA:
        yield packed(text, how)


@pytest.mark.parametrize("kind", ["innocent", "a", "b", "c", "d"])
def test_no_entry_of_the_corpora_is_passed_over_in_any_form(kind):
    missed = []
    for entry in innocents() if kind == "innocent" else PLANTED:
        if kind not in {"innocent", entry[1]}:
            continue
        known = Known()
        if kind == "a":
            known.learn("K", entry.value, sure=True)
        for case in entry.documents():
            missed += [
                (entry.about, each)
                for each in ([case.document] if kind == "innocent" else wrapped(case.document))
                if passed_over(each, known, request=case.request, namespace=case.namespace)
            ]
    assert missed == []


@pytest.mark.parametrize(
    "value", ["\n", 'a"', "a\\b", "ab", "aB3$x", "a/b1", "Widget", "S3cr3t-Value-99", "pässwörd9"]
)
@pytest.mark.parametrize("request_", [True, False])
def test_a_known_value_is_passed_over_in_no_form(value, request_):
    known = Known()
    known.learn("K", value, sure=True)
    for document in (
        {"x": value},
        {value: 1},
        [f"<{value}>"],
        *({"x": form(value)} for form in FORMS.values()),
        *(packed(value, how) for how in DATA),
    ):
        assert passed_over(document, known, request=request_) is None


# -- signs that the walk knows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", range(len(PATTERNS)))
def test_a_line_that_logs_in_is_passed_over_in_no_form(kind):
    regex = PATTERNS[kind].pattern.replace("++", "+").replace("}+", "}").replace("]+:(", "]+:(")
    missed = []

    @settings(FAST, max_examples=150)
    @given(st.from_regex(re.compile(regex, PATTERNS[kind].flags)))
    def look(text):
        try:
            encode(text)
        except CanonicalError:
            return
        for request_ in (True, False):
            missed.extend(
                (text, form)
                for form in ("as it is", "json", "json as PHP writes it", "json of ascii, as a value of json")
                if passed_over({"x": FORMS[form](text)}, Known(), request=request_)
            )

    look()
    assert missed == []


def commands():
    """Yield command lines with a password, of every program and in every way that is known of it."""
    value = "q7RtV-9xLm2p"
    for name, program in PROGRAMS.items():
        needs = [program.needs] if program.needs else []
        for option in program.before:
            yield [name, *needs, option, value]
        if program.joined:
            yield [name, *needs, program.joined + value]
        for option in program.pairs:
            yield [name, *needs, option, f"ann:{value}"]
            yield [name, *needs, f"{option}ann:{value}"]
            if option == "-u":
                yield [name, *needs, "-sSu", f"ann:{value}"]
        if program.number:
            yield [name, *needs, *(["add"] * (program.number - len(needs) - 1)), value]
            yield [name, "-x1", *needs, *(["add"] * (program.number - len(needs) - 1)), value]
    for name in SETTERS:
        for word in SETS:
            for key in ("http-basic.a", "http.extraheader", "x_auth", "db_password", "api_key"):
                yield [name, word, key, value]
    for store in STORES:
        for option in VALUES:
            yield ["az", store, option, value]


def test_a_command_with_a_password_is_passed_over_in_no_form():
    missed = []
    for words in commands():
        for text in (
            " ".join(words),
            "\t".join(words),
            " \t".join(words),
            " ".join([words[0], *map(repr, words[1:])]),
            " ".join([words[0], *map(json.dumps, words[1:])]),
            " \u00a0".join(words),
            f"run: {' '.join(words)}  # and so on - now",
            f"- {' '.join(words)}",
        ):
            missed += [
                (text, form)
                for form in FORMS
                if passed_over({"x": FORMS[form](text)}, Known(), request=False)
            ]
        for document in ({"argv": words}, {"x": json.dumps({"argv": words})}):
            missed += missed_of([document])
    assert missed == []


VALUE = "q7RtV9xLm2pQQ31zza8Ty"
HEADER_ENDS = (
    "token",
    "session-id",
    "passhash",
    "jwt",
    "key",
    "mac",
    "sign",
    "sig-sha256",
    "mac-256",
    "Mac",
    "MacHex",
)


def missed_of(documents):
    """Return the documents of which the walk changes something that the quick look passes."""
    return [
        document
        for document in documents
        for request_ in (True, False)
        if passed_over(document, Known(), request=request_)
    ]


def test_a_header_is_passed_over_in_no_form():
    for name in (*HEADERS, *(f"x-acme-{end}" for end in HEADER_ENDS)):
        documents = (
            {"headers": {name: VALUE}},
            {"headers": [[name, VALUE]]},
            {"headers": [{"name": name, "value": VALUE}]},
            {"x": json.dumps({"headers": {name.upper(): VALUE}})},
            {"x": f"{name}: {VALUE}"},
        )
        assert missed_of(documents) == []


def test_a_name_is_passed_over_in_no_form():
    for name in NAMES:
        for spelled in (name.replace(" ", ""), name.replace(" ", "_").upper(), name.replace(" ", "-"), name):
            form = multipart(VALUE, f'content-disposition: form-data; name="{spelled}"')
            documents = (
                {spelled: VALUE},
                {spelled: [VALUE]},
                {"name": spelled, "value": VALUE},
                {"x": f"https://{HOST}/?a=1&{quote(spelled)}={VALUE}"},
                {"x": f"a=1&{quote(spelled)}={VALUE}"},
                {"x": f"so {spelled}: {VALUE}"},
                {"x": f"{spelled}\tid\n{VALUE}\t1\n"},
                {"x": json.dumps({spelled: VALUE})},
                {"x": json.dumps({"in": json.dumps({spelled: VALUE})})},
                *(packed(text, how) for how in ("text", "binary") for text in (form, f"before\r\n{form}")),
                *(packed(f"{'.' * more}\n{form}", "binary") for more in range(3)),
                {"base64": base64.b64encode(form.encode() + b"\xff").decode()},
            )
            assert missed_of(documents) == []


def test_a_value_whose_type_is_secret_is_passed_over_in_no_form():
    for kind in TYPES:
        member = {"type": kind.title(), "value": VALUE}
        assert (
            missed_of([member, {"x": json.dumps(member)}, {"x": json.dumps({"in": json.dumps(member)})}])
            == []
        )


def test_json_within_json_hides_nothing_by_its_escapes():
    for char in "password_1-token":
        for text in (
            '{"password":"q7RtV-9xLm2p","api_token":"q7RtV-9xLm2p"}',
            "postgres://ann:q7RtV9xL@db/x",
        ):
            escaped = json.dumps({"x": text}).replace(char, f"\\u{ord(char):04x}")
            assert passed_over({"x": escaped}, Known(), request=True) is None
    escaped = "".join(f"\\u{ord(char):04X}" for char in "postgres://ann:q7RtV9xL@db/x")
    assert passed_over({"x": f'{{"x":"{escaped}"}}'}, Known(), request=True) is None


# -- what it is for --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        {
            "id": "6f8a2e29-4f81-4e4e-b368-34312167853a",
            "at": "2026-05-01T10:00:00.123Z",
            "n": [1, -2.5, None],
        },
        {
            "status": 200,
            "headers": [["content-type", "text/html; charset=utf-8"], ["date", "Fri, 01 May 2026"]],
        },
        {"stdout": {"text": "12:30:05 INFO started in 12.5 ms - all is well\nhost:8080 ready\n"}},
        {"value": "/usr/local/bin:/usr/bin:/bin"},
        {"base64": base64.b64encode(bytes(range(256))[:26]).decode()},
    ],
)
def test_an_ordinary_answer_is_passed(document):
    assert RULES.is_clean(encode(document))


# -- variables of the environment ------------------------------------------------------------------------------


@settings(FAST, max_examples=200)
@given(names, values)
def test_a_variable_whose_name_says_nothing_is_looked_at_as_any_answer(name, value):
    if RULES.field(name) is Strength.NONE:
        assert passed_over({"value": value}, Known(), request=False, namespace="env", under=name) is None


# -- the key of a store ----------------------------------------------------------------------------------------


@settings(FAST, max_examples=200)
@given(
    st.binary(min_size=32, max_size=32),
    st.text(max_size=9),
    st.text(max_size=9),
    st.sampled_from(sorted(FORMS)),
)
def test_a_key_of_a_store_is_passed_over_in_no_form(raw, before, after, form):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_VARIABLE, raw.hex())
        reserved = Reserved()
        for text in (raw.hex(), raw.hex().upper(), base64.b64encode(raw).decode()):
            data = encode({"x": f"{before}{FORMS[form](text)}{after}"})
            assert not (RULES.is_clean(data) and reserved.holds(data))
            assert reserved.holds(data) or form != "as it is"
