"""What canonical bytes cost, beside `rfc8785`, the reference, in one process and taken in turns."""

from __future__ import annotations

import timeit

import rfc8785
from stage import main

from machine.canonical import encode

TURNS = 40


def order(number, *, floats):
    return {
        "id": f"ord-{number:05d}",
        "customer": {"name": f"Customer {number}", "country": "DE", "vip": number % 3 == 0},
        "lines": [
            {
                "sku": f"SKU-{number * 7 + line}",
                "qty": line + 1,
                "price": number * 1.25 + line if floats else number * 125 + line,
            }
            for line in range(2)
        ],
        "paid": number % 2 == 0,
        "note": None,
    }


EVENT = {
    "run_id": "01J9ZK3W8Q",
    "seq": 42,
    "type": "state_completed",
    "state": "fetch_rates",
    "ok": True,
    "next": None,
}
PAYLOADS = {
    "200 B": {
        **EVENT,
        "attempt": {"n": 1, "by": "worker-3"},
        "tags": ["fx", "eu", "daily"],
        "count": 1250,
        "note": "3 rates written",
    },
    "200 B floats": {
        **EVENT,
        "attempt": {"n": 1, "took": 0.25},
        "rates": [1.0, 0.8931, 149.5],
        "score": 0.05,
        "note": "3 rates",
    },
    "200 B flat": {f"k{number}": number * 97 if number % 2 else f"value {number}" for number in range(14)},
    "5 KB": {"page": 1, "orders": [order(number, floats=False) for number in range(28)], "total": 28},
    "5 KB floats": {"page": 1, "orders": [order(number, floats=True) for number in range(28)], "total": 28.0},
    "embedding": {"vector": [((number * 7919) % 10007) / 10007 - 0.5 for number in range(1536)]},
    "text": {"text": "Straße — 価格は、100円。🎉 ok" * 60, "k": [1, 2]},
}


def encoded():
    """Return the least microseconds of each function for each payload."""
    told = {}
    for name, payload in PAYLOADS.items():
        assert encode(payload) == rfc8785.dumps(payload)
        number = max(3, int(0.0005 / timeit.timeit(lambda payload=payload: encode(payload), number=1)))
        for _ in range(TURNS):
            for what, function, times in (
                ("rfc8785", rfc8785.dumps, number // 10 or 1),
                ("encode", encode, number),
            ):
                took = timeit.timeit(lambda f=function, p=payload: f(p), number=times) / times * 1e6
                told[f"{name}, {what}"] = min(took, told.get(f"{name}, {what}", took))
    return told


if __name__ == "__main__":
    main(encoded)
