"""Secrets in streams: wherever a border of two pieces falls, none is stored, and the handler has the true bytes."""

from __future__ import annotations

import base64
import itertools
import re
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine import Plan, RunConfig, SecretPolicy, open_store, replay, resume, run
from machine.engine import run_reader
from machine.events import FactRecorded
from machine.io.transport import Opened
from machine.secrets.held_back import LOOK, HeldBack
from machine.secrets.known_values import Known
from machine.secrets.stream_pieces import held_back
from machine.stores import MemoryStore
from tests.secrets.engine_world import Outside, stored, told_alike

SECRET = "wJalrXUtnFEMI7K7MDENGbPxRfiCYEXAMPLEKEY"
AWS = "AKIAQ3EGRIPWQ7ZXCVBN"
PEM = f"""-----BEGIN RSA PRIVATE KEY-----
{base64.encodebytes(bytes(range(40, 240))).decode()}-----END RSA PRIVATE KEY-----
"""


class Pieces:
    """The rest of an answer, in given pieces."""

    def __init__(self, pieces):
        self.pieces = list(pieces)

    async def next(self):
        return self.pieces.pop(0) if self.pieces else None

    async def aclose(self):
        pass


class Streaming(Outside):
    """An outside that answers with a stream."""

    def __init__(self, pieces):
        super().__init__(None)
        self.pieces = pieces

    async def open_stream(self, namespace, request):
        self.asked.append(request)
        return Opened({"status": 200, "url": "http://h/", "headers": []}, Pieces(self.pieces))


def plan_of(pieces, *, reads=None, fact_key=None):
    plan = Plan("streams", transports={"http": Streaming(pieces)})

    @plan.state("a.only", side_effects="read_only_io")
    async def handler(ctx, io, rec):
        if reads is not None:
            await io.secret(reads)
        async with io.http_stream("GET", "http://h/", fact_key=fact_key) as answer:
            found = [piece async for piece in answer]
        TRUE.append(found)
        await io.now()

    return plan


TRUE = []


@pytest.fixture
def store():
    with open_store("memory://") as opened:
        yield opened


def kept(store, plan, tmp_path, hidden, whole, **options):
    """Run a plan, hold it to what every run of a stream is held to, and return the pieces that it was given."""
    TRUE.clear()
    result = run(plan, store=store, **options)
    assert result.status == "completed", result.error
    pieces = TRUE[0]
    assert b"".join(pieces) == whole
    for secret in hidden:
        assert secret.encode() not in stored(store, result.run_id)
    told_alike(result.run_id, plan, store, tmp_path)
    with_key, without = map(b"".join, TRUE[1:])
    assert with_key == whole
    for secret in hidden:
        assert secret.encode() not in without
    return pieces


@pytest.mark.parametrize("cut", range(1, len(SECRET), 3))
def test_a_known_secret_is_hidden_wherever_the_pieces_end(store, tmp_path, monkeypatch, cut):
    monkeypatch.setenv("TOKEN", SECRET)
    pieces = [f"it is {SECRET[:cut]}".encode(), f"{SECRET[cut:]} said he".encode()]
    given = kept(store, plan_of(pieces, reads="TOKEN"), tmp_path, [SECRET, SECRET[cut:]], b"".join(pieces))
    assert given == [b"it is ", f"{SECRET} said he".encode()]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (f'data: {{"password": "{SECRET}"}}\n\ndata: next\n', SECRET[12:]),
        (f"export AWS_ACCESS_KEY_ID={AWS}\nand on\n", AWS[5:]),
        (f"before\n{PEM}after\n", PEM.splitlines()[2][4:]),
        (f"password:\n  {SECRET}\nrest\n", SECRET[12:]),
        (f"the client_secret={SECRET}", SECRET[12:]),
    ],
    ids=["json", "format", "pem", "next line", "no line"],
)
def test_a_secret_that_spans_pieces_is_hidden(store, tmp_path, text, hidden, size):
    data = text.encode()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    kept(store, plan_of(pieces), tmp_path, [hidden], data)


