"""What a session says of its goldens, alone and under pytest-xdist, and what becomes of those that nobody uses."""

from __future__ import annotations

from pathlib import Path

import pytest
from campaign import FULL
from golden_suite import said

TESTS = """
import pytest
from prices import plan


@pytest.mark.parametrize("n", range(6))
def test_prices(golden, n):
    golden.check(plan, input={"add": n})


def test_other(golden):
    golden.check(plan)
    golden.check(plan, name="more")


def test_of_something_else():
    pass
"""


@pytest.fixture
def many(suite, as_recorded):
    """Give a suite of seven golden tests, recorded, and two goldens that no test uses."""
    suite.write("test_prices.py", TESTS)
    as_recorded(suite, passed=8)
    suite.unplug()
    data = suite.golden("test_other").read_bytes()
    for name in ("test_gone", "test_other.gone"):
        suite.golden(name).write_bytes(data)
    return suite


@pytest.fixture(params=[[], ["-n", "1"]] if FULL else [[]], ids=["alone", "xdist"] if FULL else ["alone"])
def workers(request):
    return request.param


both = pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "xdist"])
several = both if FULL else pytest.mark.parametrize("workers", [[]], ids=["alone"])


@pytest.mark.slow
@both
def test_the_summary_counts_every_check_once(many, workers):
    many.change("* 2", "* 2 + (ctx.get('add') == 3)")
    (many.golden("test_prices[4]")).unlink()
    result = many.run("--golden-orphans=ignore", *workers)
    result.assert_outcomes(passed=6, failed=2)
    assert "golden: 6 identical, 1 diverged, 1 missing" in said(result)
    assert said(result).count("\ngolden:") == 1


@pytest.mark.slow
@several
def test_what_differs_for_one_cause_is_told_once_with_its_tests(many, workers):
    many.change("* 2", "* 3")
    result = many.run("--golden-orphans=ignore", "--tb=short", *workers)
    result.assert_outcomes(passed=1, failed=7)
    text = said(result)
    assert text.count("NOW       36") + text.count("NOW       37") <= 1
    assert text.count("RECORDED") == 1
    assert text.count("it is shown in full for test_prices.py::test_") == 6
    assert "golden run diverged: fixtures/test_prices[5].run" in text
    names = ["test_other", *(f"test_prices[{n}]" for n in range(6))]
    listed = "\n".join(f"    test_prices.py::{name}" for name in names)
    assert (
        f"  7 tests, one cause: the code of prices.compute.total has changed since the recording\n{listed}"
        in text
    )


def test_what_differs_for_itself_is_told_of_each(many):
    many.change('input={"add": n}', 'input={"add": n + 10}', "test_prices.py")
    text = said(many.run("--golden-orphans=ignore"))
    assert text.count("the input of the check is not as recorded") == 6
    assert text.count("RECORDED") == 6
    assert "one cause" not in text


@pytest.mark.slow
@several
def test_an_update_under_workers_says_one_line_per_file(many, workers):
    many.write("world.txt", "12")
    many.change("* 2", "* 2 + (ctx.get('add') == 3)")
    many.golden("test_prices[4]").unlink()
    result = many.run("--golden-update", "--golden-orphans=ignore", *workers)
    result.assert_outcomes(passed=8)
    text = said(result)
    assert "golden: 6 identical, 1 updated, 1 new" in text
    assert "golden: updated fixtures/test_prices[3].run (the code of prices.compute.total has changed" in text
    assert "golden: new fixtures/test_prices[4].run" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ci", "args", "code"),
    [
        ("", [], 0),
        ("0", [], 0),
        ("false", [], 0),
        ("true", [], 1),
        ("true", ["-n", "2"], 1),
        ("1", ["--golden-orphans=warn"], 0),
        ("1", ["--golden-orphans=warn", "-n", "2"], 0),
        ("", ["--golden-orphans=fail"], 1),
    ],
)
def test_a_golden_that_no_test_uses_is_reported_and_fails_in_ci(many, monkeypatch, ci, args, code):
    monkeypatch.setenv("CI", ci)
    result = many.run(*args)
    result.assert_outcomes(passed=8)
    text = said(result)
    assert "golden: orphaned fixtures/test_gone.run: no test uses it" in text
    assert "golden: orphaned fixtures/test_other.gone.run: no test uses it" in text
    assert "golden: 8 identical, 2 orphaned" in text
    assert result.ret == code
    assert many.golden("test_gone").exists()


