"""What is recorded is replayed in a fresh process before it is a golden: another hash seed, day and zone."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from golden_suite import said

from machine.recordings import golden_origin
from machine.testing import golden_fresh

PLANS = """
import email.utils, logging, os
from datetime import datetime
from pathlib import Path

import pytest
from machine import Plan

MAKERS = {
    "honest": lambda: "the same",
    "time": lambda: email.utils.formatdate(),
    "datetime": lambda: str(email.utils.localtime().date()),
    "process": lambda: logging.makeLogRecord({}).process,
    "order": lambda: "".join({str(number) for number in range(9)}),
    "zone": lambda: datetime.fromtimestamp(10**9).isoformat(),
}


def plan_of(make):
    plan = Plan("made", version="1")

    @plan.state("make.value")
    def value(ctx, io, rec):
        ctx["value"] = make()

    return plan
"""

TESTS = """
import http.server, threading
from plans import *

server = http.server.HTTPServer(("127.0.0.1", PORT), http.server.BaseHTTPRequestHandler)


@pytest.fixture(autouse=True, scope="module")
def closed_at_the_end(request):  # not before: the fresh process is to find the port taken
    request.config.add_cleanup(server.server_close)


@pytest.mark.parametrize("kind", MAKERS)
def test_made(golden, kind):
    golden.check(plan_of(MAKERS[kind]))


class TestMore:
    def test_two_checks(self, golden):
        golden.check(plan_of(MAKERS["time"]), name="bad")
        golden.check(plan_of(MAKERS["honest"]), name="good")

    def test_not_a_second_time(self, golden):
        Path("ran").mkdir()
        golden.check(plan_of(MAKERS["honest"]))

    def test_ends_the_process(self, golden):
        if Path("here").exists():
            os._exit(3)
        Path("here").touch()
        golden.check(plan_of(MAKERS["honest"]))

    def test_zz_after_it(self, golden):
        golden.check(plan_of(MAKERS["honest"]))
"""


@pytest.fixture
def made(suite):
    """Give a suite whose plans depend on what a recording does not hold, and some that do not."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (suite.path / "test_prices.py").unlink()
    suite.write("plans.py", PLANS)
    suite.write("test_made.py", TESTS.replace("PORT", str(port)))
    return suite


CAUSES = {
    "test_made.py::test_made[time]": "it depends on the clock",
    "test_made.py::test_made[datetime]": "it depends on the clock",
    "test_made.py::test_made[process]": "it differs from process to process",
    "test_made.py::test_made[order]": "it depends on the hash seed",
    "test_made.py::test_made[zone]": "it depends on the time zone",
    "test_made.py::TestMore::test_two_checks": "it depends on the clock",
    "test_made.py::TestMore::test_not_a_second_time": "FileExistsError",
    "test_made.py::TestMore::test_ends_the_process": "during the test, its process there ended with exit code 3",
}


@pytest.mark.slow
def test_what_does_not_replay_in_a_fresh_process_is_no_golden_and_its_test_fails(made):
    result = made.run("--golden=record-missing")
    text = said(result)
    result.assert_outcomes(passed=10, errors=8)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert made.fixtures == [
        "TestMore.test_two_checks.good.run",
        "TestMore.test_zz_after_it.run",
        "test_made[honest].run",
    ]
    assert "golden: 3 new, 8 failed" in text
    for test, cause in CAUSES.items():
        section = text.split(f"  test    {test}\n")[0].rpartition("golden run failed: ")[2]
        assert cause in section, section
    clock = text.split("  test    test_made.py::test_made[time]\n")[0].rpartition("golden run failed: ")[2]
    assert "does not replay in a fresh process, so nothing was written" in clock
    assert "RECORDED" in clock
    assert "take the time from io" in clock
    made.run("-k", "honest or zz").assert_outcomes(passed=2, deselected=8)


@pytest.mark.slow
def test_under_xdist_each_worker_is_judged_and_what_was_recorded_before_a_worker_died_is_kept(made):
    made.write(
        "test_made.py",
        """
import os
from plans import *


@pytest.mark.parametrize("kind", ["honest", "time"])
@pytest.mark.parametrize("n", [1, 2])
def test_made(golden, kind, n, worker_id):
    assert worker_id.startswith("gw")
    golden.check(plan_of(MAKERS[kind]))


@pytest.mark.xdist_group("last")
def test_dies(golden):
    os._exit(3)
""",
    )
    result = made.run("--golden=record-missing", "-n", "2", "--dist", "load")
    assert made.fixtures == ["test_made[1-honest].run", "test_made[2-honest].run"]
    text = said(result)
    assert "golden: 2 new, 2 failed" in text
    assert "ERROR test_made.py::test_made[1-time]" in text
    assert "it depends on the clock" in text


@pytest.mark.slow
def test_the_fresh_session_has_the_options_and_plugins_of_this_one_and_writes_none_of_its_reports(made):
    made.write("plans.py", PLANS)
    made.write(
        "ours.py",
        "import pytest\n\n\ndef pytest_addoption(parser):\n    parser.addoption('--kind', default='time')\n"
        "    parser.addini('number', 'one')\n\n\n@pytest.fixture\ndef kind(request):\n"
        "    assert request.config.getini('number') == '7'\n    return request.config.getoption('kind')\n",
    )
    made.write("conf/other.ini", "[pytest]\npythonpath = ..\npython_files = check_*.py\n")
    made.write(
        "deep/check_made.py",
        "from plans import *\n\n\ndef test_made(golden, kind, tmp_path):\n    (tmp_path / 'x').touch()\n"
        "    golden.check(plan_of(MAKERS[kind]), input={'dir': 'none'})\n\n\ndef test_not_this(kind):\n    pass\n",
    )
    (made.path / "pytest.ini").unlink()
    args = ["-c", "conf/other.ini", "--rootdir", ".", "-p", "ours", "-o", "number=7", "--kind=honest", "deep"]
    made.pytester.syspathinsert(made.path)
    result = made.run(
        "--golden=record-missing", *args, "--junitxml=out.xml", "-x", "-s", "--log-file=log.txt"
    )
    result.assert_outcomes(passed=2)
    assert made.fixtures == ["test_made.run"]
    assert ET.parse(made.path / "out.xml").getroot().find("testsuite").get("tests") == "2"
    (made.path / "deep/fixtures/test_made.run").write_bytes(b"")
    result = made.run("--golden=record", *args, "-k", "not this")
    result.assert_outcomes(passed=1, deselected=1)
    assert "golden: updated deep/fixtures/test_made.run" in said(result)


