"""docs/golden-runs.md: its test is run, its commands are typed one after the other, and they say what it says."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "golden-runs.md"
MARK = "-- end of command --"

SHELL = r"""
set -m
python() {{ {python} "$@"; }}
pytest() {{ {python} -m pytest -p machine.testing.plugin {without} "$@"; }}
"""
WITHOUT = "-p no:cacheprovider -p no:hypothesispytest -p no:benchmark -p no:xdist"
WAIT = """
for try in $(seq 200); do
    if (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null; then break; fi
    sleep 0.05
done
"""


def blocks(language):
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"))


def typed():
    """Return every command of the guide with the lines that are shown below it."""
    found = []
    for line in "".join(blocks("console")).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.strip():
            found[-1][1].append(line)
    return found


def alike(line):
    """Return a line without what is another at every time."""
    return re.sub(r"\d+[smhdw] ago", "# ago", re.sub(r"\d+(?=[.\"])", "#", line))


def as_run(command, port):
    """Return a command for this machine: with a free port, and waiting for what it starts and stops."""
    command = command.replace("8765", str(port)).replace("/path/to/clone", str(ROOT))
    if command.endswith("&"):
        return f"{command.removesuffix('&')} >/dev/null 2>&1 &\n{WAIT.format(port=port)}"
    return f"{command}; wait 2>/dev/null" if command.startswith("kill") else command


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.slow
def test_the_guide_does_what_it_says(tmp_path, port):
    (code,) = blocks("python")
    (tmp_path / "test_prices.py").write_text(code.replace("8765", str(port)))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    script = SHELL.format(python=sys.executable, without=WITHOUT) + "".join(
        f"{as_run(command, port)}\necho '{MARK}'\n" for command, _ in typed()
    )
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**kept, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    answers = done.stdout.split(f"{MARK}\n")
    assert len(answers) == len(typed()) + 1, done.stderr
    for (command, shown), answer in zip(typed(), answers, strict=False):
        said = [alike(line) for line in answer.splitlines()]
        at = 0
        for line in shown:
            assert alike(line) in said[at:], f"$ {command}\n{line}\nis not in:\n{answer}\n{done.stderr}"
            at = said.index(alike(line), at) + 1


def test_every_option_and_every_part_of_the_marker_is_in_the_guide(pytester):
    from machine.testing.golden_options import Asked

    text = GUIDE.read_text(encoding="utf-8")
    said = set(re.findall(r"^\| `(--golden[a-z-]*)", text, re.MULTILINE))
    listed = pytester.runpytest_inprocess("-p", "machine.testing.plugin", "--help").stdout.str()
    assert said == set(re.findall(r"--golden[a-z-]*", listed))
    marks = set(re.findall(r"^\| `(\w+)=[^|]*\|", text, re.MULTILINE))
    assert marks == set(Asked.__dataclass_fields__)
