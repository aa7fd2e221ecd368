"""The parts of multipart bodies: secrets in them are replaced, and every other byte is stored as it is."""

from __future__ import annotations

import base64

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import FAST

from machine import Plan, SecretPolicy, canonical, open_store, replay, run
from machine.io.request_fields import pack, unpack
from machine.recordings.divergence import DivergenceKind
from machine.secrets.base64_bytes import packed_bytes
from machine.secrets.known_values import Known
from machine.secrets.multipart import parts
from machine.secrets.placeholder import sources_in, text_of
from machine.secrets.redact import redact
from machine.secrets.restore import opened, shown
from machine.secrets.rules import rules_of
from machine.secrets.scan_findings import found
from tests.secrets.engine_world import elsewhere, stored, told_alike

PNG = b"\x89PNG\r\n\x1a\n\xff\xfe"
KEY = "upload-key-1234567"
PASSWORD = "correct horse"
RULES = rules_of(SecretPolicy())


def redacted(body, known=None, *, request=True, rules=RULES):
    """Redact a body; hold it to it that it can be had back, and that the quick look finds what there is."""
    document = {"body": pack(body), "headers": {"content-type": "multipart/form-data; boundary=b0undary"}}
    done = redact(rules, known or Known(), "http", document, request=request, name=str)
    assert opened(done.document, done.edits) == document
    if done.edits and known is None:
        assert rules.may_hold(canonical.encode(document))
    return done


def kept(body, known=None, **how):
    """Return the bytes that are stored for a body."""
    return unpack(redacted(body, known, **how).document["body"])


def form(*fields, boundary=b"b0undary", line=b"\r\n", end=True):
    """Return a multipart body of heads and bodies."""
    body = b"".join(b"--%b%b%b%b%b%b" % (boundary, line, head, line * 2, data, line) for head, data in fields)
    return body + (b"--%b--%b" % (boundary, line) if end else b"")


def field(name, more=b""):
    return b'Content-Disposition: form-data; name="%b"%b' % (name.encode(), more)


FILE = field("f", b'; filename="a.png"\r\nContent-Type: image/png'), PNG


# -- in runs -------------------------------------------------------------------------------------------------


def uploading(url, content, *, password=PASSWORD):
    plan = Plan("upload")

    @plan.state("a.send", side_effects="apply_side_effect", idempotency="u")
    async def send(ctx, io, rec):
        key = await io.secret("UP_KEY")
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            sent = await client.post(
                url, data={"note": key, "password": password, "plain": "x"}, files={"f": ("a.bin", content)}
            )
        ctx["status"] = sent.status_code

    return plan


@pytest.mark.parametrize("content", [b"hello", PNG], ids=["text", "bytes"])
def test_secret_fields_beside_a_file_are_replaced_and_the_file_is_compared(
    server, monkeypatch, tmp_path, content
):
    monkeypatch.setenv("UP_KEY", KEY)
    server.answer = lambda seen: (200 if KEY in seen["body"] and PASSWORD in seen["body"] else 403, [], {})
    store = open_store("memory://")
    plan = uploading(server.url, content)
    done = run(plan, store=store)
    assert (done.error, dict(done.context)) == (None, {"status": 200})
    for secret in (KEY, PASSWORD):
        written = stored(store, done.run_id)
        assert secret.encode() not in written
        assert not any(base64.b64encode(b"x" * at + secret.encode())[4:-4] in written for at in range(3))
    told_alike(done.run_id, plan, store, tmp_path)
    for there in (store, elsewhere(store, done.run_id, tmp_path)):
        other = replay(done.run_id, plan=uploading(server.url, content + b"!"), store=there)
        assert other.divergence.kind is DivergenceKind.REQUEST_CHANGED


def test_the_secrets_of_an_answer_in_parts_are_passed_on_without_the_key(server, tmp_path):
    token = "tok-9f8e7d6c5b4a"
    answer = form((field("access_token"), token.encode()), FILE)
    server.answer = lambda seen: (200, [("content-type", "multipart/form-data; boundary=b0undary")], answer)
    plan = Plan("passing")

    @plan.state("a.pass", side_effects="read_only_io")
    async def pass_on(ctx, io, rec):
        got = (await io.http("GET", server.url)).bytes
        part = next(parts(got.decode("latin-1")))
        ctx["png"] = PNG in got
        await io.http("GET", server.url, headers={"x-note": got[part.begin : part.end].decode()})

    store = open_store("memory://")
    done = run(plan, store=store)
    assert done.error is None
    assert server.seen[1]["headers"]["x-note"] == token
    assert token.encode() not in stored(store, done.run_id)
    told_alike(done.run_id, plan, store, tmp_path)


