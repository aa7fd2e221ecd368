"""Every check has a file of its own: by test, class, parameters and name. Two tests never share one unseen."""

from __future__ import annotations

from pathlib import Path

import pytest
from golden_suite import said

from machine.testing.golden_paths import belongs, file_of

HEAD = "import pytest\nfrom prices import plan\n\n\n"


def test_a_file_is_named_after_the_test_its_class_and_its_parameters(suite):
    suite.write(
        "test_prices.py",
        HEAD
        + """
class TestPrices:
    class TestInner:
        def test_one(self, golden):
            golden.check(plan)


@pytest.mark.parametrize("symbol", ["ETH-1", "a/b", "a_b", "a:b", "..", "é", pytest.param("", id="x" * 300)])
def test_two(golden, symbol):
    golden.check(plan, input={"symbol": symbol})
""",
    )
    suite.run("--golden=record-missing").assert_outcomes(passed=8)
    names = suite.fixtures
    assert len(names) == 8
    assert {"TestPrices.TestInner.test_one.run", "test_two[ETH-1].run", "test_two[a_b].run"} <= set(names)
    assert all(len(name) < 180 and set(name).isdisjoint("/:\\") and name.isascii() for name in names)
    suite.unplug()
    suite.run().assert_outcomes(passed=8)


def test_several_checks_of_a_test_have_names(suite):
    suite.write(
        "test_prices.py",
        HEAD
        + """
def test_prices(golden):
    golden.check(plan, name="first")
    golden.check(plan, input={"add": 2}, name="second")
    golden.check(plan)
""",
    )
    suite.run("--golden=record-missing").assert_outcomes(passed=1)
    assert suite.fixtures == ["test_prices.first.run", "test_prices.run", "test_prices.second.run"]
    suite.unplug()
    assert "golden: 3 identical" in said(suite.run())


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        ("golden.check(plan); golden.check(plan)", "another check of this test has no name either"),
        ("golden.check(plan, name='a'); golden.check(plan, name='a')", "is named 'a' too"),
        ("golden.check(plan, name='a/b')", "the name of a check is of letters"),
        ("golden.check(plan, name='')", "the name of a check is of letters"),
        ("golden.check(plan, name='../x')", "the name of a check is of letters"),
    ],
)
def test_a_check_that_has_no_file_of_its_own_fails(suite, calls, words):
    suite.write("test_prices.py", f"{HEAD}def test_prices(golden):\n    {calls}\n")
    result = suite.run("--golden=record")
    result.assert_outcomes(failed=1)
    assert words in said(result)


def test_a_marker_gives_the_file(suite):
    suite.write(
        "test_prices.py",
        HEAD
        + """
@pytest.mark.golden(path="elsewhere/of.prices.run")
def test_prices(golden):
    golden.check(plan)
    golden.check(plan, name="named")
""",
    )
    suite.run("--golden=record-missing").assert_outcomes(passed=1)
    assert sorted(path.name for path in (suite.path / "elsewhere").iterdir()) == [
        "of.prices.named.run",
        "of.prices.run",
    ]


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ("path='x.json'", "ends in .run"),
        ("age='30d'", "takes path, max_age, status, live_ignore, allow, not age"),
        ("'x.run'", "not arguments without a name"),
        ("max_age='soon'", "is not an age"),
        ("max_age=30", "is not an age"),
        ("status='done'", "is one of completed, failed"),
        ("live_ignore='/a'", "live_ignore lists JSON Pointers"),
        ("live_ignore=['a']", "live_ignore lists JSON Pointers"),
        ("allow='open'", "allow lists what is looked for"),
        ("allow=['opens']", "not 'opens'"),
    ],
)
def test_a_marker_that_cannot_be_is_refused(suite, marker, words):
    suite.write(
        "test_prices.py",
        f"{HEAD}@pytest.mark.golden({marker})\ndef test_prices(golden):\n    golden.check(plan)\n",
    )
    result = suite.run("--golden=record")
    result.assert_outcomes(errors=1)
    assert words in said(result)
    assert suite.fixtures == []


def test_the_nearest_marker_wins(suite):
    suite.write(
        "test_prices.py",
        HEAD
        + """
pytestmark = pytest.mark.golden(max_age="1s", status="failed")


@pytest.mark.golden(status="completed")
def test_prices(golden):
    golden.check(plan)
""",
    )
    suite.run("--golden=record-missing").assert_outcomes(passed=1)


TWICE = HEAD + "def test_prices(golden):\n    golden.check(plan, input={'who': __name__})\n"


@pytest.fixture(params=[[], ["-n", "2"]], ids=["alone", "xdist"])
def workers(request):
    return request.param


