"""A terminal is sent what it can show: no style with `NO_COLOR`, and no escape sequence at all when it is dumb."""

from __future__ import annotations

import os
import pty
import re
import sys
import threading

import pytest

from machine.cli import main
from machine.cli.app import COMMANDS

STYLE = re.compile(rb"\x1b\[[0-9;]*m")
LINES = {
    "run": ("run", "prices.py"),
    "resume": ("resume", "@last"),
    "apply": ("apply", "@last"),
    "retry": ("retry", "@last"),
    "pause": ("pause", "@last"),
    "continue": ("continue", "@last"),
    "policy check": ("policy", "check", "nothing.toml", "@last"),
    "fork": ("fork", "@last", "--at", "2"),
    "cancel": ("cancel", "@last"),
    "resolve": ("resolve", "@last", "key", "--happened"),
    "approve": ("approve", "@last"),
    "reject": ("reject", "@last"),
    "signal": ("signal", "@last", "paid"),
    "waiting": ("waiting",),
    "stream": ("stream", "@last", "nothing"),
    "work": ("work", "nowhere.py"),
    "schedule add": ("schedule", "add", "nightly", "nowhere.py", "nonsense"),
    "schedule list": ("schedule", "list"),
    "schedule pause": ("schedule", "pause", "nothing"),
    "schedule resume": ("schedule", "resume", "nothing"),
    "schedule remove": ("schedule", "remove", "nothing"),
    "schedule run": ("schedule", "run", "nowhere.py"),
    "replay": ("replay", "@last"),
    "compare": ("compare", "@last"),
    "verify": ("verify", "--all"),
    "convert": ("convert", "nothing.run"),
    "golden reseal": ("golden", "reseal", "nothing.run"),
    "diff": ("diff", "@last", "@last"),
    "blame": ("blame", "@last", "nothing"),
    "doctor": ("doctor", "nowhere.py"),
    "runs": ("runs",),
    "show": ("show", "@last"),
    "events": ("events", "@last"),
    "facts": ("facts", "@last"),
    "context": ("context", "@last"),
    "artifacts": ("artifacts", "@last"),
    "artifact": ("artifact", "abc"),
    "export": ("export", "@last", "--output", "left.run"),
    "import": ("import", "left.run"),
    "scan": ("scan", "@last"),
    "secrets rotate-key": ("secrets", "rotate-key"),
    "secrets forget": ("secrets", "forget", "@last"),
    "plan": ("plan", "prices.py"),
    "torture": ("torture", "nowhere.py"),
}
MORE = [
    ("--help",),
    ("run", "--help"),
    ("nonsense",),
    ("replay", "--all"),
    ("replay", "@last", "--schedules", "2"),
]


def test_every_command_is_asked():
    assert set(LINES) == set(COMMANDS)


@pytest.fixture
def on_terminal(monkeypatch):
    """Run commands in this process, on a terminal of their own, and return what it was sent."""

    def run_them(*lines):
        ours, theirs = pty.openpty()
        sent = []

        def read():
            while True:
                try:
                    data = os.read(ours, 65536)
                except OSError:
                    return
                if not data:
                    return
                sent.append(data)

        reader = threading.Thread(target=read)
        reader.start()
        with open(theirs, "w", encoding="utf-8") as stream, monkeypatch.context() as patched:  # noqa: PTH123
            patched.setattr(sys, "stdout", stream)
            patched.setattr(sys, "stderr", stream)
            for line in lines:
                stream.write(f"\n$ machine {' '.join(line)}\n")
                stream.flush()
                main(list(line))
            stream.flush()
        reader.join(10)
        os.close(ours)
        return b"".join(sent)

    return run_them


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "allowed"),
    [
        ({"NO_COLOR": "1", "TERM": "xterm-256color"}, "motion"),
        ({"NO_COLOR": "1", "TERM": "dumb"}, "nothing"),
        ({"TERM": "dumb"}, "nothing"),
        ({"TERM": "xterm-256color"}, "styles"),
    ],
    ids=["no colour", "neither", "dumb", "both"],
)
def test_a_terminal_is_sent_what_it_can_show(on_terminal, plan_file, monkeypatch, variables, allowed):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    sent = on_terminal(*LINES.values(), *MORE)
    for part in sent.split(b"\n$ machine ")[1:]:
        assert (b"\x1b" not in part) or allowed != "nothing", part
        assert not STYLE.search(part) or allowed == "styles", part
    assert bool(STYLE.search(sent)) == (allowed == "styles")
