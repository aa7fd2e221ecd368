"""Goldens written anew from their own answers: `--golden-accept` and `--golden-update-changed`."""

from __future__ import annotations

import http.server
import json
import re
import threading

import anyio
import pytest
from golden_suite import empty_suite, said

from machine import cli
from machine.config import Target
from machine.target import load
from machine.testing.golden_check import Wanted, opened
from machine.testing.golden_live import Facts, Fresh, record
from machine.testing.golden_options import How
from machine.testing.golden_unlike import Unlike

PLAN = """
from machine import Plan

plan = Plan("shop", version="1")
PATHS = ["/a", "/b", "/c", "/d"]


@plan.state("fetch.prices", side_effects="read_only_io")
async def prices(ctx, io, rec):
    got = [(await io.http("GET", ctx["url"] + path)).json()["price"] for path in PATHS]
    ctx["prices"] = got


@plan.state("compute.total", after=[prices])
def total(ctx, io, rec):
    ctx["total"] = sum(ctx["prices"])


@plan.state("order.place", after=[total], side_effects="apply_side_effect", idempotency="order-1")
async def place(ctx, io, rec):
    ctx["order"] = (await io.http("POST", ctx["url"] + "/orders", json={"of": "shop"})).json()["price"]
"""

TEST = """
from shop import plan


def test_shop(golden):
    golden.check(plan, input={"url": "URL"})
"""


