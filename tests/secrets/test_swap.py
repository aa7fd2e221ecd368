"""What stands for a secret is replaced in whatever form it is written, as if the true value had been there."""

import base64
import json
from urllib.parse import quote, urlencode

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from machine.secrets.encodings import is_plain
from machine.secrets.text_swap import Swap

# text before and after that no format takes for its own, so that what a form means is never in question
AROUND = st.text("abcXYZ 0189", max_size=7)
TRUE = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
STAND_IN = st.text("abcdefXYZ0189_-", min_size=9, max_size=24).filter(lambda text: not is_plain(text))


def basic(text):
    return f"Basic {base64.b64encode(f'user:{text}'.encode()).decode()}"


def jwt(text):
    # with characters that only this alphabet has, and no padding
    return f"eyJh.{base64.urlsafe_b64encode(f'?>?>?~{text}'.encode()).rstrip(b'=').decode()}.c2ln"


def url(text):
    return f"https://h.example/v1/{quote(text, safe='')}/x?a=1:2&{urlencode({'t': text, 'q': 'b c'})}#e"


ENCODINGS = {
    "json": lambda text: json.dumps({"a": [text], "n": 1}),
    "compact": lambda text: json.dumps({"a": [text, "é"]}, ensure_ascii=False, separators=(",", ":")),
    "lines": lambda text: "".join(json.dumps({"a": text, "n": 1}) + "\n" for _ in range(2)),
    "form": lambda text: urlencode({"grant": "x", "secret": text}),
    "url": url,
    "basic": basic,
    "jwt": jwt,
    "hex": lambda text: f"key={text.encode().hex()}",
    "packed": lambda text: base64.b64encode(json.dumps({"auth": basic(text), "n": 1}).encode()).decode(),
    "as it is": lambda text: f"key is <{text}>!",
}


@pytest.mark.parametrize("name", ENCODINGS)
@settings(max_examples=10, deadline=None)
@given(AROUND, AROUND, TRUE, STAND_IN)
@example("", "", 'q"uo\\te é€😀 &=+%/?#', "an-invented-token")
@example("a", "bc", "short", "an-invented-token")
@example("ab", "", "a" * 300, "an-invented_token")
def test_what_is_put_in_is_written_as_what_it_replaces(name, before, after, true, stand_in):
    encode, ends = ENCODINGS[name], "" if name == "hex" else "|"
    text, wanted = (encode(f"{before}{ends}{one}{ends}{after}") for one in (stand_in, true))
    swap = Swap({stand_in: true})
    assert swap.text(text) == wanted
    assert swap.used == {stand_in}


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=80))
@example('{"a": "\\ud83d"}')
@example("https://a/%ff?b=%20+c&d#%")
@example("a=b%2&c=%E4")
@example("YWJjZGVmZ2hpamtsbW5vcA==/_-+YWJj")
def test_a_text_without_it_stays_as_it_is(text):
    swap = Swap({"an-invented-token": "true"})
    assert (swap.text(text), swap.used) == (text, set())
    assert swap.in_bytes(text.encode("utf-8", "surrogatepass")) == text.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("pin=0000", "pin=4711"),
        ("10000", "10000"),
        ("an uninvented thing", "an uninvented thing"),
        (basic("0000"), basic("4711")),
        (f"https://h/{base64.urlsafe_b64encode(b'user:0000').decode()}/next/one", None),
        ("https://u:0000@h/", "https://u:4711@h/"),
    ],
)
def test_a_short_text_is_replaced_where_it_stands_alone(text, wanted):
    wanted = wanted or text.replace(
        base64.b64encode(b"user:0000").decode(), base64.b64encode(b"user:4711").decode()
    )
    assert Swap({"0000": "4711", "invented": "no"}).text(text) == wanted


@pytest.mark.parametrize("alignment", range(3))
@pytest.mark.parametrize("gained", range(3))
def test_base64_in_running_text_is_told_from_what_stands_beside_it(alignment, gained):
    stand_in, true = "an-invented-token", "true-value-of-it" + "x" * gained
    packed, wanted = (
        base64.b64encode(b"u" * alignment + one.encode() + b":\xc3\xa9?>").decode()
        for one in (stand_in, true)
    )
    swap = Swap({stand_in: true})
    for form in ("key {}", "/v1/key/{} next", "a-{}", "k={}", '"{}"', "<{}/>".replace("/", " ")):
        assert swap.text(form.format(packed)) == form.format(wanted)


def test_bytes_that_are_no_text_keep_all_but_what_is_replaced():
    swap = Swap({"an-invented-token": "tru\u00e9"})
    assert swap.in_bytes(b"\xff\x00an-invented-token\xfe") == b"\xff\x00tru\xc3\xa9\xfe"


@pytest.mark.parametrize(
    "form",
    ["{}", "{}/more?n=1", "{}?t=an-invented-token", "see {} there", '{{"to": "{}"}}', "u={}&n=1", "<{}>"],
)
def test_an_address_can_be_a_secret_itself(form):
    address, true = "https://hooks.invented/a", "https://u:p@hooks.example/T0/B0?k=v"
    wanted = form.format(quote(true, safe="") if "u=" in form else true)
    text = form.format(quote(address, safe="") if "u=" in form else address)
    swap = Swap({address: true, "an-invented-token": "a b"})
    assert swap.text(text) == wanted.replace("an-invented-token", "a+b")
    assert swap.text("https://hooks.invented/abc") == "https://hooks.invented/abc"


@pytest.mark.parametrize("stand_in", ['{"key": "invented"}', "key=invented&n=1", '["invented-9"]'])
def test_a_document_can_be_a_secret_itself(stand_in):
    swap = Swap({stand_in: '{"key": "it"}'})
    assert swap.document({"whole": stand_in, "json": json.dumps([stand_in])}) == {
        "whole": '{"key": "it"}',
        "json": json.dumps(['{"key": "it"}']),
    }


def test_several_are_replaced_at_once_and_the_longest_counts():
    swap = Swap({"token-one-1": "token-one-12", "token-one-12": "x"})
    assert swap.text("token-one-1 token-one-12") == "token-one-12 x"


def test_a_part_of_a_multipart_body_is_written_as_it_stood_there():
    def body(text):
        length = f"\r\nContent-Length: {len(text.encode())}\r\nX-Length: 19"
        return (
            f'--b7\r\ncontent-disposition: form-data; name="t"{length}\r\n\r\n{text}\r\n'
            f'--b7\r\ncontent-disposition: form-data; name="j"\r\n\r\n{json.dumps({"t": text})}\r\n--b7--\r\n'
        )

    true = 'q"é\\ &'
    request = {"headers": {"Content-Type": "multipart/form-data; boundary=b7"}}
    sent = Swap({"an-invented-token": true}).request(
        "http", {**request, "body": {"text": body("an-invented-token")}}
    )
    assert sent == {**request, "body": {"text": body(true)}}
