"""Logins in a long text are the same as in a search of the whole text, wherever they stand."""

from __future__ import annotations

import json
from pathlib import Path

from machine.secrets import unnamed_passwords as module
from machine.secrets.pattern_search import PIECE, SHORT
from machine.secrets.redacted_text import Work
from machine.secrets.unnamed_passwords import SIGNS_OF_LOGINS, logins

PLANTED = Path(__file__).resolve().parents[2] / "fixtures" / "secrets" / "planted.jsonl"
KINDS = range(len(SIGNS_OF_LOGINS))


def lines():
    """Return the lines of all planted texts, and one login of each end of a pattern."""
    texts = [json.dumps(json.loads(line)) for line in PLANTED.read_text(encoding="utf-8").splitlines()]
    found = [json.loads(text) for text in texts]
    said = [value for each in found for value in each.values() if isinstance(value, str)]
    return [line for text in said for line in text.splitlines()] + [
        "db.example.org:5432:app:app:Xk29fQ77aaZb",
        "app:wonderland AB:0123456789abcdef0123456789abcdef",
        "Password for the new account:\nXk29fQ77aaZbQp44\n",
        "app:Xk29fQ77aaZb@tcp(127.0.0.1)",
        "app:Xk29fQ77aaZb | sudo chpasswd",
    ]


def plenty():
    work = Work()
    work.begin(" " * (64 << 20))
    return work


def test_parts_of_a_long_text_hold_what_the_whole_holds(monkeypatch):
    logged = [line for line in lines() if list(logins(line, KINDS, Work()))]
    assert len(logged) > 20
    text = ""
    for line in logged:  # each lies across the end of a piece
        room = (-len(text) - len(line) // 2) % PIECE
        text += " " * (room - 1) + "\n" + line + "\n"
    text += " " * SHORT
    parts = list(logins(text, KINDS, plenty()))
    monkeypatch.setattr(module, "SHORT", len(text))
    assert parts == list(logins(text, KINDS, plenty()))
    assert len(parts) >= len(logged)
