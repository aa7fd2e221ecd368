"""`machine artifacts`: what the handlers of a run have written."""

from __future__ import annotations

import pytest

from machine import canonical

WRITES = """
from machine import Plan

plan = Plan("writes", version="1")


@plan.state("write.all")
async def it(ctx, io, rec):
    await rec.artifact("report.txt", "two\\nlines \\u202e")
    await rec.artifact("data", {"a": 1}, kind="table")
    await rec.artifact("image", b"\\xff\\x00")
    await rec.artifact("large", (b"x" * 600_000 for _ in range(2)))
"""


@pytest.fixture
def written(machine, write):
    write("writes.py", WRITES)
    return machine("run", "writes.py", "--json").json["run_id"]


def test_they_are_listed(machine, written):
    said = machine("artifacts", written)
    assert (said.code, said.err) == (0, "")
    names = [line.split()[:4] for line in said.out.splitlines()]
    assert names == [
        ["NAME", "KIND", "BYTES", "STATE"],
        ["report.txt", "output", "13", "write.all"],
        ["data", "table", "7", "write.all"],
        ["image", "output", "2", "write.all"],
        ["large", "output", "1200000", "write.all"],
    ]
    found = machine("artifacts", "@last", "--json").json
    assert found["run_id"] == written
    assert found["artifacts"][1] == {
        "name": "data",
        "kind": "table",
        "artifact_id": canonical.artifact_id(b'{"a":1}'),
        "size": 7,
        "state_id": "writes.write.all",
        "attempt": 0,
    }


def test_one_is_printed(machine, written):
    assert machine("artifacts", written, "data").out == '{"a":1}'
    assert machine("artifacts", written, "data", "--json").json["value"] == {"a": 1}
    assert machine("artifacts", written, "image", "--json").json["base64"] == "/wA="
    assert machine("artifacts", written, "large").out == "x" * 1_200_000
    large = machine("artifacts", written, "--json").json["artifacts"][3]["artifact_id"]
    assert machine("artifact", large).out == "x" * 1_200_000


def test_one_is_written_into_a_file(machine, written, tmp_path):
    path = tmp_path / "large"
    said = machine("artifacts", written, "large", "-o", str(path))
    assert (said.code, said.out) == (0, "")
    assert path.read_bytes() == b"x" * 1_200_000
    again = machine("artifacts", written, "image", "-o", str(path))
    assert again.code == 1
    assert "file_failed" in again.err
    assert "--force replaces it" in again.err
    assert path.stat().st_size == 1_200_000
    forced = machine("artifacts", written, "image", "-o", str(path), "--force", "--json")
    assert forced.json == {"run_id": written, "name": "image", "file": str(path), "bytes": 2}
    assert path.read_bytes() == b"\xff\x00"


def test_those_of_a_bundle_are_read_too(machine, written, tmp_path):
    bundle = str(tmp_path / "run.run")
    assert machine("export", written, "-o", bundle).code == 0
    assert machine("artifacts", bundle, "data").out == '{"a":1}'


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("dato",), "artifact_not_found"),
        (("-o", "x"), "usage"),
        (("data", "-o", "/nowhere/x"), "file_failed"),
        (("data", "-o", "/"), "file_failed"),
    ],
)
def test_a_mistake_gives_one_sentence(machine, written, arguments, code):
    said = machine("artifacts", written, *arguments)
    assert said.code != 0
    assert f"error[{code}]" in said.err
    assert "Traceback" not in said.err


def test_a_run_without_any_says_so(machine, write):
    write("none.py", 'from machine import Plan\nplan = Plan("none")\n@plan.state("a.b")\ndef b(ctx): ...\n')
    machine("run", "none.py")
    said = machine("artifacts", "@last")
    assert (said.code, said.out) == (0, "")
    assert "has written no artifact" in said.err
