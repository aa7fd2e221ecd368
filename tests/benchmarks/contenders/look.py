"""What the look for secrets costs: in hostile text, and in calls that hold none."""

from __future__ import annotations

import time
import timeit

from hostile_texts import texts
from stage import main

from machine import SecretPolicy
from machine.canonical import encode
from machine.secrets.known_values import Known
from machine.secrets.redact import redact
from machine.secrets.rules import rules_of

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
    """Look through each text as an answer and as a request; the seconds of the longer of the two."""
    told = {}
    for name, text in texts():
        told[name] = max(_seconds(text, request=request) for request in (False, True))
    return {**told, "slowest": max(told.values())}


def _seconds(text, *, request):
    start = time.process_time()
    redact(RULES, Known(), "http", {"body": {"text": text}}, request=request, name=str)
    return time.process_time() - start


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
