"""The work grows with the text and no faster, whatever the text is."""

from __future__ import annotations

import contextlib
from collections import deque
from time import thread_time

import pytest

from machine import SecretPolicy
from machine.secrets.credential_formats import FORMATS
from machine.secrets.known_values import Known
from machine.secrets.named_values import named_values
from machine.secrets.redact import redact, say_text
from machine.secrets.redacted_text import _APART as APART
from machine.secrets.redacted_text import MOST_CANDIDATES, MOST_WORK, TooManyPlacesError, Work
from machine.secrets.rules import rules_of
from machine.secrets.running_text import folded, look_at, running
from machine.secrets.unredacted_search import refused

RULES = rules_of(SecretPolicy(patterns=["(a+)+$", "ACME-[0-9]+"]))
SMALL, TIMES = 1 << 14, 16
MOST, TRIES = 20, 40
"""So many times the work are right; a clock is no counter, so one of some tries has to tell it."""

FEW, TOO_MANY = 20_000, 300_000
"""So many short names, close to each other, are too many."""

SECRETS = [
    "ghp_" + "aB3dE5fG7h" * 4,
    "0123456789abcdef" * 2 + "-us12",
    "eyJhbGciOiJIUzI1NiJ9." + "e30a" * 2000 + ".x",
    "csrfmiddlewaretoken: aB3dE5fG7haB3",
    "mysql -u root -paB3dE5fG7h",
]
UNITS = [
    *(
        "sk-",
        "-eyJ",
        "eyJhbGciOiJIUzI1NiJ9.e30.x ",
        "token=",
        "token= ",
        "token =\t",
        "token=x;",
        "password='",
    ),
    *(
        '{"password":"',
        '"password":"',
        'password:"\\',
        '{"password":\\"',
        '"password":\'',
        "password: |\n",
        '"',
        "\\",
    ),
    *(
        "'",
        '\\"',
        "%",
        "%41",
        "QUJD",
        "abc/+_-",
        "a=a&",
        "password=x&",
        "a=b; ",
        "cookie: a=b ",
        "Cookie: a=b\n",
    ),
    *(
        "Authorization: Basic ",
        "Bearer ",
        "__secret_",
        "__secret_a__",
        "AKIA" + "IOSFODNN7EXAMPLE ",
        "a:1:b:c:d\n",
    ),
    *(
        ":",
        "=",
        "?a=",
        "ab://",
        "http://a:b@",
        "http://a/?sv=1&sig=",
        " ",
        "password     ",
        "--token ",
        " -u ",
        " -b '",
    ),
    *(
        "login a password ",
        '--b\r\nContent-Disposition: form-data; name="password"\r\n\r\n',
        '--b\ncontent-disposition: form-data; name="\\";',
        "--password\r\n",
        "<password>",
        'password a="b" ',
        "key",
        "key,'",
    ),
    *(
        "\u0130token=",
        "the quick brown fox ",
        "-",
        "_",
        "a.",
        "-----BEGIN " + "PRIVATE KEY-----",
        "-----BEGIN ",
        "A\n",
    ),
    *(
        '{"secrets":',
        'secrets: ["a", ',
        '["password",',
        '{"a":',
        "[",
        "[0,",
        "identified by ",
        "xoxb-",
        "ghp_a",
        "PWD=;",
    ),
    *(
        "\U0001f511",
        "\u00e9",
        "0",
        "123456789:AA",
        "Q~",
        "SG.",
        "hooks.slack.com/services/",
        "machine secret-value-1 ",
        "user,password\n",
        "|password|",
        "into a(password)values('",
        "into a(password)values('b'),",
    ),
    *(
        "mysql -p'",
        "aws set password ",
        "eyJhIjoxfQ== ",
        "eyJ",
        "AUTH a ",
        "LOGIN a b\n",
        "a:$6$b$",
        "API key `",
        "identified with a ",
        "password<b>",
        "password:protected]",
        "%22password%22%3a%22",
        "&a &a password: &a ",
        "SETUSER >a",
        "password for a ",
        "curl -su a: ",
        "a***",
    ),
    *(" --user ", "WIFI:$", " set ", "passwd|\n", "token;;", "eyJaaaaaaaa.", "pw a,pw\n", '{"session":1}'),
    *("password:\n", "token a a:\n  ", "login for a: ", "key: a,\n", 'key a="" value'),
    " ".join(f"{needle}aaaa" for form in FORMATS for needle in form.needles),
]
TEXTS = {
    **{repr(unit): lambda size, unit=unit: unit * (size // len(unit)) for unit in UNITS},
    "a long name in a URL": lambda size: "http://" + "a" * size + " see me@x",
    "one key": lambda size: "-----BEGIN " + "PRIVATE KEY-----\n" + "A" * size,
    "deep lists": lambda size: "[" * (size // 2) + "]" * (size // 2),
    "deep objects": lambda size: '{"a":' * (size // 6) + "1" + "}" * (size // 6),
    "many strings": lambda size: "[" + '"password",' * (size // 11) + "0]",
    "many members": lambda size: "[" + '{"password":"x"},' * (size // 17) + "0]",
    "many numbers": lambda size: '{"password":[' + "0," * (size // 2) + "0]}",
    "a form": lambda size: "password=aB3dE5fG7h&" * (size // 20) + "a=b",
    "a long value": lambda size: "password=" + "aB3" * (size // 3),
    "a string that nothing ends": lambda size: "password='" + "a" * size,
    "a string of signs": lambda size: "password='" + "%" * size,
    "one name at the end": lambda size: "a" * size + " key=x",
    "different parameters": lambda size: "?" + "".join(f"a{at:06}key=x&" for at in range(size // 15)),
    "different names": lambda size: "".join(f"a{at:06}key=x\n" for at in range(size // 15)),
    "parts in parts": lambda size: "".join(
        f"--{at:06}\nContent-Type: a/b; boundary={at + 1:06}; name=password\n\n" for at in range(size // 60)
    ),
    "a long cookie": lambda size: "Cookie: " + "a=bC3dE5fG; " * (size // 12),
    "words under a password": lambda size: "".join(
        f"password={'alpha-bravo-' * 300}{at}\n" for at in range(size // 3600)
    ),
    "parameters in a parameter": lambda size: "http://" + "?token=" * (size // 7),
    "parameters in a parameter in JSON": lambda size: '{"a":"http://b/' + "?token=" * (size // 7) + '"}',
    "parameters in a parameter in a header": lambda size: (
        "GET / HTTP/1.1\nLocation: http://b/" + "?token=" * (size // 7) + "\nA: b\n"
    ),
    "parameters in a parameter of a form": lambda size: "a=b&c=" + "token=" * (size // 6),
    "parameters in a parameter after a blank": lambda size: "see " + "?session=" * (size // 9) + " there",
    "strings of all kinds that nothing ends": lambda size: (
        "".join("token=" + "\\" * slashes + quote for slashes in range(16) for quote in "'\"`") + "a" * size
    ),
    "words in a table": lambda size: (
        "user,password\n" + "".join(f"a,monday-{at % 5000}\n" for at in range(size // 14))
    ),
    "different short tokens": lambda size: "".join(f"token: a{at}b\n" for at in range(size // 14)),
    "what may be logins": lambda size: "a:" * (size // 2) + " chpasswd @tcp( AUTH LOGIN a:\n\n login(",
    "comments before a form": lambda size: "--a\nb\n" * (size // 6),
    "comments in a form": lambda size: (
        '--b\nContent-Disposition: form-data; name="a"\n\nx\n' + "--a\n" * (size // 4)
    ),
    "escapes in JSON": lambda size: '["' + "\\u0061\\n" * (size // 8) + '","password=x"]',
}


SEARCHES = {
    "of named values alone": lambda text, low, work, request: named_values(
        RULES, text, low, work, request=request
    ),
    "of everything": lambda text, low, work, request: running(
        RULES, text, look_at(RULES, str(text)), work, request=request
    ),
}


class Counted(str):
    """A text that counts the characters of the parts that are taken of it."""

    __slots__ = ("taken",)

    def __init__(self, _):
        self.taken = 0

    def __getitem__(self, at):
        part = super().__getitem__(at)
        self.taken += len(part)
        return part


def known():
    found = Known()
    for at, value in enumerate(
        ["QUJDREVGabcd1", "password=x&password=x", "aaaaaaaaaaaaab", "secret-value-1", "%41%41%41%4"]
    ):
        found.learn(f"K{at}", value, sure=True)
    return found


def seconds(work, text, times):
    """Return the time of some calls, of this thread alone: others have nothing to do with the work."""
    began = thread_time()
    for _ in range(times):
        work(text)
    return thread_time() - began


def growth(work, small, large):
    """Return how much more work the larger text is than the smaller one: the least of some tries.

    A try looks at the smaller one so often that both take as long if the work is linear: then what disturbs the
    clock disturbs both alike, and one try in two is right. Work that is not linear is wrong in each.
    """
    work(small)
    found = []
    for _ in range(TRIES):
        found.append(seconds(work, large, 1) / seconds(work, small, TIMES) * TIMES)
        if found[-1] <= MOST:
            break
    return min(found)


def growth_of(work, kind):
    return growth(work, TEXTS[kind](SMALL), TEXTS[kind](SMALL * TIMES))


def stored(text):
    return redact(RULES, known(), "http", {"body": {"text": text}}, request=False, name=lambda _: "field-1")


@pytest.mark.slow
@pytest.mark.parametrize("kind", TEXTS)
def test_sixteen_times_the_text_is_sixteen_times_the_work(kind):
    assert growth_of(stored, kind) <= MOST


@pytest.mark.parametrize("request_", [False, True])
@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("kind", [kind for kind in TEXTS if " " in kind and kind[0] != "'"])
def test_sixteen_times_the_characters_are_taken(kind, search, request_):
    taken = []
    for size in SMALL, SMALL * TIMES:
        text, work = Counted(TEXTS[kind](size)), Work()
        work.begin(text)
        with contextlib.suppress(TooManyPlacesError):
            deque(SEARCHES[search](text, folded(str(text)), work, request_), maxlen=0)
        taken.append(text.taken)
    assert taken[1] <= MOST * max(taken[0], SMALL * 2)  # each once, and those before and behind a name


@pytest.mark.parametrize(
    "work", [lambda text: say_text(RULES, known(), text), lambda text: refused(RULES, known(), "a", text)]
)
@pytest.mark.parametrize(
    "kind", ["a long name in a URL", "'sk-'", "'token='", "'AKIAIOSFODNN7EXAMPLE '", "deep lists"]
)
def test_what_is_said_and_what_is_refused_are_looked_at_as_fast(kind, work):
    assert growth_of(work, kind) <= MOST


@pytest.mark.parametrize("unit", ["pw a ", "&a1key=x"])
def test_a_text_with_too_many_names_to_judge_is_sealed_whole(unit):
    few, many = stored(unit * FEW).document, stored(unit * TOO_MANY).document
    assert few["body"] == {"text": unit * FEW}
    assert many["body"] == {"text": {"$secret": "field-1"}}


@pytest.mark.parametrize("request_", [False, True])
@pytest.mark.parametrize("unit", ["pw a ", "&a1key=x", "token: a12b\n"])
def test_the_texts_of_a_document_share_its_work(unit, request_, monkeypatch):
    spent = []

    class Counted(Work):
        def spend(self, units):
            spent.append(units)
            super().spend(units)

    monkeypatch.setattr("machine.secrets.redact.Work", Counted)
    text = unit * ((1 << 18) // len(unit))
    many = 16
    found = redact(RULES, Known(), "http", {"body": {"json": [text] * many}}, request=request_, name=str)
    for_all = MOST_WORK + many * len(text) // APART
    assert sum(spent) <= for_all + many * 100
    assert found.document["body"]["json"][-1] != text


LINES = {
    "with names that say nothing": '{"key":"item-17","token_count":%d,"session":"monday","author":"ann"}\n',
    "with hashes": '{"key":"cpu","session":"%032x","author":"ann"}\n',
    "with names at the ends of values": '{"logger":"auth.session","session":"s-1","key":"cart:%d"}\n',
    "with numbers": '{"session":%d,"author":"ann","token":null}\n',
}


@pytest.mark.parametrize("kind", LINES)
def test_a_long_innocent_text_is_left_as_it_is(kind):
    text = "".join(LINES[kind] % at for at in range(MOST_CANDIDATES * 2))
    assert stored(text).document == {"body": {"text": text}}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in LINES if kind != "with numbers"])  # denser than the limit
def test_so_is_one_of_eight_million_characters(kind):
    text = "".join(LINES[kind] % at for at in range((8 << 20) // len(LINES[kind])))
    assert stored(text).document == {"body": {"text": text}}


def test_a_token_is_found_after_values_of_the_same_name_that_are_none():
    text = '{"session":1}\n' * 100 + '{"session":"' + "aB3dE5fG7h" * 4 + '"}\n'
    assert stored(text).document["body"]["text"].count("__secret_") == 1


@pytest.mark.parametrize(
    "rows",
    [
        "copy t (a, password) from stdin;\nalice\taB3dE5fG7h\n",
        "user,password\nbob,aB3dE5fG7h\n",
        "alice\tpassword\taB3dE5fG7h\n",
    ],
)
def test_a_row_is_found_after_lines_that_are_none(rows):
    assert "__secret_" in str(stored(f"a: x\n{rows}").document)


@pytest.mark.parametrize("at", [0, 2041, 2048, 2049, 70_000, 99_990])
@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_found_wherever_in_a_long_text_it_begins(secret, at):
    text = "lorem ipsum " * 10_000
    text = f"{text[:at]} {secret}\n{text[at:]}"
    assert "__secret_" in str(stored(text).document)


def test_what_is_known_costs_nothing_where_it_is_not():
    few, many = Known(), Known()
    for at in range(3200):
        (few if at % TIMES else many).learn(f"K{at}", f"value-number-{at:04}-x", sure=True)
    few, many = many, few
    document = {"body": {"text": "the quick brown fox " * 400}}

    def look(known):
        redact(RULES, known, "http", document, request=False, name=str)

    look(few)
    look(many)  # what grows with what is known would take 16 times as long
    assert any(seconds(look, many, 4) <= 3 * seconds(look, few, 4) for _ in range(TRIES))