@pytest.mark.slow
@several
def test_orphans_are_deleted_when_that_is_allowed_and_nothing_else_is(many, workers, monkeypatch):
    monkeypatch.setenv("CI", "1")
    many.write("fixtures/notes.txt", "not a golden")
    before = many.fixtures
    result = many.run("--golden-allow-deletion", *workers)
    assert result.ret == 0
    assert "golden: deleted fixtures/test_gone.run" in said(result)
    assert "golden: 8 identical, 2 deleted" in said(result)
    assert sorted(set(before) - set(many.fixtures)) == ["test_gone.run", "test_other.gone.run"]


def left_alone(suite, *args):
    """Say whether a session looked for no orphans, although it was allowed to delete them."""
    before = suite.fixtures
    result = suite.run("--golden-allow-deletion", *args)
    text = said(result)
    return suite.fixtures == before and "orphaned" not in text and "deleted" not in text


PARTS = [
    ["-k", "other"],
    ["--maxfail=1"],
    ["test_prices.py::test_other"],
    ["--deselect", "test_prices.py::test_other"],
    ["-m", "not slow"],
    ["test_prices.py"],
    ["--collect-only"],
    ["--ignore", "test_prices.py"],
    ["--ignore", "test_more.py"],
    ["--ignore-glob", "*more*"],
    ["nowhere"],
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "args", [*PARTS, *([*part, "-n", "1"] for part in PARTS[: None if FULL else 1])], ids=" ".join
)
def test_orphans_are_not_looked_for_when_not_every_test_was_collected_and_run(many, args):
    many.write("pytest.ini", "[pytest]\npythonpath = .\nmarkers = slow: takes long\n")
    fails = "assert False" if args[0] == "--maxfail=1" else "pass"
    many.write("test_more.py", f"import pytest\n\n\n@pytest.mark.slow\ndef test_more():\n    {fails}\n")
    assert left_alone(many, *args)


def test_orphans_are_looked_for_when_an_expression_chooses_every_test(many, workers):
    assert not left_alone(many, "-k", "not gone", *workers)


def test_orphans_are_not_looked_for_when_only_what_failed_is_run(many):
    many.write("test_more.py", "def test_more():\n    assert False\n")
    assert many.process("--golden-orphans=ignore").ret == 1
    before = many.fixtures
    result = many.process("--lf", "--golden-allow-deletion")
    result.assert_outcomes(failed=1)
    assert many.fixtures == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    ["import nothing_of_this_name\n", "import pytest\npytest.skip('not here', allow_module_level=True)\n"],
    ids=["broken", "skipped"],
)
def test_orphans_are_not_looked_for_when_a_file_was_not_collected(many, workers, text):
    many.write("test_gone.py", text)
    assert left_alone(many, "--continue-on-collection-errors", *workers)


@pytest.mark.slow
def test_orphans_are_not_looked_for_when_a_worker_died(many):
    many.write("test_zz.py", "import os\n\n\ndef test_zz():\n    os._exit(1)\n")
    assert left_alone(many, "-n", "2")


def test_a_test_that_did_not_pass_keeps_all_of_its_goldens(many, workers):
    many.change("golden.check(plan)\n", "raise ValueError\n    golden.check(plan)\n", "test_prices.py")
    result = many.run("--golden-allow-deletion", *workers)
    result.assert_outcomes(passed=7, failed=1)
    assert "golden: 6 identical, 1 deleted" in said(result)
    assert not many.golden("test_gone").exists()
    for name in ("test_other", "test_other.more", "test_other.gone"):
        assert many.golden(name).exists()


