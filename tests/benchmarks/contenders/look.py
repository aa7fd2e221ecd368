"""What the look for secrets costs: in hostile text, and in calls that hold none."""

from __future__ import annotations

import time
import timeit

from stage import main

from machine import SecretPolicy
from machine.canonical import encode
from machine.secrets.credential_formats import FORMATS
from machine.secrets.known_values import Known
from machine.secrets.redact import redact
from machine.secrets.rules import rules_of

SIZE = 16 << 20
UNITS = {
    "a long word": "a",
    "prefixes": "sk-",
    "names": "token= ",
    "members": '{"password":"',
    "quotes": '"\\',
    "base64": "QUJD",
    "parameters": "&a=a",
    "keys": "</key>",
    "tokens": "bearer a1",
    "commands": "curl -su a: ",
    "settings": "aws set password ",
    "options": "--token ",
    "a table": "user,password\n",
    "rows": "passwd|\n",
    "users": " --user",
    "programs": " set ",
    "formats": " ".join(f"{needle}aaaa" for form in FORMATS for needle in form.needles),
}
TEXTS = {
    **{name: "http://" + unit * (SIZE // len(unit)) + " see me@x" for name, unit in UNITS.items()},
    "a string that nothing ends": "password='" + "a" * SIZE,
    "a string of signs": "password='" + "%" * SIZE,
    "one name at the end": "a" * SIZE + " key=x",
    "words under a password": "".join(f"password={'alpha-bravo-' * 300}{at}\n" for at in range(SIZE // 3600)),
    "parameters in a parameter": "http://" + "?token=" * (SIZE // 7),
    "different short tokens": "".join(f"token: a{at}b\n" for at in range(SIZE // 14)),
    "what may be logins": "a:" * (SIZE // 2) + " chpasswd @tcp( AUTH LOGIN a:\n\n login(",
    "different parameters": "?" + "".join(f"a{at:07}key=x&" for at in range(SIZE // 14)),
}
REQUEST = {
    "method": "GET",
    "url": "https://shop.example.com/items/17",
    "timeout": 30,
    "follow_redirects": True,
    "headers": {"accept": "application/json"},
}
ANSWER = {
    "status": 200,
    "url": "https://shop.example.com/items/17",
    "headers": [["content-type", "application/json"], ["date", "Mon, 01 Jan 2024 10:00:00 GMT"]],
    "body": {"text": '{"id":17,"name":"Widget","price":1.25}'},
}
RULES = rules_of(SecretPolicy())


def hostile():
    """Look through text that is made to be slow to read; the seconds of the slowest."""
    told = {}
    for name, text in TEXTS.items():
        start = time.process_time()
        redact(RULES, Known(), "http", {"body": {"text": text}}, request=False, name=str)
        told[name] = time.process_time() - start
    return {**told, "slowest": max(told.values())}


def nothing(calls):
    """Look at the request and the answer of a call that holds no secret; microseconds for both."""
    request, answer = encode(REQUEST), encode(ANSWER)
    assert not RULES.may_hold(request)
    assert not RULES.may_hold(answer)
    took = min(
        timeit.repeat(lambda: (RULES.may_hold(request), RULES.may_hold(answer)), number=calls, repeat=5)
    )
    return {"us": took / calls * 1e6}


if __name__ == "__main__":
    main(hostile, nothing)