def test_a_secret_in_bytes_that_are_no_text_is_hidden(store, tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN", SECRET)
    pieces = [b"\xff\xfe\x00" + SECRET[:9].encode(), SECRET[9:].encode() + b"\x80\x81"]
    kept(store, plan_of(pieces, reads="TOKEN"), tmp_path, [SECRET, SECRET[9:]], b"".join(pieces))


def test_what_is_no_secret_is_handed_out_as_it_came(store, tmp_path):
    pieces = [b"Once", b" upon", b" a", " tïme".encode(), b"\n", b"\x00\xff\x01", b"end"]
    assert kept(store, plan_of(pieces), tmp_path, [], b"".join(pieces)) == pieces


def test_a_character_in_two_pieces_is_text(store, tmp_path):
    assert kept(store, plan_of([b"t\xc3", b"\xafme"]), tmp_path, [], "tïme".encode()) == [
        b"t",
        "ïme".encode(),
    ]


@pytest.mark.parametrize(
    "policy",
    [SecretPolicy(pointers=["/a"]), SecretPolicy(stand_ins={"id_token": "x.y.z"})],
    ids=["pointers", "stand-ins"],
)
def test_rules_that_need_a_whole_answer_get_one(store, policy):
    transport = Streaming([b"one", b"two"])
    transport.answer = lambda request: {
        "status": 200,
        "url": "http://h/",
        "headers": [],
        "body": {"text": "onetwo"},
    }
    plan = Plan("streams", transports={"http": transport})

    @plan.state("a.only", side_effects="read_only_io")
    async def handler(ctx, io, rec):
        async with io.http_stream("GET", "http://h/") as answer:
            ctx["text"] = b"".join([piece async for piece in answer]).decode()

    result = run(plan, store=store, config=RunConfig(secrets=policy))
    assert result.context == {"text": "onetwo"}
    assert replay(result.run_id, plan=plan, store=store).identical


@pytest.mark.parametrize("fact_key", [None, "the stream"])
def test_a_driver_without_the_key_makes_a_sealed_stream_again(store, fact_key):
    pieces = [f'{{"password": "{SECRET}"}}\n'.encode(), b"and more"]
    plan = plan_of(pieces, fact_key=fact_key)
    TRUE.clear()
    whole = run(plan, store=store)
    end = next(
        entry.seq
        for entry, _ in run_reader.entries(store, whole.run_id)
        if isinstance(entry.event, FactRecorded) and entry.event.piece is None
    )
    asked = plan.transports["http"].asked
    for keeps in (True, False):
        with MemoryStore() as there:
            if keeps:
                there._contents.secret_key = store._contents.secret_key
            for kind, data in store._contents.artifacts.values():
                there.put(kind, data)
            there.append(whole.run_id, 0, list(store.read_range(whole.run_id, 1, end)))
            if keeps:
                there.add_data_key(whole.run_id, store.secret_key_id(), store.data_key(whole.run_id))
            asked.clear()
            TRUE.clear()
            result = resume(whole.run_id, plan=plan, store=there)
            assert result.status == "completed", result.error
            assert b"".join(TRUE[0]) == b"".join(pieces)
            assert len(asked) == (0 if keeps else 1)


# -- what is held back ----------------------------------------------------------------------------------------


def suspects(line):
    return b"pass" in line


def nothing(data, kept):
    return kept


def test_little_is_held_back_of_a_line_without_end():
    held = HeldBack(suspects, nothing)
    out = held.feed(b"pass=" + b"word " * 100_000)
    assert len(out) > 100_000
    for _ in range(100):
        out += held.feed(b"x" * 1000)
    assert out + held.rest() == b"pass=" + b"word " * 100_000 + b"x" * 100_000


KNOWN = ["S3cr3ts9-S", "S-E3\nC-R9x", "R3tsec9-S3cr3ts9-S"]


NOISE = [b"pass", b"word", b"\n", b"S", b"S3cr", b"x" * LOOK, b"\xc3", b"\xaf", b"=", b"-----BEGIN A\n"]


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from([value.encode() for value in KNOWN]) | st.sampled_from(NOISE), max_size=12),
    st.lists(st.integers(1, 12), min_size=1, max_size=12),
)
def test_no_byte_is_lost_and_no_known_secret_is_split(texts, sizes):
    data, ends = b"".join(texts), itertools.accumulate(itertools.cycle(sizes))
    ends = [0, *itertools.takewhile(lambda end: end < len(data), ends), len(data)]
    chunks = [data[begin:end] for begin, end in itertools.pairwise(ends)]
    known = Known()
    for value in KNOWN:
        known.learn(value, value, sure=True)
    assert len(list(known.items())) == len(KNOWN)
    secrets = SimpleNamespace(run=SimpleNamespace(known=known), is_clean_piece=lambda raw: b"pass" not in raw)
    held = held_back(secrets)
    pieces = [piece for chunk in chunks if (piece := held.feed(chunk))]
    if rest := held.rest():
        pieces.append(rest)
    assert b"".join(pieces) == data
    borders = set(itertools.accumulate(map(len, pieces)))
    for value in KNOWN:
        for found in re.finditer(f"(?={value})".encode(), data):
            inside = range(found.start() + 1, found.start() + len(value))
            assert not borders & set(inside)
