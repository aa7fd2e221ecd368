"""docs/goldens-in-code-review.md: its diffs are what git shows of goldens of its plan.

`python tests/docs/test_goldens_in_code_review.py` prints them.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

import anyio
import pytest

from machine import BaseTransport
from machine.config import Target
from machine.recordings.readable_writer import recorded_at
from machine.target import load
from machine.testing.golden_check import Wanted, opened
from machine.testing.golden_live import Facts, Fresh, record
from machine.testing.golden_options import How

PAGE = Path(__file__).parents[2] / "docs" / "goldens-in-code-review.md"
FIRST, SECOND = 1_769_860_800_000, 1_770_033_600_000
"""Two times of a recording, so that the diff is the same whenever it is made."""


class Stock(BaseTransport):
    """A shop with some pieces on each shelf."""

    def __init__(self, pieces):
        self.pieces = pieces

    async def perform(self, namespace, request):
        shelf = request["url"].rpartition("/")[2]
        text = f'{{"shelf": "{shelf}", "pieces": {self.pieces[shelf]}}}'
        headers = [["content-type", "application/json"]]
        return {"status": 200, "url": request["url"], "headers": headers, "body": {"text": text}}


def git(folder, *words):
    options = ["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "core.abbrev=7"]
    return subprocess.run(
        ["git", *options, *words], cwd=folder, check=True, capture_output=True, text=True, timeout=30
    ).stdout


def recorded(folder, source, pieces, millis, before=None):
    """Record the golden of a plan, from its own answers if there is one before."""
    # another name for other code, as a module is loaded once
    name = f"stock_{abs(hash((source, folder)))}.py"
    (folder / name).write_text(source)
    plan = load(str(folder / name)).plan
    wanted = Wanted.of(plan, {"transports": {"http": Stock(pieces)}, "max_calls": {"http": 20}})
    target, golden = Target("../test_stock.py::test_stock", ""), folder / "test_stock.run"

    async def made():
        if before is None:
            return await record(wanted, ["completed"], target, "")
        with opened(before) as earlier:
            return await record(wanted, ["completed"], target, "", Facts.of(earlier, How.FACTS))

    fresh = anyio.run(made)
    assert isinstance(fresh, Fresh), fresh
    fresh.write(golden)
    if before is None:
        golden.write_bytes(recorded_at(golden.read_bytes(), millis))


def diffs(folder):
    """Return the two diffs of the page, by name."""
    (source,) = re.findall(r"(?ms)^```python\n(.*?)^```$", PAGE.read_text())
    pieces = {f"shelf-{number:02}": 12 - number % 5 for number in range(1, 21)}
    found = {}
    git(folder, "init", "-q")
    recorded(folder, source, pieces, FIRST)
    git(folder, "add", "test_stock.run")
    git(folder, "commit", "-qm", "Record the stock")
    recorded(folder, source, {**pieces, "shelf-07": 9}, SECOND)
    found["one number"] = git(folder, "diff", "-U1", "--", "test_stock.run")
    git(folder, "checkout", "-q", "test_stock.run")
    assert source.count("< 5") == 1
    golden = folder / "test_stock.run"
    recorded(folder, source.replace("< 5", "< 9"), {}, FIRST, before=golden)
    found["changed code"] = git(folder, "diff", "-U1", "--", "test_stock.run")
    return found


def on_the_page():
    """Return the diffs of the page, by name."""
    marked = (
        r"(?ms)^<!-- made by tests/docs/test_goldens_in_code_review.py: ([a-z ]+) -->\n\n```diff\n(.*?)^```$"
    )
    return dict(re.findall(marked, PAGE.read_text()))


def alike(diff):
    """Return a diff without the hashes, as those of code depend on the version of Python."""
    return re.sub(r"\b[0-9a-f]{7,64}\b", "#", diff)


def changed(diff):
    return [line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    return diffs(tmp_path_factory.mktemp("review"))


@pytest.mark.parametrize("name", ["one number", "changed code"])
def test_the_page_shows_what_git_shows(shown, name):
    assert alike(on_the_page()[name]) == alike(shown[name])


def test_one_number_of_twenty_calls_changes_at_most_ten_lines(shown):
    assert 4 <= len(changed(shown["one number"])) <= 10


def test_accepted_code_changes_no_fact_and_not_the_time(shown):
    diff = shown["changed code"]
    assert "fact_recorded" not in "\n".join(changed(diff))
    assert len(set(re.findall(r'"recorded":"([^"]+)"', diff))) == 1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        for name, diff in diffs(Path(place)).items():
            print(f"{name}\n{diff}")
