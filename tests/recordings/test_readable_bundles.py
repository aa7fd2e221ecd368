"""Bundles of version 2: named blocks that people review, and the same run."""

from __future__ import annotations

import difflib
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import machine
from machine import Plan, canonical, replay
from machine.engine.fork_prefix import FACTS_FROM_ID
from machine.errors import BundleError, UsageError
from machine.kernel.linearize import without_suspensions
from machine.recordings.bundle import convert_bundle
from machine.recordings.bundle_reader import is_readable, read_bundle
from machine.recordings.readable_json import lines_of, value_of
from machine.recordings.readable_writer import readable_lines

FIXTURES = Path(__file__).parents[2] / "fixtures"
BUNDLES = sorted(FIXTURES.glob("*/*.run"))


def written(path, recording):
    path.write_bytes(b"\n".join([*readable_lines(recording), b""]))
    return path


def refused(path):
    with pytest.raises(BundleError) as caught:
        read_bundle(path)
    return caught.value


@pytest.fixture(scope="module")
def readable(tmp_path_factory):
    """Return the lines of a bundle with errors, effects, answers, secrets and large payloads."""
    path = written(
        tmp_path_factory.mktemp("readable") / "rich.run", read_bundle(FIXTURES / "bundle-1/rich.run")
    )
    return path.read_bytes().split(b"\n")


# -- the same run --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_recording_is_read_again_with_the_same_digest(bundle, tmp_path):
    before = read_bundle(bundle)
    path = written(tmp_path / "again.run", before)
    after = read_bundle(path)
    assert (after.digest, after.run_id) == (before.digest, before.run_id)
    told = without_suspensions(before.entries)  # which a reader need not see
    assert [entry.body for entry in after.entries] == [entry.body for entry in told]
    kept = [each if each != before.provenance_id else after.provenance_id for each in before.artifacts]
    if FACTS_FROM_ID in before.entries[0].info:
        # a run that has ended needs the recording of its answers no more
        assert set(after.artifacts) < set(kept)
    else:
        assert list(after.artifacts) == kept
    assert written(tmp_path / "third.run", after).read_bytes() == path.read_bytes()


def test_a_bundle_is_converted_in_place_once(tmp_path):
    path = tmp_path / "rich.run"
    path.write_bytes((FIXTURES / "bundle-1/rich.run").read_bytes())
    digest = read_bundle(path).digest
    assert convert_bundle(path)
    assert is_readable(path)
    assert read_bundle(path).digest == digest
    again = path.read_bytes()
    assert not convert_bundle(path)
    assert path.read_bytes() == again


def test_no_id_time_or_number_of_an_event_is_in_it(readable):
    text = b"\n".join(readable).decode()
    before = read_bundle(FIXTURES / "bundle-1/rich.run")
    text, _, _ = text.partition('{"end"')
    waits = "".join(line for line in text.splitlines() if '"key": "@' in line)  # a wait has the key as it is
    assert not [each for each in before.artifacts if each in text and each not in waits]
    assert str(before.entries[3].ts_millis) not in text
    assert '"seq"' not in text


plan = Plan("small")


@plan.state("fetch.rows", side_effects="read_only_io")
async def rows(ctx, io):
    answer = json.loads(await io.env("ROWS"))
    ctx["rows"] = answer
    ctx["log"] = "".join(f"line {n} of {answer['items'][n]['price']}\n" for n in range(9))
    for name in answer["more"]:
        await io.env(name)


def rows_with(price, more=()):
    items = [{"id": n, "price": price if n == 7 else n} for n in range(20)]
    return json.dumps({"items": items, "more": list(more)})


@pytest.fixture
def bundle_of(tmp_path, monkeypatch):
    def made(answer, name):
        monkeypatch.setenv("ROWS", answer)
        with machine.open_store("memory://") as store:
            run_id = "01a1fc15-4b0d-74d2-b9a1-7b3941b27deb"
            result = machine.run(plan, store=store, run_id=run_id)
            assert result.status == "completed", result.error
            machine.export_run(run_id, tmp_path / name, store=store, readable=True)
        lines = (tmp_path / name).read_text().splitlines()
        return [line for line in lines if '"recorded"' not in line and not line.startswith('{"end"')]

    return made


def test_one_number_changes_its_lines_and_the_sums_of_its_blocks(bundle_of):
    one, other = bundle_of(rows_with(3), "one.run"), bundle_of(rows_with(4), "other.run")
    changed = [
        line for line in difflib.unified_diff(one, other, n=0) if line[:1] == "+" and line[:3] != "+++"
    ]
    code = [line for line in changed if "provenance" in line]
    assert 4 <= len(changed) - len(code) <= 8, changed


def test_a_call_that_is_added_adds_its_block(bundle_of):
    one, other = bundle_of(rows_with(3), "one.run"), bundle_of(rows_with(3, ["LANG"]), "other.run")
    names = [[line.split()[2:-1] for line in lines if line.startswith("-- ")] for lines in (one, other)]
    assert [each.count(["fact_recorded", "env"]) for each in names] == [1, 2]