# -- by part -------------------------------------------------------------------------------------------------


def test_each_part_is_treated_by_its_name_and_its_text():
    body = form(
        FILE,
        (field("password"), PASSWORD.encode()),
        (field("meta") + b"\r\nContent-Type: application/json", b'{"client_secret": "plain", "n": 1}'),
        (field("x") + b"\r\nX-Note: ghp_" + b"a1B2" * 9, b"text"),
        (field("latin", b'; filename="\xe9 ghp_%b"' % (b"c3D4" * 9)), b"text"),
        (field("private_key", b'; filename="k.der"'), b"\x30\x82\xff"),
    )
    expected = body
    for true, source in (
        (PASSWORD.encode(), "password"),
        (b"plain", "client_secret"),
        (b"ghp_" + b"a1B2" * 9, "github_token"),
        (b"ghp_" + b"c3D4" * 9, "github_token"),
        (b"\x30\x82\xff", "private_key"),
    ):
        expected = expected.replace(true, text_of(source).encode())
    assert kept(body) == expected
    assert [each.rule for each in found(RULES, canonical.encode({"body": pack(body)}), request=True)] == [
        "password",
        "client_secret",
        "github_token",
        "github_token",
        "private_key",
    ]


@pytest.mark.parametrize(
    "body",
    [
        form(FILE, (field("password"), PASSWORD.encode()), end=False),
        form(FILE, (field("password"), PASSWORD.encode()), line=b"\n"),
        form((field("password"), PASSWORD.encode()), FILE, boundary=b"a'()+_,-./:=? z"),
        form((field("password"), PASSWORD.encode()), FILE, boundary=b"--"),
        form((field("password"), PASSWORD.encode()), FILE, boundary=b"x" * 500),
        form((field("password"), PASSWORD.encode()), FILE).replace(b"b0undary\r", b"b0undary \t\r"),
        form((field("password"), b"correct\r\n--b0\r\nContent-Type: x\r\n\r\nhorse"), FILE),
        form((field("password"), b"correct horse\r\n--b0undary:"), FILE),
        form((field("password").lower(), PASSWORD.encode()), FILE),
        form((field("password").upper(), PASSWORD.encode()), FILE),
        form((b"Content-Disposition: form-data; name=password", PASSWORD.encode()), FILE),
        form((b"Content-Disposition: form-data; name*=UTF-8''pass%77ord", PASSWORD.encode()), FILE),
        form((b"Content-Disposition: form-data;\r\n name=password", PASSWORD.encode()), FILE),
        form((b'Content-Disposition: form-data; filename="; name=x"; name="password"', PASSWORD.encode()), FILE),
        form((b'Content-Disposition: form-data; name="x"; name="password"', PASSWORD.encode()), FILE),
        form((b"garbage\r\n" + field("password") + b"\r\nmore", PASSWORD.encode()), FILE),
        form((b"X-First: 1\r\n" + field("password"), PASSWORD.encode()), FILE),
        form((b"", b"no head"), (field("password"), PASSWORD.encode()), FILE),
        b"preamble\r\n" + form((field("password"), PASSWORD.encode()), FILE) + b"\xff epilogue",
        form(FILE, (field("password"), PASSWORD.encode())) + form(FILE, (field("password"), PASSWORD.encode())),
        form((field("x"), PASSWORD.encode()), FILE).replace(b'"x"', b'"password'),
        form(
            (
                field("password", b"\r\nContent-Type: multipart/mixed; boundary=inner"),
                form((b"Content-Disposition: file", PASSWORD.encode()), FILE, boundary=b"inner"),
            ),
            FILE,
        ),
        form(
            (
                b"Content-Type: multipart/mixed; boundary=inner",
                form((field("password"), PASSWORD.encode()), boundary=b"inner", end=False),
            ),
            FILE,
        ),
    ],
)  # fmt: skip
def test_a_body_that_is_oddly_written_hides_no_field(body):
    done = kept(body)
    assert b"correct" not in done
    assert b"horse" not in done
    assert PNG in done or b"multipart/mixed" in done
    assert b"correct" not in kept(body.replace(PNG, b"text")), "nor beside a text"


