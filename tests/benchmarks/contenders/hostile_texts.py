"""Texts that are slow to search for secrets: repetitive ones, numbered ones, and large ordinary ones."""

from __future__ import annotations

import base64
import json
import os
import random
from pathlib import Path

from machine.secrets.credential_formats import FORMATS

SIZE = 16 << 20

REPEATED = (
    *("a", "sk-", "token= ", '{"password":"', '"\\', "QUJD", "&a=a", "</key>", "bearer a1", "curl -su a: "),
    *("aws set password ", "--token ", "user,password\n", "passwd|\n", " --user", " set ", "a:", "=", "@"),
    *("AUTH a ", "LOGIN a b\n", "pw a,pw\n", 'password a="b" ', '{"session":1}', "password:\n", "key:\n  "),
    *("token a a:\n  ", "token a a a:\n", 'key a="" value', "key a ", "key, ", "secret_key ", "api key "),
    *("pass to a ", "password for a ", "set password for a = b;\n", "the token of the user is gone. "),
    *(
        "name: key, value: x\n",
        "key: value\n",
        "'key': 'value', ",
        "tokens ",
        "cookies ",
        "otp a ",
        "token -> ",
    ),
    *("Bearer ", "Authorization: Basic ", "Authorization: Bearer a\n", "cookie: a=b; ", "Set-Cookie: a=b\n"),
    *(
        "<key>x</key>",
        "<password>x</password>",
        "<td>key</td>",
        "|password|",
        "a|key|b\n",
        '\\"key\\":\\"x\\",',
    ),
    *("http://a:b@c ", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----\n", "eyJhIjoxfQ== ", "eyJ", "WIFI:S:"),
    *("machine a.example.com login ann password x\n", "login a password ", "mysql -pa ", "mysql -u root -p "),
    *("into a(password)values('b'),", "identified by a ", "a:$6$b$", "%22key%22%3a%22x", "sig=a&"),
    " ".join(f"{needle}aaaa" for form in FORMATS for needle in form.needles),
)
NUMBERED = (
    *("token: a%db\n", "token=a%db\n", "token_%d=abcdef\n", '"token":"a%d",', "password: monday-%d\n"),
    *(
        "password=%d&",
        "key=%d\n",
        "key: item-%d\n",
        '{"key":"item-%d"}\n',
        'key a="%d" value',
        "key word-%d ",
    ),
    *("<key>item-%d</key>\n", "session: user-%d\n", "auth: user%d\n", "password is p%d. ", "pass%d=x "),
    *("--token t%d ", "Bearer t%d ", "?token=t%d ", "&a%dkey=x", "http://u%d:p@h ", "AUTH user%d\n"),
    *("Cookie: a%d=b\n", "Set-Cookie: s=%d; Path=/\n", "mysql -pm%d db\n", "curl -u u%d:p h\n"),
    *("a%d,password\n", "user,%d,key\n", "machine h login u%d password monday\n", "h:5432:db:u:p%d\n"),
    *("sha256:%d key ", "aws set key v%d\n", "eyJ%dabc.abc.abc ", "sk-%d ", "AKIA%d "),
)
LARGE = {
    "words under a password": lambda: "".join(f"password={'alpha-bravo-' * 300}{at}\n" for at in _to(3600)),
    "a string that nothing ends": lambda: "password='" + "a" * SIZE,
    "a string of signs": lambda: "password='" + "%" * SIZE,
    "one name at the end": lambda: "a" * SIZE + " key=x",
    "parameters in a parameter": lambda: "http://" + "?token=" * (SIZE // 7),
    "manifests of Kubernetes": lambda: "".join(
        f"---\nkind: Secret\nmetadata:\n  name: app-{at}\ndata:\n  password: bW9uZGF5\n" for at in _to(72)
    ),
    "parts of a form": lambda: (
        "".join(f'--b\r\nContent-Disposition: form-data; name="f{at}"\r\n\r\n{at}\r\n' for at in _to(66))
        + "--b--\r\n"
    ),
    "JSON in JSON": lambda: json.dumps(
        [json.dumps({"in": json.dumps({"key": f"item-{at}", "session": "monday"})}) for at in _to(90)]
    ),
    "base64": lambda: base64.b64encode(random.Random(1).randbytes(SIZE * 3 // 4)).decode(),
    "Python source": lambda: _source()[:SIZE],
    "lines of JSON": lambda: "".join(
        f'{{"ts":"2026-03-01T10:00:{at % 60:02}Z","logger":"auth.session",'
        f'"session":"s-{at % 5000}","key":"cart:{at}"}}\n'
        for at in _to(95)
    ),
    "lines of a log": lambda: "".join(
        f"2026-03-01T10:00:{at % 60:02}Z INFO api [req-{at:08x}] GET /v1/orders/{at}?page={at % 90} 200 "
        f"{at % 900}ms session={at % 300} token_count={at % 4000} key=orders:{at}\n"
        for at in _to(125)
    ),
    "an access log": lambda: "".join(
        f'10.0.0.{at % 250} - ann [12/Mar/2026:10:00:{at % 60:02} +0000] "GET /app-{at:06x}.js?v={at} HTTP/1.1" '
        f'200 {at} "https://shop.example.com/?q=1" "Mozilla/5.0"\n'
        for at in _to(140)
    ),
    "a table": lambda: (
        "id,name,session,key\n" + "".join(f"{at},Ann {at},monday,item-{at}\n" for at in _to(36))
    ),
    "settings": lambda: "".join(
        f"export APP_SETTING_{at}=value-{at}\nDB_PASSWORD_{at}=monday\n" for at in _to(60)
    ),
    "a page": lambda: "".join(
        f'<label for="p{at}">Password</label><input type="password" name="password" id="p{at}">\n'
        for at in _to(76)
    ),
}
"""Each name with a function that makes the text."""


def _to(each: int) -> range:
    return range(SIZE // each)


def _source() -> str:
    """Return enough of the standard library."""
    files = sorted(Path(os.__file__).parent.glob("[a-z]*/*.py")) + sorted(
        Path(os.__file__).parent.glob("*.py")
    )
    text = ""
    for file in files:
        if "site-packages" not in file.parts and len(text) < SIZE:
            text += file.read_text(encoding="utf-8", errors="replace")
    return text * (SIZE // len(text) + 1)


def texts():
    """Yield the names of the texts and each text."""
    for unit in REPEATED:
        yield repr(unit[:40]).replace("|", "\\|"), "http://" + unit * (SIZE // len(unit)) + " see me@x"
    for line in NUMBERED:
        size = len(line % 1_000_000)
        yield f"numbered {line!r}", "".join(line % at for at in range(1_000_000, 1_000_000 + SIZE // size))
    for name, make in LARGE.items():
        yield name, make()