@pytest.mark.slow
def test_two_tests_of_one_name_have_a_golden_each_whichever_was_there_first(suite, workers):
    suite.write("test_prices.py", TWICE)
    suite.run("--golden=record-missing").assert_outcomes(passed=1)
    before = suite.golden().read_bytes()
    suite.write("test_again.py", TWICE)
    suite.write("test_more.py", TWICE)
    suite.run("test_again.py").assert_outcomes(failed=1)
    suite.run("--golden-update", "test_again.py").assert_outcomes(passed=1)
    suite.run("--golden=record-missing", *workers).assert_outcomes(passed=3)
    assert suite.golden().read_bytes() == before
    assert suite.fixtures == [
        "test_prices.run",
        "test_prices@test_again.run",
        "test_prices@test_more.run",
    ]
    for chosen in ([], ["test_again.py"], ["test_prices.py"], workers):
        result = suite.run("--golden-allow-deletion", *chosen)
        assert result.ret == 0
        assert "deleted" not in said(result)
    (suite.path / "test_again.py").rename(suite.path / "test_anew.py")  # as it is renamed, so is its golden
    assert "missing: fixtures/test_prices@test_anew.run" in said(suite.run("test_anew.py"))
    (suite.path / "test_prices.py").rename(suite.path / "test_costs.py")
    suite.change("'who': __name__", "'who': 'test_prices'", "test_costs.py")
    suite.run("test_costs.py").assert_outcomes(passed=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("patterns", "golden"),
    [
        (None, "test_prices.run"),
        ("test_*.py gree*.py", "test_prices@test_again.run"),
        ("test_*.py */greeting.py", "test_prices@test_again.run"),
        ("test_*.py */there/greeting.py", "test_prices.run"),
    ],
)
def test_a_file_that_pytest_does_not_collect_makes_no_name_longer(suite, patterns, golden):
    (suite.path / "test_prices.py").unlink()
    suite.write("greeting.py", TWICE)
    suite.write("test_again.py", TWICE)
    options = ["-o", f"python_files={patterns}"] if patterns else []
    suite.run(*options, "--golden=record-missing", "test_again.py").assert_outcomes(passed=1)
    assert suite.fixtures == [golden]
    suite.run("test_again.py").assert_outcomes(passed=1)


def test_a_file_that_is_named_to_pytest_counts_whatever_it_is_called(suite):
    (suite.path / "test_prices.py").unlink()
    suite.write("greeting.py", TWICE)
    suite.write("test_again.py", TWICE)
    suite.run("--golden=record-missing", "test_again.py", "greeting.py").assert_outcomes(passed=2)
    assert len(suite.fixtures) == 2


def test_a_golden_that_does_not_say_whose_it_is_belongs_to_the_test_that_asks_for_the_same(suite):
    suite.write("test_prices.py", TWICE)
    suite.write("test_again.py", TWICE)
    suite.write(
        "record.py",
        """
from machine import RunConfig, export_run, open_store, run
from prices import plan

with open_store("memory://") as store:
    config = RunConfig(undeclared_io="error")
    done = run(plan, input={"who": "test_prices"}, store=store, config=config)
    export_run(done.run_id, "fixtures/test_prices.run", store=store)
""",
    )
    (suite.path / "fixtures").mkdir()
    assert suite.pytester.runpython("record.py").ret == 0
    before = suite.golden().read_bytes()
    result = suite.run()
    result.assert_outcomes(passed=1, failed=1)
    assert "golden run missing: fixtures/test_prices@test_again.run" in said(result)
    assert suite.golden().read_bytes() == before


def test_two_tests_with_one_golden_are_refused_although_one_of_them_is_not_chosen(suite):
    suite.write("test_prices.py", TWICE)
    suite.write(
        "test_again.py",
        TWICE.replace("test_prices", "test_other").replace(
            "def ", "@pytest.mark.golden(path='fixtures/test_prices.run')\ndef "
        ),
    )
    result = suite.run("--golden=record", "-k", "test_other")
    result.assert_outcomes(errors=1, deselected=1)
    assert suite.fixtures == []


def test_parameter_sets_that_share_a_path_are_refused(suite):
    suite.write(
        "test_prices.py",
        HEAD
        + """
@pytest.mark.golden(path="one.run")
@pytest.mark.parametrize("n", [1, 2])
def test_prices(golden, n):
    golden.check(plan, input={"n": n})
""",
    )
    result = suite.run("--golden=record")
    result.assert_outcomes(errors=2)
    assert "test_prices.py::test_prices[1]" in said(result)
    assert "test_prices.py::test_prices[2]" in said(result)


def test_a_golden_asked_for_at_run_time_is_not_shared_either(suite):
    suite.write(
        "test_prices.py",
        HEAD
        + """
@pytest.mark.golden(path="one.run")
@pytest.mark.parametrize("n", [1, 2])
def test_prices(request, n):
    request.getfixturevalue("golden").check(plan)
""",
    )
    result = suite.run("--golden=record-missing")
    result.assert_outcomes(passed=1, failed=1)
    assert "one.run is the golden of test_prices.py::test_prices[1] already" in said(result)


def test_the_same_names_in_two_folders_are_two_goldens(suite):
    for folder in ("one", "two"):
        suite.write(f"{folder}/test_prices_{folder}.py", TWICE)
    (suite.path / "test_prices.py").unlink()
    suite.run("--golden=record-missing").assert_outcomes(passed=2)
    assert suite.fixtures == ["test_prices.run", "test_prices.run"]


def test_a_file_belongs_to_a_test_by_its_whole_name():
    base = Path("/t/fixtures/test_x")
    assert belongs(file_of(base, None), base)
    assert belongs(file_of(base, "a"), base)
    for other in ("test_x2.run", "test_x[1].run", "test_x.a.b.run", "test.run", "test_x..run"):
        assert not belongs(base.parent / other, base)
    assert not belongs(Path("/t/test_x.run"), base)