@pytest.mark.parametrize(
    ("conftest", "words"),
    [
        (
            "def pytest_configure(config):\n    getattr(config, 'workerinput', {'no': 1})['no']\n",
            "KeyError: 'no'",
        ),
        (
            """
import time


def pytest_runtest_setup(item):
    if hasattr(item.config, 'workerinput'):
        time.sleep(600)
""",
            "during the test, its process there took longer than 5 s and was ended",
        ),
        (
            """
def pytest_collection_modifyitems(config, items):
    if hasattr(config, 'workerinput'):
        items.clear()
""",
            "there is no test of this name there",
        ),
        (
            (
                "import sys\nif 'fresh_entry_point.py' in str(vars(sys.modules['__main__']).get('__file__')):\n"
                "    1 / 0\n"
            ),
            "pytest could not do its work there",
        ),
    ],
    ids=["configure", "hangs", "collects otherwise", "conftest"],
)
@pytest.mark.slow
def test_a_fresh_session_that_cannot_do_its_work_says_so_and_nothing_is_kept(
    suite, monkeypatch, conftest, words
):
    monkeypatch.setattr(golden_fresh, "_LEAST_SECONDS", 5.0 if "sleep" in conftest else 60.0)
    monkeypatch.setattr(golden_fresh, "_TIMES_AS_LONG", 0)
    suite.write("conftest.py", conftest)
    result = suite.run("--golden=record-missing")
    result.assert_outcomes(passed=1, errors=1)
    assert "could not be replayed in a fresh process, so nothing was written" in said(result)
    assert words in said(result)
    assert suite.fixtures == []


CLOCKS = """
import runpy, sys, types
from time import time as before
early = types.ModuleType("early")
import time, datetime
early.clock = time.time
sys.modules["early"] = early
was = {name: getattr(time, name)() for name in
    "time monotonic perf_counter process_time thread_time time_ns monotonic_ns perf_counter_ns".split()}
was.update(now=datetime.datetime.now(), utcnow=datetime.datetime.utcnow(), today=datetime.datetime.today(),
    localtime=time.localtime(), gmtime=time.gmtime(), ctime=time.ctime(), asctime=time.asctime(),
    strftime=time.strftime("%F"), day=datetime.date.today(), get=time.clock_gettime(time.CLOCK_REALTIME))
kind = datetime.datetime
runpy.run_path(sys.argv[1], run_name="fresh")["move_clock"](86401)
from time import time as late, strftime
from datetime import datetime as moment, timedelta, timezone, date
assert 86400 < late() - was["time"] < 86500 and 86400 < early.clock() - was["time"] < 86500
for name in "time monotonic perf_counter process_time thread_time".split():
    assert 86400 < getattr(time, name)() - was[name] < 86500, name
for name in "time_ns monotonic_ns perf_counter_ns".split():
    assert 86400e9 < getattr(time, name)() - was[name] < 86500e9, name
assert 86400 < time.clock_gettime(time.CLOCK_REALTIME) - was["get"] < 86500
assert moment is kind and type(moment.now()) is kind
for name in "now utcnow today".split():
    assert timedelta(days=1) < getattr(moment, name)() - was[name] < timedelta(days=1, seconds=99), name
aware = moment.now(timezone.utc).replace(tzinfo=None)
assert timedelta(days=1) < aware - was["utcnow"] < timedelta(days=1, seconds=99)
class Mine(moment): pass
assert type(Mine.now()) is Mine and type(Mine.utcnow()) is Mine
assert date.today() - was["day"] >= timedelta(days=1)
assert time.localtime().tm_yday != was["localtime"].tm_yday and time.gmtime().tm_yday != was["gmtime"].tm_yday
assert time.ctime()[:10] != was["ctime"][:10] and time.asctime()[:10] != was["asctime"][:10]
assert strftime("%F") != was["strftime"]
assert time.gmtime(0).tm_year == 1970 and strftime("%Y", time.gmtime(0)) == "1970"
assert time.asctime(time.gmtime(0))[-4:] == "1970"
class Timer:
    clock = time.perf_counter
assert Timer().clock() > 0
import json, logging, asyncio, threading
assert 86400 < logging.makeLogRecord({}).created - was["time"] < 86500
assert not threading.Event().wait(0.01)
asyncio.run(asyncio.wait_for(asyncio.sleep(0.01), 5))
"""


def test_every_clock_of_time_and_datetime_is_moved_for_all_that_is_imported_after():
    script = Path(golden_fresh.__file__).with_name("fresh_entry_point.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CLOCKS, script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_kept_golden_says_which_test_made_it(recorded):
    assert golden_origin.test_of(recorded.golden()) == (recorded.path / "test_prices.py", "test_prices")
    assert os.fspath(recorded.path) not in recorded.golden().read_text()