def test_a_handler_replays_from_it(bundle_of, tmp_path):
    bundle_of(rows_with(3), "one.run")
    with machine.open_bundle(tmp_path / "one.run") as bundle:
        assert replay(bundle.run_id, plan=plan, store=bundle.store).identical


def test_a_readable_bundle_takes_no_secrets(tmp_path):
    from machine.secrets.bundle_key import BundleKey

    with machine.open_store("memory://") as store:
        result = machine.run(plan, store=store)
        with pytest.raises(UsageError, match="readable bundle has no secrets"):
            machine.export_run(
                result.run_id, store=store, readable=True, secrets=BundleKey(passphrase="a pass phrase")
            )


# -- what is refused -----------------------------------------------------------------------------------------


def test_every_line_that_is_changed_is_refused_by_its_number(readable, tmp_path):
    path = tmp_path / "changed.run"
    chosen = random.Random(7).sample(range(len(readable) - 1), 60)
    for at in sorted({0, 1, 2, len(readable) - 2, *chosen}):
        lines = list(readable)
        line = lines[at]
        lines[at] = line[:-1] + (b"x" if line[-1:] != b"x" else b"y")
        path.write_bytes(b"\n".join(lines))
        assert refused(path).line is not None, at
        for wrong in ([*readable[:at], *readable[at + 1 :]], [*readable[: at + 1], *readable[at:]]):
            path.write_bytes(b"\n".join(wrong))
            refused(path)


def test_a_block_that_was_changed_is_named(readable, tmp_path):
    at = next(at for at, line in enumerate(readable) if b'"n": 0' in line)
    lines = list(readable)
    lines[at] = lines[at].replace(b"0", b"9")
    (path := tmp_path / "changed.run").write_bytes(b"\n".join(lines))
    fault = refused(path)
    assert "the block `bundle_one.read.flaky/1 fact_recorded flaky` was changed" in str(fault)


def test_a_conflict_of_a_merge_is_called_one(readable, tmp_path):
    lines = list(readable)
    lines[50:51] = [b"<<<<<<< ours", lines[50], b"=======", lines[50], b">>>>>>> theirs"]
    (path := tmp_path / "merged.run").write_bytes(b"\n".join(lines))
    fault = refused(path)
    assert (fault.line, "conflict of a merge" in str(fault)) == (51, True)


def test_another_spelling_of_the_same_is_refused(readable, tmp_path):
    lines = list(readable)
    at = next(at for at, line in enumerate(lines) if line.startswith(b'  "op_id"'))
    lines[at] = lines[at].replace(b'": "', b'":  "')
    from machine.recordings.readable_writer import sum_of

    start = max(n for n in range(at) if lines[n].startswith(b"-- "))
    end = min(n for n in range(at, len(lines)) if lines[n].startswith(b"-- "))
    name = lines[start][3:-9]
    lines[start] = b"-- %b %b" % (name, sum_of(name, lines[start + 1 : end]))
    (path := tmp_path / "spelled.run").write_bytes(b"\n".join(lines))
    assert "it must be written as" in str(refused(path))


@pytest.mark.parametrize("cut", [1, 2, 40, 600])
def test_a_part_of_a_bundle_is_refused(readable, tmp_path, cut):
    (path := tmp_path / "part.run").write_bytes(b"\n".join([*readable[:cut], b""]))
    assert refused(path).code in {"bundle_truncated", "bundle_invalid"}


# -- readable JSON -------------------------------------------------------------------------------------------

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from(
        ["a\nb\n", "\n", "a\n\nb", "{}", "[]", '{"a": 1}', '{"a":1.0}\n', "[1, 2]", '{"a":1,"a":2}', "x\r\ny"]
    )
)
KEYS = st.text(max_size=5) | st.sampled_from(
    ["$lines", "$json", "$style", "$end", "$object", "$canonical", "$secret"]
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_written_readably_is_read_the_same(value):
    try:
        value = canonical.decode(canonical.encode(value))
    except machine.errors.MachineError:
        return
    again = value_of(lines_of(value))
    assert canonical.encode(again) == canonical.encode(value)
    assert lines_of(again) == lines_of(value)


@given(VALUES, st.sampled_from([(",", ":"), (", ", ": ")]), st.booleans())
def test_json_in_a_text_is_opened_and_closed_exactly(value, separators, ascii_only):
    text = json.dumps({"value": value}, separators=separators, ensure_ascii=ascii_only)
    assert value_of(lines_of(text)) == text
    assert len(lines_of(text)) > 1


@pytest.mark.parametrize("depth", [99, 100, 101, 850])
def test_a_deep_value_is_read_the_same(depth):
    value = canonical.decode(b"[" * depth + b"]" * depth)
    assert value_of(lines_of(value)) == value
