"""A divergence as text, apart from any run."""

from __future__ import annotations

import pytest

from machine.recordings.divergence import Cause, Divergence, DivergenceKind, NearCall
from machine.recordings.divergence_text import MOST_CHANGES, lines
from machine.recordings.json_diff import diff


def divergence(recorded, now, **more):
    fields = {"kind": DivergenceKind.SNAPSHOT_DIFFERS, "seq": 7, "summary": "the context differs", **more}
    return Divergence(recorded=recorded, now=now, changes=diff(recorded, now), **fields)


def test_changes_stand_under_their_pointer_recorded_above_now():
    found = lines(divergence({"a": {"b": 1}}, {"a": {"b": 2}}))
    start = found.index("  /a/b")
    assert found[start + 1 : start + 3] == ["    RECORDED  1", "    NOW       2"]


def test_an_absent_side_is_said_to_be_nothing():
    found = lines(divergence({"a": 1}, {"b": 1}))
    assert found[found.index("  /a") + 2] == "    NOW       (nothing)"
    assert found[found.index("  /b") + 1] == "    RECORDED  (nothing)"


def test_long_texts_are_shown_where_they_differ():
    found = lines(divergence({"a": "x" * 500 + "old"}, {"a": "x" * 500 + "new"}))
    assert any(line.endswith('xold"') for line in found)
    assert any(line.endswith('xnew"') for line in found)


@pytest.mark.parametrize("cause", list(Cause))
def test_every_line_fits_a_terminal_and_has_no_control_character(cause):
    found = lines(
        divergence(
            {str(i): "\x1b[31m\n" * 30 for i in range(30)},
            {"0": "\x1b" * 300},
            cause=cause,
            cause_text="because of this and that " * 10,
            nearest=[NearCall(3, "http", {"url": "\x1b" * 100}, "another request")],
        )
    )
    assert all(line.isprintable() for line in found)
    assert all(len(line) <= 80 for line in found)
    assert found[-1].startswith(("  next   ", "         "))


def test_a_long_line_of_source_is_shown_where_it_differs():
    old, new = (f"-{'x' * 90} {word} {'y' * 90}" for word in ("old", "new"))
    code = ["@@ -1,2 +1,3 @@", " def a():", old, "-removed", f"+{new[1:]}", "+added", "+more"]
    found = lines(divergence(1, 2, cause=Cause.STATE_CODE_CHANGED, cause_text="it", code=code))
    assert f"    -...{'x' * 19} old {'y' * 45}..." in found
    assert f"    +...{'x' * 19} new {'y' * 45}..." in found
    assert all(f"    {line}" in found for line in (" def a():", "-removed", "+added", "+more"))
    assert all(len(line) <= 80 for line in found)


def test_more_changes_than_anybody_reads_are_counted():
    found = lines(divergence({str(i): 0 for i in range(40)}, {str(i): 1 for i in range(40)}))
    assert sum(line.lstrip().startswith("NOW") for line in found) == MOST_CHANGES
    assert "  ... and 30 more" in found


def test_a_call_is_shown_by_its_namespace_and_request():
    call = {"namespace": "exec", "request": {"argv": ["ls"]}}
    found = lines(divergence(None, call, kind=DivergenceKind.CALL_ADDED))
    assert "  RECORDED  (nothing)" in found
    assert '  NOW       exec  {"argv": ["ls"]}' in found


def test_unused_calls_are_listed_with_why_they_do_not_fit():
    found = lines(divergence(1, 2, nearest=[NearCall(4, "env", {"name": "X"}, "a call of env")]))
    assert '    event 4  env  {"name": "X"}  (a call of env)' in found