@pytest.mark.parametrize("name", ["note", "secretary", "password_hint_shown", ""])
def test_other_fields_and_files_are_stored_as_they_are(name):
    body = form((field(name), PASSWORD.encode()), FILE)
    assert not redacted(body).edits
    assert not redacted(PNG + body.replace(b"Content", b"C0ntent") + b"--").edits


def test_a_known_secret_is_found_in_a_part_and_seals_only_that_part():
    known = Known()
    known.learn("UP_KEY", KEY, sure=True)
    body = form((field("note"), f"say {KEY}".encode()), (field("g"), b"\xff" + KEY.encode()), FILE)
    place = text_of("UP_KEY").encode()
    assert kept(body, known) == form((field("note"), b"say " + place), (field("g"), place), FILE)
    for number in range(20):  # of many, only those that are there are looked for
        known.learn(f"k{number}", f"s{number:03}-x!", sure=True)
    assert b"s003-x!" not in kept(form((field("note"), b"s003-x!"), FILE), known)
    without_key = Known()
    without_key.learn("UP_KEY", text_of("UP_KEY"), sure=True)
    again = body.replace(KEY.encode(), text_of("UP_KEY").encode())
    assert kept(again, without_key) == kept(body, known)


def test_what_becomes_text_is_stored_as_text():
    """A program without the key, which has placeholders for the bytes, sends text."""
    body = form((field("password"), "pässword".encode("latin-1")))
    done = redacted(body)
    assert done.document["body"] == {"text": form((field("password"), text_of("password").encode())).decode()}
    assert sources_in(redacted(form((field("password"), b"x"), FILE)).document) == ["password"]
    assert [
        (each.rule, each.length)
        for each in found(RULES, canonical.encode({"body": pack(body)}), request=True)
    ] == [("password", 8)]


def test_a_policy_speaks_of_the_parts_too():
    body = form((field("password"), PASSWORD.encode()), (field("pin"), b"12 34"), FILE)
    own = rules_of(SecretPolicy(names=["pin"], allow=["password"]))
    assert kept(body, rules=own) == body.replace(b"12 34", text_of("pin").encode())
    assert kept(body, rules=rules_of(SecretPolicy(allow=["$.body.base64"]))) == body


def test_more_than_a_thousand_secrets_are_sealed_whole():
    done = redacted(form(*[(field("password"), b"%d x" % number) for number in range(1001)], FILE))
    assert done.document["body"] == {"text": {"$secret": "password"}}


# -- total ---------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        *(
            b"--",
            b"b",
            b"--b",
            b"\r\n--b\r\n",
            b"\n--b\n",
            b"\r\n--b--\r\n",
            b"\r\n",
            b"\n",
            b"\r",
            b"\n--c\r\n",
        ),
        *(
            field("password"),
            field("x"),
            b"content-type: multipart/mixed; boundary=c\r\n",
            b'name="',
            b"\\",
            b";",
        ),
        *(
            PASSWORD.encode(),
            KEY.encode(),
            PNG,
            b"\x00",
            "é".encode(),
            b'{"password": "aB3dE5fG7h"}',
            b"__secret_K__",
        ),
    ]
)
BODIES = st.lists(PIECES | st.binary(max_size=4), max_size=30).map(b"".join)


@settings(FAST, max_examples=150)
@given(BODIES, st.booleans())
def test_any_bytes_are_stored_and_had_back(body, request_):
    known = Known()
    known.learn("UP_KEY", KEY, sure=True)
    text = body.decode("latin-1")
    at = 0
    for part in parts(text):
        assert at <= part.head <= part.begin <= part.end <= len(text)
        at = part.end
    data = base64.b64encode(body).decode()
    document = {"base64": data}
    done = redact(RULES, known, "http", document, request=request_, name=str)
    assert opened(done.document, done.edits) == document
    shown(done.document)
    if packed_bytes(document) is not None:
        assert KEY.encode() not in base64.b64decode(done.document.get("base64", ""))
        assert KEY not in str(done.document.get("text"))