def test_a_skipped_test_keeps_its_golden(many, workers):
    many.change("def test_other", "@pytest.mark.skip\ndef test_other", "test_prices.py")
    many.run("--golden-allow-deletion", *workers)
    assert many.golden("test_other").exists()
    assert many.golden("test_other.more").exists()


@pytest.mark.slow
def test_a_golden_asked_for_at_run_time_is_used_too(many, workers):
    many.write(
        "test_late.py",
        "from prices import plan\n\n\ndef test_late(request):\n    request.getfixturevalue('golden').check(plan)\n",
    )
    many.write("world.txt", "12")
    many.run("--golden=record-missing", "test_late.py").assert_outcomes(passed=1)
    many.unplug()
    many.run("--golden-allow-deletion", *workers).assert_outcomes(passed=9)
    assert many.golden("test_late").exists()


def test_a_test_that_asks_at_run_time_and_did_not_come_to_it_keeps_its_golden(many, workers):
    many.write(
        "test_late.py",
        "import pytest\n\n\ndef test_late(request):\n    pytest.skip('not now')\n",
    )
    many.golden("test_late").write_bytes(many.golden("test_other").read_bytes())
    many.run("--golden-allow-deletion", *workers).assert_outcomes(passed=8, skipped=1)
    assert many.golden("test_late").exists()
    assert not many.golden("test_gone").exists()


def test_a_folder_beside_no_golden_test_is_not_looked_at(many, workers):
    many.write("apart/fixtures/mine.run", "no golden")
    many.write("apart/test_apart.py", "def test_apart():\n    pass\n")
    many.run("--golden-allow-deletion", *workers)
    assert (many.path / "apart/fixtures/mine.run").exists()


def test_only_the_folders_that_were_asked_for_are_judged(many, workers):
    many.write(
        "apart/test_apart.py",
        "from prices import plan\n\n\ndef test_apart(golden):\n    golden.check(plan)\n",
    )
    golden = many.golden("test_other").read_bytes()
    for name in ("test_apart", "test_left"):
        path = many.path / "apart/fixtures" / f"{name}.run"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(golden)
    result = many.run("apart", *workers)
    assert "golden: 1 identical, 1 orphaned" in said(result)
    assert "orphaned apart/fixtures/test_left.run" in said(result)


def test_an_orphan_that_cannot_be_deleted_stays_one(many, monkeypatch):
    def refused(path, missing_ok=False):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refused)
    result = many.run("--golden-allow-deletion", "--golden-orphans=fail")
    assert "golden: 8 identical, 2 orphaned" in said(result)
    assert result.ret == 1


def test_what_a_session_that_was_killed_left_is_removed_and_what_is_being_written_is_not(many, workers):
    import fcntl

    many.write("fixtures/.machine-0123456789abcdef.tmp", "half")
    written = many.write("fixtures/.machine-fedcba9876543210.tmp", "by another session")
    with written.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        result = many.run("--golden-orphans=ignore", *workers)
    result.assert_outcomes(passed=8)
    text = said(result)
    assert "golden: removed fixtures/.machine-0123456789abcdef.tmp: left by a session that was killed" in text
    assert [name for name in many.fixtures if name.startswith(".")] == [written.name]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["alone", "xdist"])
def test_a_recording_that_is_killed_leaves_nothing_beside_the_goldens(suite, workers, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    suite.write(
        "conftest.py",
        """
import os, signal


def pytest_runtest_logreport(report):
    if report.when == "teardown" and os.path.exists("kill"):
        os.unlink("kill")
        os.kill(os.getpid(), signal.SIGKILL)
""",
    )
    suite.write("kill", "")
    assert suite.process("--golden=record-missing", *workers).ret != 0
    suite.process("--golden=record-missing").assert_outcomes(passed=1)
    assert suite.fixtures == ["test_prices.run"]
    assert not list(tmp_path.glob("machine-goldens-*"))
