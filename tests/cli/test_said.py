"""What commands print, kept as transcripts in `said/`, so that a review sees each sentence that changes.

`MACHINE_WRITE_SAID=1 pytest tests/cli/test_said.py` writes them anew.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "said"

BROKEN = """
from machine import Plan, StateOutcome

plan = Plan("broken", version="1")


@plan.state("step.fails")
def fails(ctx):
    raise ValueError(f"no price for {ctx['item']}")
"""

COMMANDS = {
    "a run": [
        "run prices.py:plan",
        "run prices.py:plan --input '{\"add\": 1}'",
        "runs",
        "show @last",
        "events @last",
        "facts @last",
        "context @last",
        "context @last --at 3",
        "context @last --at 99",
        "verify @last",
        "replay @last",
        "resume @last",
        "resume @last prices.py:plan",
        "cancel @last",
        "blame @last /total",
        "blame @last /nowhere",
        "plan prices.py:plan",
        "compare @last",
        "replay @last --target changed.py:plan",
        "compare @last --target changed.py:plan",
    ],
    "a run that fails": [
        "run broken.py:plan",
        'run broken.py:plan --input \'{"item": "tea"}\'',
        "show @last",
        "resume @last",
        "fork @last --at 2",
        "resolve @last --not-done",
    ],
    "nothing there": [
        "runs",
        "show @last",
        "replay 00000000-0000-7000-8000-000000000000",
        "show nonsense",
        "verify missing.run",
        "import missing.run",
        "run missing.py:plan",
        "run prices.py:nowhere",
        "run prices.py:plan --input nonsense",
        "run prices.py:plan --skip-tag unknown",
        "run prices.py:plan --store nonsense",
        "nonsense",
        "rpelay @last",
        "secrets forgte",
        "export @last",
        "run",
    ],
    "bundles": [
        "run prices.py:plan",
        "export @last --output one.run",
        "export @last --output one.run",
        "import one.run",
        "verify one.run",
        "replay one.run --target prices.py:plan",
        "scan one.run",
        "import garbage.run",
        "verify garbage.run",
        "scan leaky.txt",
        "secrets forget @last",
    ],
    "dry runs and forks": [
        "run prices.py:plan --dry-run",
        "run prices.py:plan",
        "fork @last --at 99",
        "fork @last --at 6",
        "fork @last --at 3 --set-fact nonsense",
        "diff @last @last",
        "doctor prices.py:plan",
    ],
}

CHANGES = [
    (r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "<run>"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}", "<run>"),
    (r"Python \d\S+, \S+ \S+( git \S+)?", "Python <version>, <platform>"),
    (r"\b[0-9a-f]{64}\b", "<hash>"),
    (r"\b[0-9a-f]{12,63}\b…?", "<hash>"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?Z?", "<time>"),
    (r"\d+(\.\d+)? ?(ms|s|us)\b", "<seconds>"),
    (r"\bpid \d+", "pid <pid>"),
    (r"\d+(\.\d+)? (bytes|KiB|MiB)", "<size>"),
    (r" *<seconds> *(?=\S)", "  <seconds>  "),
    (r"TIME +", "TIME  "),
    (r"^bytes +\d+", "bytes  <n>"),
    (r" +$", ""),
]


def plain(text: str, here: Path) -> str:
    """Return a text without what differs from run to run."""
    text = text.replace(str(here), "<here>")
    for pattern, word in CHANGES:
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    return text


@pytest.mark.parametrize("topic", COMMANDS)
def test_commands_say_what_they_said(topic, machine, here, plan_file, write, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("MACHINE_TEST_HOME", "/home/ada")
    write("changed.py", (here / "prices.py").read_text().replace("* 2", "* 3"))
    write("broken.py", BROKEN)
    write("garbage.run", "garbage\n")
    write("leaky.txt", "Authorization: Bearer ghp_16C7e42F292c6912E7710c838347Ae178B4a\n")
    said = []
    for command in COMMANDS[topic]:
        answer = machine(*shlex.split(command))
        said.append(f"$ machine {command}\n{answer.out}{answer.err}[exit {answer.code}]\n")
    now = plain("\n".join(said), here)
    path = FOLDER / f"{topic.replace(' ', '-')}.txt"
    if os.environ.get("MACHINE_WRITE_SAID"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(now)
    before = path.read_text()
    changed = difflib.unified_diff(before.splitlines(), now.splitlines(), "before", "now", lineterm="")
    assert now == before, "\n".join(changed)