class Counting(http.server.BaseHTTPRequestHandler):
    """A server that gives a new price for every request, and counts them by path."""

    def do_GET(self):
        self.server.asked.append((self.command, self.path))
        body = json.dumps({"price": len(self.server.asked)}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def running():
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    found.asked = []
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


@pytest.fixture
def server(running):
    running.asked.clear()
    return running


@pytest.fixture(scope="module")
def recording():
    """Keep the golden that was recorded."""
    return []


def recorded_from(file, server, facts=None):
    """Record the plan in a file as its test would."""
    wanted = Wanted.of(load(str(file)).plan, {"input": {"url": f"http://127.0.0.1:{server.server_port}"}})
    target = Target("../test_shop.py::test_shop", "")
    return anyio.run(record, wanted, ["completed"], target, "", facts)


@pytest.fixture
def shop(pytester, monkeypatch, server, recording):
    """Give a suite with a golden of four reads and an effect, recorded from a server that counts."""
    made = empty_suite(pytester, monkeypatch)
    made.write("shop.py", PLAN)
    made.write("test_shop.py", TEST.replace("URL", f"http://127.0.0.1:{server.server_port}"))
    if not recording:
        fresh = recorded_from(made.path / "shop.py", server)
        assert isinstance(fresh, Fresh), fresh
        assert len(server.asked) == 5
        server.asked.clear()
        fresh.write(made.path / "new.run")
        recording.append((made.path / "new.run").read_text())
        (made.path / "new.run").unlink()
    made.write("fixtures/test_shop.run", recording[0])
    return made


def time_of(golden):
    return json.loads(golden.splitlines()[-1])["end"]["recorded"]


def golden_text(suite):
    return suite.golden("test_shop").read_text()


def test_a_change_in_pure_code_is_accepted_offline_and_nothing_is_sent(shop, server):
    before = golden_text(shop)
    shop.change('sum(ctx["prices"])', 'sum(ctx["prices"]) * 10', "shop.py")
    result = shop.run()
    assert "accept  pytest test_shop.py::test_shop --golden-accept" in said(result)
    result = shop.run("--golden-accept")
    result.assert_outcomes(passed=1)
    assert "golden: accept" in said(result)
    assert "golden: 1 updated" in said(result)
    assert server.asked == [], "neither a read nor the effect"
    after = golden_text(shop)
    assert time_of(before) == time_of(after), "its facts are as old as they were"
    assert '"total": 100' in after
    shop.run().assert_outcomes(passed=1)
    assert server.asked == []


def test_a_changed_call_is_not_accepted_offline_and_made_alone(shop, server):
    before = golden_text(shop)
    shop.change('"/b"', '"/new"', "shop.py")
    text = said(shop.run())
    assert "accept  pytest test_shop.py::test_shop --golden-update-changed  # only calls" in text
    result = shop.run("--golden-accept")
    result.assert_outcomes(failed=1)
    assert "not recorded again: today's code makes a call that the golden has no answer to" in said(result)
    assert "--golden-update-changed" in said(result)
    assert (server.asked, golden_text(shop)) == ([], before)
    result = shop.run("--golden-update-changed")
    result.assert_outcomes(passed=1)
    assert server.asked == [("GET", "/new")], "of four reads and an effect, the one that changed"
    server.asked.clear()
    shop.run().assert_outcomes(passed=1)
    assert server.asked == []


def test_a_handler_that_goes_on_without_an_answer_is_not_accepted(shop, server):
    before = golden_text(shop)
    shop.change(
        '    ctx["prices"] = got',
        '    try:\n        await io.http("GET", ctx["url"] + "/more")\n    except Exception:\n        pass\n'
        '    ctx["prices"] = got',
        "shop.py",
    )
    shop.run("--golden-accept").assert_outcomes(failed=1)
    assert (server.asked, golden_text(shop)) == ([], before)


def test_a_changed_effect_is_sent_once_and_others_never(shop, server):
    shop.change('"of": "shop"', '"of": "market"', "shop.py")
    (shop.path / "shop.py").rename(shop.path / "market.py")
    made = {}
    with opened(shop.golden("test_shop")) as before:
        for how in (How.FACTS, How.CHANGED):
            made[how] = recorded_from(shop.path / "market.py", server, Facts.of(before, how))
    assert isinstance(made[How.FACTS], Unlike)
    assert "shop.order.place makes a call of http" in made[How.FACTS].lines[0]
    assert isinstance(made[How.CHANGED], Fresh)
    assert server.asked == [("POST", "/orders")]


def test_what_is_missing_or_too_old_is_not_accepted_on_recorded_answers(shop, server):
    for option in ("--golden-accept", "--golden-update-changed"):
        result = shop.run("--golden-max-age=1s", option)
        if result.ret:  # it may be recorded within the same second
            assert "expired" in said(result)
    shop.golden("test_shop").unlink()
    result = shop.run("--golden-accept")
    result.assert_outcomes(failed=1)
    assert "there is no golden run yet" in said(result)
    assert server.asked == []


def test_the_review_asks_whether_to_accept_or_to_make_what_changed(shop, server, monkeypatch):
    asked = []

    def answer(question):
        asked.append(question)
        return "n"

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr("machine.testing.golden_options._check_can_ask", lambda config: None)
    shop.change('sum(ctx["prices"])', 'max(ctx["prices"])', "shop.py")
    shop.run("--golden-review", "--golden-accept").assert_outcomes(failed=1)
    assert asked == ["accept it, on the recorded answers? y(es), n(o), a(ll of this cause), q(uit asking): "]
    assert server.asked == []
    shop.change('"/c"', '"/newer"', "shop.py")
    shop.run("--golden-review", "--golden-update-changed").assert_outcomes(failed=1)
    assert "with the calls that changed made for real?" in asked[1]
    assert server.asked == []


def test_two_ways_of_recording_are_refused(shop):
    result = shop.run("--golden-accept", "--golden-update-changed")
    assert "--golden-accept and --golden-update-changed record in different ways" in said(result)


def test_the_help_names_both(shop):
    text = " ".join(said(shop.run("--help")).split())
    assert "--golden-accept write anew the goldens that fail" in text
    assert "--golden-update-changed as --golden-update, but make only the calls that have changed" in text


# -- after a merge --------------------------------------------------------------------------------------------


def test_a_conflict_and_a_newer_golden_are_named_and_a_resealed_one_replays(shop, monkeypatch):
    golden = shop.golden("test_shop")
    whole = golden.read_text()
    lines = whole.split("\n")
    golden.write_text("\n".join(["<<<<<<< HEAD", lines[0], "=======", *lines, ">>>>>>> theirs", ""]))
    text = said(shop.run())
    assert "it has a conflict of a merge" in text
    assert "machine golden reseal" in text
    golden.write_text(whole.replace('"version":2', '"version":99'))
    for option in ([], ["--golden-update"]):
        text = said(shop.run(*option))
        assert "made by a newer version of machine: its format is 99" in text
        assert "hint: update machine" in text
        assert "--golden=record" not in text
    edited = re.sub(r"(state_completed) [0-9a-f]{8}", r"\1 00000000", whole.replace('"hash":"', '"hash":"0'))
    golden.write_text(edited)
    monkeypatch.chdir(shop.path)
    assert cli.main(["verify", "fixtures/test_shop.run"]) == 3
    assert cli.main(["golden", "reseal", "fixtures/test_shop.run"]) == 0, "the test replays it"
    assert golden.read_text() == whole
