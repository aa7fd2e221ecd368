"""`machine scan` on files: whatever their size and kind, in little memory and in linear time."""

from __future__ import annotations

import base64
import errno
import io
import json
import os
import tracemalloc
from pathlib import Path

import pytest

from machine.engine import scan_file
from machine.engine.scan import leaks_in_file
from machine.engine.scan_file import OVERLAP, WHOLE, WINDOW

FOR_FILES = "replace each credential where it was issued, and remove it from its file"
AWS = b"AKIAIOSFODNN7EXAMPLE"
LINE = b"an innocent line of a log that goes on and on, 0123456789\n"
PEM = b"-----BEGIN RSA PRIVATE KEY-----\n%b-----END RSA PRIVATE KEY-----\n" % (
    b"MIIEowIBAAKCAQEAu1SU1LfVLPHCozMxH2Mo4lgOEePzNm0tRgeLezV6ffAt0gun\n" * 25
)


class Endless(io.RawIOBase):
    """A file of so many bytes of one line, of which none is kept; `planted` stand at their places."""

    def __init__(self, size, planted=()):
        self.size, self.at, self.planted = size, 0, dict(planted)

    def readable(self):
        return True

    def readinto(self, buffer):
        count = min(len(buffer), self.size - self.at)
        turn = self.at % len(LINE)
        data = bytearray((LINE * (count // len(LINE) + 2))[turn : turn + count])
        for place, text in self.planted.items():
            begin, end = max(place, self.at), min(place + len(text), self.at + count)
            if begin < end:
                data[begin - self.at : end - self.at] = text[begin - place : end - place]
        buffer[:count] = data
        self.at += count
        return count


def found_in(data):
    return [(leak.offset, leak.rule, leak.length) for leak in leaks_in_file(io.BytesIO(data))]


@pytest.mark.parametrize("around", [0, 1, 5, 19, 20, 21, 40])
@pytest.mark.parametrize("edge", [WINDOW, WINDOW + OVERLAP])
@pytest.mark.parametrize("filling", [b" ", b".\n"])
def test_a_secret_across_the_edge_of_a_piece_is_found_once(edge, around, filling):
    at = edge - around
    data = (filling * at)[:at] + AWS + (filling * WINDOW)[:WINDOW]
    assert found_in(data) == [(at, "aws_access_key_id", 20)]


def test_a_long_secret_across_the_edge_of_a_piece_is_found_whole():
    at = WINDOW - 100
    data = LINE * (at // len(LINE))
    ((begin, rule, length),) = found_in(data + PEM + LINE * 9000)
    assert (begin, rule) == (len(data), "private_key")
    assert length >= len(PEM) - 1


def test_a_file_larger_than_memory_is_looked_through_in_little_of_it():
    size = 24 * 1024 * 1024
    places = [1, 5_000_000, size - 21]
    file = io.BufferedReader(Endless(size, [(place - 1, b" %b " % AWS) for place in places]))
    done = []
    tracemalloc.start()
    leaks = list(leaks_in_file(file, step=done.append))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [leak.offset for leak in leaks] == places
    assert sum(done) == size
    assert peak < 8 * 1024 * 1024


def test_a_document_is_looked_at_as_one():
    document = json.dumps({"user": {"password": "hunter-2Xq9-77b"}}, indent=2).encode()
    at = document.index(b"hunter")
    assert found_in(document) == [(at, "password", 15)]
    assert found_in(b"\xef\xbb\xbf \n" + document) == [(at + 5, "password", 15)]


@pytest.mark.parametrize("times", [3, WHOLE // 8000])
def test_lines_of_json_are_looked_at_each_by_itself(times):
    line = b'{"password": "hunter-2Xq9-77b", "n": "%b"}\n' % (b"." * 9000)
    (first, second, *_), count = (found := found_in(line * times))[:3], len(found)
    assert (first, second) == ((14, "password", 15), (14 + len(line), "password", 15))
    assert count == times
    assert found_in(b"started\n" + line + b"[section]\nclient_secret = hunter-2Xq9-77b\n") == [
        (22, "password", 15),
        (8 + len(line) + 26, "client_secret", 15),
    ]


def test_bytes_that_are_no_text_are_looked_at():
    data = bytes(range(256)) * 100
    assert found_in(data) == []
    assert found_in(data + AWS + data) == [(len(data), "aws_access_key_id", 20)]


def test_a_text_with_too_many_places_to_look_at_is_looked_at_in_halves(monkeypatch):
    data = b"key: x\n" * 9000 + AWS + b"\n" + b"key: x\n" * 9000
    looked = []
    judged = scan_file.found_in_text

    def few(rules, text):
        looked.append(len(text))
        if len(text) > 20_000:
            raise scan_file.TooManyPlacesError
        return judged(rules, text)

    monkeypatch.setattr(scan_file, "found_in_text", few)
    assert found_in(data) == [(63_000, "aws_access_key_id", 20)]
    assert max(looked) == len(data)


def test_a_text_that_nobody_can_judge_is_said_to_be_one(monkeypatch):
    def none(rules, text):
        raise scan_file.TooManyPlacesError

    monkeypatch.setattr(scan_file, "found_in_text", none)
    assert found_in(b"password\n" * 100) == [(0, "text", 900)]


@pytest.mark.parametrize(
    "unit",
    [b"a", b'"', b"{", b"[{", b"password=", b"-----BEGIN ", b"eyJ", b'{"$secret":"', b"\\", b'{"a":"b"}\n'],
)
def test_the_work_grows_with_the_size(unit, monkeypatch):
    looked = []
    judged = scan_file.found_in_text
    monkeypatch.setattr(
        scan_file, "found_in_text", lambda rules, text: looked.append(len(text)) or judged(rules, text)
    )
    monkeypatch.setattr(scan_file, "WINDOW", 4096)
    monkeypatch.setattr(scan_file, "OVERLAP", 512)
    sizes = []
    for size in (1 << 14, 1 << 18):
        looked.clear()
        list(leaks_in_file(io.BytesIO(unit * (size // len(unit)))))
        sizes.append(sum(looked))
    assert sizes[1] <= 20 * sizes[0] + (1 << 14)
    assert sizes[1] <= 3 * (1 << 18)


# ---- from the command line


def test_a_file_is_told_by_its_offset_and_never_by_its_value(machine, here):
    Path("app.env").write_text("A=1\nAPI_KEY=hunter-2Xq9-77b\n")
    said = machine("scan", "app.env")
    assert (said.code, said.err) == (1, f"next: {FOR_FILES}\n")
    assert said.out.splitlines()[1].split() == ["app.env", "API_KEY", "15", "offset", "12"]
    in_json = machine("scan", "app.env", "--json")
    assert in_json.code == 1
    assert in_json.json == {
        "scanned": 1,
        "found": [
            {
                "in": "app.env",
                "where": "app.env",
                "path": "offset 12",
                "rule": "API_KEY",
                "length": 15,
                "offset": 12,
            }
        ],
        "more": 0,
        "failed": [],
        "next": FOR_FILES,
    }
    assert "hunter" not in said.out + in_json.out


def test_a_file_without_a_secret_is_fine(machine, here):
    Path("a.txt").write_text("nothing here")
    said = machine("scan", "a.txt")
    assert (said.code, said.out) == (0, "")
    assert said.err == "note: nothing that looks like a secret was found\n"
    Path("empty").write_bytes(b"")
    empty = machine("scan", "empty", "--json")
    assert (empty.code, empty.json["next"]) == (0, None)


def test_a_directory_means_every_file_in_it_and_below(machine, here):
    for name in ("b/c/deep.txt", "a.txt", ".git/config", "b/.hidden"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(AWS)
    os.mkfifo("b/pipe")
    Path("loop").symlink_to(".")
    Path("link").symlink_to("a.txt")
    said = machine("scan", ".", "--json")
    assert (said.code, said.json["scanned"]) == (1, 3)
    assert [found["in"] for found in said.json["found"]] == ["a.txt", "b/.hidden", "b/c/deep.txt"]
    Path("none").mkdir()
    assert machine("scan", "none").code == 0


def test_several_files_are_each_looked_at_once(machine, here):
    for name in ("a.txt", "b.txt"):
        Path(name).write_bytes(AWS)
    said = machine("scan", "a.txt", "b.txt", "a.txt")
    assert said.code == 1
    assert [line.split()[0] for line in said.out.splitlines()] == ["WHERE", "a.txt", "b.txt"]
    assert said.err == f"scanned: 2, of which 0 could not be read\nnext: {FOR_FILES}\n"


def test_a_file_that_cannot_be_read_hides_no_other(machine, here, monkeypatch):
    Path("a.txt").write_bytes(AWS)
    Path("b.txt").write_bytes(AWS)
    really = Path.open

    def refusing(path, *args, **options):
        if path.name == "a.txt":  # root may read all there is
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really(path, *args, **options)

    monkeypatch.setattr(Path, "open", refusing)
    assert machine("scan", "a.txt").err == "error[usage]: a.txt cannot be read: Permission denied\n"
    said = machine("scan", ".", "--json")
    assert (said.code, [found["in"] for found in said.json["found"]]) == (2, ["b.txt"])
    assert [failed["in"] for failed in said.json["failed"]] == ["a.txt"]


def test_what_goes_beyond_a_bound_is_counted(machine, here, monkeypatch):
    monkeypatch.setattr("machine.cli.scan._MOST_TOLD", 3)
    Path("a.txt").write_bytes((AWS + b" ") * 10)
    said = machine("scan", "a.txt", "--json")
    assert (len(said.json["found"]), said.json["more"], said.code) == (3, 7, 1)
    assert machine("scan", "a.txt").err == f"note: 7 more were found\nnext: {FOR_FILES}\n"


KEY = bytes(range(200, 232))


@pytest.mark.parametrize(
    ("name", "data", "is_key"),
    [
        ("runs.db.key", KEY.hex().encode() + b"\n", True),
        ("runs.db.key", base64.b64encode(KEY), True),
        ("runs.db.key", KEY, True),
        ("runs.db.key.0123456789abcdef", KEY.hex().encode(), True),
        ("runs.db.key.01234567.tmp", KEY.hex().encode(), True),
        ("runs.db", KEY.hex().encode(), False),
        ("tls.key", b"-----BEGIN X-----\n", False),
        ("long.key", KEY.hex().encode() + b"\n" * 5000, False),
    ],
)
def test_the_key_file_of_a_store_is_found(machine, here, name, data, is_key):
    Path("store").mkdir()
    Path("store", name).write_bytes(data)
    said = machine("scan", "store", "--json")
    assert [found["rule"] for found in said.json["found"]] == ["store_key"] * is_key
    assert said.code == is_key
    assert ("rotate-key" in (said.json["next"] or "")) is is_key


def test_placeholders_in_source_code_are_no_secrets(machine, here):
    Path("client.py").write_text(
        """
        f"Bearer {token}", f"Bearer {self.settings.access_token_2}", "Bearer ${TOKEN_12345678901}",
        "Bearer {{ token1 }}", "Bearer <token>", "Bearer %(token_12345678901)s",
        "Bearer YOUR_TOKEN_HERE_1", "Bearer $TOKEN_12345678901"
        headers = {"Authorization": f"Bearer {token123456789}.{signature12345}", "x-api-key": f"{self.api_key_1}"}
        os.environ["API_KEY"] = f"{prefix}{key1}"
        url = f"https://{user}:{password1}@host/?access_token={access_token_1}"
        """
    )
    assert machine("scan", "client.py").out == ""
    Path("client.py").write_text("x = 'Bearer tok-8f3k2Lq9-XX'")
    assert machine("scan", "client.py").code == 1


def test_a_terminal_shows_how_far_it_is(on_terminal, here):
    Path("a.txt").write_bytes(LINE * 100)
    code, shown = on_terminal("scan", "a.txt")
    assert (code, "scanning" in shown, "100%" in shown) == (0, True, True)
    assert "scanning" not in on_terminal("scan", "a.txt", "--quiet")[1]
