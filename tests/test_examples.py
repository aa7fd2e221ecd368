"""The shipped examples, run as they are: live, replayed without what they read, edited, skipped, killed."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from decimal import Decimal
from pathlib import Path

import pytest

import machine
from machine import RunConfig, codec, new_run_id, open_store, replay, resume, run, verify
from machine.config import FanOutJoin, Limits, Sequential
from machine.io.files import FileTransport
from machine.io.request_fields import pack
from machine.io.transport import BaseTransport
from machine.kernel.history import fold
from machine.policy_file import read_policy
from machine.testing import crash_matrix

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
REPORT, PRICES = EXAMPLES / "repo_report.py", EXAMPLES / "price_watch.py"
SYMBOLS = ["ETH", "BTC", "SOL"]
ODD_NAMES = ["with space.txt", "naïve-日本.txt", "new\nline.txt", "pipe|`tick`.txt"]
WAIT = 30


def load(path):
    """Return an example as a fresh module, found by its path as a user's is."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def events(store, run_id):
    return [json.loads(stored.data)["event"] for stored in store.read_range(run_id)]


def wait_for(condition):
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """Git and HTTP as on a machine where nobody has configured anything."""
    for name in list(os.environ):
        if name.startswith("GIT_") or name.lower() in {"http_proxy", "https_proxy", "all_proxy"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


def git(folder, *args, name="Zoë Müller", day="2024-02-03"):
    about = {"NAME": name, "EMAIL": "someone@example.org", "DATE": f"{day}T12:00:00+00:00"}
    who = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in about.items()}
    argv = ["git", "-C", str(folder), *args]
    return subprocess.run(argv, env={**os.environ, **who}, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repo(tmp_path):
    """Make three commits by two authors in two months, a licence, and file names that break parsers."""
    folder = tmp_path / "a repo"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "LICENSE").write_text("MIT License\n\nPermission is hereby granted,\nfree of charge, to ...\n")
    (folder / "README.md").write_text("intro\n\n# The *Title*\n\ntext\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "First", day="2024-01-31")
    for size, name in enumerate(ODD_NAMES, 1):
        (folder / name).write_text("x" * 1000 * size)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Odd names", name="A | B")
    (folder / "sub").mkdir()
    (folder / "sub" / "LICENSE").write_text("not this one")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Third: ünïcode")
    return folder


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/runs.db"


@pytest.fixture
def store(url):
    with open_store(url) as opened:
        yield opened


@pytest.fixture
def asked(repo, tmp_path):
    """Return the input of a report on the repository."""
    return {"repo": str(repo), "out": str(tmp_path / "report.md")}


@pytest.fixture
def prices():
    return load(PRICES)


@pytest.fixture
def watched(tmp_path):
    """Return the input of a price watch, but for the server's address."""
    return {
        "symbols": SYMBOLS,
        "alert_below": {"ETH": "9999", "SOL": "1"},
        "out": str(tmp_path / "prices.md"),
    }


@pytest.fixture
def finished(request, store, asked, watched, prices):
    """Finish a run of either example, then take away what it read. Return the result and the example."""
    if request.param == "repo_report":
        result = run(load(REPORT).plan, input=asked, store=store)
        shutil.rmtree(asked["repo"])
        path = REPORT
    else:
        with prices.quote_server() as base_url:
            result = run(prices.plan, input={**watched, "base_url": base_url}, store=store)
        path = PRICES
    assert result.status == "completed", result.error
    return result, path


both = pytest.mark.parametrize("finished", ["repo_report", "price_watch"], indirect=True)


# -- live -------------------------------------------------------------------------------------------------


def test_the_report_says_what_is_in_the_repository(repo, store, asked):
    result = run(load(REPORT).plan, input=asked, store=store)
    assert result.status == "completed", result.error
    context = result.context
    assert context["commit"] == git(repo, "rev-parse", "HEAD").strip()
    assert context["authors"] == [["Zoë Müller", 2], ["A | B", 1]]
    assert context["months"] == [["2024-01", 1], ["2024-02", 2]]
    assert context["largest"][:4] == [[name, 1000 * size] for size, name in enumerate(ODD_NAMES, 1)][::-1]
    assert (context["licence_name"], context["licence_file"]) == ("MIT", "LICENSE")
    text = Path(asked["out"]).read_text(encoding="utf-8")
    assert text == context["report"]
    assert text.startswith("# Report on The \\*Title\\*\n")
    assert "- Commits: 3, from 2024-01-31 to 2024-02-03\n" in text
    assert "| 3,000 | new\\\\nline.txt |\n" in text
    assert f"Report {context['report_id']}, made at 20" in text


def test_the_report_emits_what_it_wrote(store, asked):
    result = run(load(REPORT).plan, input=asked, store=store)
    (emitted,) = [event for event in events(store, result.run_id) if event["type"] == "domain_event"]
    size = Path(asked["out"]).stat().st_size
    assert (emitted["name"], emitted["payload"]) == ("report_written", {"path": asked["out"], "bytes": size})


def test_the_report_is_written_to_the_current_directory_when_no_file_is_named(
    repo, tmp_path, store, monkeypatch
):
    monkeypatch.chdir(repo / "sub")
    result = run(load(REPORT).plan, input={"repo": "."}, store=store)
    assert (repo / "sub" / "report.md").read_text(encoding="utf-8") == result.context["report"]
    assert result.context["licence_name"] == "MIT", "files are found from any folder of the repository"


def test_a_repository_of_one_commit_without_any_file_has_a_report(tmp_path, store):
    git(tmp_path, "init", "-q", "bare-bones")
    git(tmp_path / "bare-bones", "commit", "-q", "--allow-empty", "--allow-empty-message", "-m", "")
    given = {"repo": str(tmp_path / "bare-bones"), "out": str(tmp_path / "report.md")}
    result = run(load(REPORT).plan, input=given, store=store)
    assert result.status == "completed", result.error
    assert "- Licence: none found\n" in result.context["report"]
    assert result.context["report"].startswith("# Report on bare-bones\n")


@pytest.mark.parametrize("how", [["--depth", "1"], ["--bare"]], ids=["shallow", "bare"])
def test_a_clone_of_any_kind_has_a_report(how, repo, tmp_path, store, asked):
    git(tmp_path, "clone", "-q", *how, f"file://{repo}", "clone")
    result = run(load(REPORT).plan, input={**asked, "repo": str(tmp_path / "clone")}, store=store)
    assert result.status == "completed", result.error
    assert ("this clone is shallow" in result.context["report"]) == ("--depth" in how)
    assert len(result.context["commits"]) == (1 if "--depth" in how else 3)


def _no_commits(folder, _):
    git(folder, "init", "-q")


def _someone_elses(folder, monkeypatch):
    git(folder, "init", "-q")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (_no_commits, "does not have any commits yet"),
        (lambda *_: None, "not a git repository"),
        (lambda folder, _: folder.rmdir(), "No such file or directory"),
        (_someone_elses, "safe.directory"),
    ],
    ids=["no commits", "no repository", "no folder", "someone else's"],
)
def test_what_git_refuses_fails_the_run_in_its_own_words(prepare, says, tmp_path, store, monkeypatch):
    folder = tmp_path / "refused"
    folder.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    prepare(folder, monkeypatch)
    plan = load(REPORT).plan
    result = run(plan, input={"repo": str(folder), "out": str(tmp_path / "report.md")}, store=store)
    assert result.status == "failed"
    assert says in result.error.message
    assert not (tmp_path / "report.md").exists()
    assert replay(result.run_id, plan=plan, store=store).identical, "a failure is replayed like a success"


def test_a_busy_server_is_asked_again_and_the_prices_stay_exact(prices, store, watched):
    with prices.quote_server() as base_url:
        result = run(prices.plan, input={**watched, "base_url": base_url}, store=store)
    assert result.status == "completed", result.error
    log = events(store, result.run_id)
    (retry,) = [event for event in log if event["type"] == "retry_scheduled"]
    assert (retry["state_id"], retry["attempt"], retry["delay_ms"]) == ("price_watch.collect.quotes", 1, 50)
    failed = next(event for event in log if event["type"] == "state_failed")
    assert failed["error"]["code"] == "http_status"
    for quote, row in zip(result.context["quotes"], result.context["rows"], strict=True):
        known = [Decimal(price) for price in quote["prices"]]
        assert row[:3] == [quote["symbol"], str(min(known)), str(max(known))]
        assert row[3] == str((sum(known) / 5).quantize(Decimal("0.01")))
    alerts = [event["payload"]["symbol"] for event in log if event.get("name") == "price_alert"]
    assert alerts == ["ETH"]
    assert Path(watched["out"]).read_text(encoding="utf-8") == result.context["report"]


def test_two_live_runs_differ_and_each_replays_as_itself(prices, store, watched):
    with prices.quote_server() as base_url:
        results = [run(prices.plan, input={**watched, "base_url": base_url}, store=store) for _ in range(2)]
    assert results[0].digest != results[1].digest
    for result in results:
        assert replay(result.run_id, plan=prices.plan, store=store).digest == result.digest


def test_a_symbol_that_is_not_there_is_not_asked_for_again(prices, store, watched):
    with prices.quote_server() as base_url:
        given = {**watched, "base_url": base_url, "symbols": ["NOPE"]}
        result = run(prices.plan, input=given, store=store)
    assert (result.status, result.error.code) == ("failed", "http_status")
    assert "retry_scheduled" not in [event["type"] for event in events(store, result.run_id)]


def test_a_server_that_is_gone_fails_the_run_after_three_attempts(prices, store, watched):
    with prices.quote_server() as base_url:
        pass
    result = run(prices.plan, input={**watched, "base_url": base_url}, store=store)
    assert (result.status, result.error.code) == ("failed", "http_connect")
    assert [event["type"] for event in events(store, result.run_id)].count("state_failed") == 3
    assert replay(result.run_id, plan=prices.plan, store=store).identical


def test_the_price_watch_tells_its_whole_story_when_it_is_run_as_a_script(tmp_path):
    told = subprocess.run(
        [sys.executable, PRICES],
        cwd=tmp_path,
        env=_env(),
        check=True,
        capture_output=True,
        text=True,
        timeout=WAIT,
    )
    assert "identical=True" in told.stdout
    assert told.stdout.count("| BTC |") == 2
    assert told.stderr == ""
    assert list(tmp_path.iterdir()) == [], "it leaves nothing behind"


INTERRUPTIBLE = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job is born ignoring it
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_server_of_the_price_watch_serves_until_it_is_interrupted():
    argv = [sys.executable, "-c", INTERRUPTIBLE, PRICES, "serve", "--port", "0"]
    with subprocess.Popen(
        argv, env=_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            address = server.stdout.readline().split()[-1]
            with urllib.request.urlopen(address, timeout=WAIT) as answer:
                assert json.load(answer)["symbol"] == "ETH"
            server.send_signal(signal.SIGINT)
            assert server.wait(WAIT) == 0
            assert server.stderr.read() == ""
        finally:
            server.kill()


REFUND = EXAMPLES / "refund.py"


def refunded(store, amount=240_00, **options):
    """Run the example against its bank; return the result and the bank as it was left."""
    refund = load(REFUND)
    with refund.bank() as server:
        given = {"base_url": server.address, "order": 7, "amount": amount}
        return run(refund.plan, input=given, store=store, clock="skip", **options), server


def test_a_refund_is_approved_paid_once_and_settled(store):
    answers = {"refund-approval": {"approved": True, "by": "ada"}, "settled": {"at": "today"}}
    result, server = refunded(store, answers=answers)
    assert (result.status, result.context["by"], result.context["settled"]) == (
        "completed",
        "ada",
        {"at": "today"},
    )
    assert server.refunds == {"refund/7": "R1"}
    assert replay(result.run_id, plan=load(REFUND).plan, store=store).identical


@pytest.mark.parametrize("answers", [{"refund-approval": False}, {}], ids=["rejected", "nobody answers"])
def test_a_refund_without_approval_pays_nothing(answers, store):
    result, server = refunded(store, answers=answers)
    assert (result.status, result.context["approved"]) == ("completed", False)
    assert not server.refunds


def test_a_small_refund_asks_nobody_and_waits_for_the_bank_alone(store):
    result, server = refunded(store, amount=10_00)
    assert result.status == "suspended"
    assert [wait.type for wait in result.waits] == ["signal"]
    assert server.refunds


# -- replayed ---------------------------------------------------------------------------------------------


@both
def test_a_replay_needs_nothing_that_the_run_read_and_writes_nothing(finished, store):
    result, path = finished
    Path(result.context["out"]).unlink()
    before = len(events(store, result.run_id))
    again = replay(result.run_id, plan=load(path).plan, store=store)
    assert again.identical, again.divergence
    assert again.digest == result.digest
    assert verify(result.run_id, store=store).ok
    assert not Path(result.context["out"]).exists()
    assert len(events(store, result.run_id)) == before


CHILD = """
import importlib.util, json, sys
path, url, run_id = sys.argv[1:]
spec = importlib.util.spec_from_file_location("example", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
import machine
with machine.open_store(url) as store:
    again = machine.replay(run_id, plan=module.plan, store=store)
    print(json.dumps({**again.to_json(), "verified": machine.verify(run_id, store=store).ok}))
"""


def _env(**more):
    return {**os.environ, "PYTHONPATH": str(Path(machine.__file__).parent.parent), **more}


def _replayed_elsewhere(result, path, url, folder, *prefix):
    folder.mkdir()
    argv = [*prefix, sys.executable, "-c", CHILD, path, url, result.run_id]
    env = _env(PYTHONHASHSEED="4711", TZ="Asia/Kathmandu", LC_ALL="C")
    done = subprocess.run(
        argv, cwd=folder, env=env, capture_output=True, text=True, timeout=WAIT, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@both
def test_another_process_hash_seed_directory_and_time_zone_give_the_same_replay(finished, url, tmp_path):
    result, path = finished
    again = _replayed_elsewhere(result, path, url, tmp_path / "elsewhere")
    assert again["identical"], again["divergence"]
    assert (again["digest"], again["verified"]) == (result.digest, True)


@both
def test_a_replay_needs_no_network(finished, url, tmp_path):
    unplugged = ("unshare", "-rn")
    try:
        subprocess.run([*unplugged, "true"], check=True, capture_output=True, timeout=WAIT)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("this machine does not let a process unplug its network (unshare -rn)")
    result, path = finished
    again = _replayed_elsewhere(result, path, url, tmp_path / "unplugged", *unplugged)
    assert again["identical"], again["divergence"]
    assert again["digest"] == result.digest


# -- the same facts ---------------------------------------------------------------------------------------


class Scripted(BaseTransport):
    """A transport whose answers are a pure function of namespace and request."""

    def __init__(self, answer):
        self.answer = answer

    async def perform(self, namespace, request):
        return self.answer(namespace, request)


class Written(FileTransport):
    """The real files, and a list of what was written."""

    def __init__(self):
        self.writes = []

    async def perform(self, namespace, request):
        if namespace == "file.write":
            self.writes.append((request["path"], request["data"]))
        return await super().perform(namespace, request)


def fixed(*, now=1_700_000_000_000):
    """Transports for a clock and a source of randomness that stand still."""
    return {
        "clock": Scripted(lambda *_: now),
        "random": Scripted(lambda _, request: {"hex": "ab" * request["bytes"]}),
    }


def _git_said(namespace, request):
    answers = {
        "log": "2024-02-03\tOne\x002024-01-31\tTwo\x00"
        if "-z" in request["argv"]
        else f"{'0' * 40}\tSubject\n",
        "rev-parse": "false\n\n",
        "ls-tree": f"100644 blob {'1' * 40}      12\tREADME\x00",
    }
    said = next(text for command, text in answers.items() if command in request["argv"])
    return {"returncode": 0, "stdout": pack(said.encode()), "stderr": pack(b"")}


def _a_file(namespace, request):
    if namespace == "file.write":
        return {"bytes": len(request["data"]["text"].encode())}
    return {"path": request["path"], "data": pack(b"# Scripted\n")}


class Server:
    """A server that is busy once, and then answers the same for ever."""

    def __init__(self):
        self.calls = 0

    def __call__(self, _, request):
        self.calls += 1
        symbol = request["url"].rpartition("/")[2]
        body = json.dumps({"symbol": symbol, "prices": ["1.10", "2.20", "3.30"]}).encode()
        return {
            "status": 503 if self.calls == 2 else 200,
            "url": request["url"],
            "headers": [],
            "body": pack(body),
        }


def scripted(path, **change):
    own = {"exec": Scripted(_git_said)} if path == REPORT else {"http": Scripted(Server())}
    return {**own, "file": Scripted(_a_file), **fixed(**change)}


@pytest.mark.parametrize("path", [REPORT, PRICES], ids=lambda path: path.stem)
def test_two_runs_fed_the_same_facts_have_the_same_digest(path, store):
    given = {"repo": "anywhere", "base_url": "http://nowhere.invalid", "symbols": SYMBOLS}

    def once(into, **change):
        result = run(load(path).plan, input=given, store=into, transports=scripted(path, **change))
        assert result.status == "completed", result.error
        return result

    with open_store("memory://") as other:
        first, second, third = once(store), once(other), once(other, now=1_700_000_001_000)
    assert first.run_id != second.run_id
    assert (first.digest, first.final_snapshot_id) == (second.digest, second.final_snapshot_id)
    assert first.digest != third.digest, "another fact is another digest"


# -- edited -----------------------------------------------------------------------------------------------


EDITS = {
    "repo_report": ("compute.contents", "-file[1])[:10]", "-file[1])[:1]"),
    "price_watch": ("compute.summary", "min(quote.prices)", "max(quote.prices)"),
}


@both
def test_editing_one_line_of_a_handler_is_found_and_the_state_named(finished, store, tmp_path):
    result, path = finished
    state, line, edited = EDITS[path.stem]
    source = path.read_text(encoding="utf-8")
    assert source.count(line) == 1
    changed = tmp_path / "edited.py"
    changed.write_text(source.replace(line, edited), encoding="utf-8")
    again = replay(result.run_id, plan=load(changed).plan, store=store)
    assert not again.identical
    assert again.divergence.state_id == f"{path.stem}.{state}"
    assert again.divergence.cause == "state_code_changed"


@both
def test_editing_a_comment_changes_nothing(finished, store, tmp_path):
    result, path = finished
    changed = tmp_path / "edited.py"
    changed.write_text(f"# a word\n{path.read_text(encoding='utf-8')}", encoding="utf-8")
    assert replay(result.run_id, plan=load(changed).plan, store=store).identical


# -- skipped ----------------------------------------------------------------------------------------------


def test_a_dry_run_computes_the_report_and_writes_no_file(store, asked):
    plan = load(REPORT).plan
    result = run(plan, input=asked, store=store, config=RunConfig(skip_tags=["apply_side_effect"]))
    assert result.status == "completed"
    assert result.context["report"].startswith("# Report on")
    assert not Path(asked["out"]).exists()
    assert "effect_intended" not in [event["type"] for event in events(store, result.run_id)]
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_dry_run_of_the_price_watch_fetches_and_writes_no_file(prices, store, watched):
    dry = RunConfig(skip_tags=["apply_side_effect"])
    with prices.quote_server() as base_url:
        result = run(prices.plan, input={**watched, "base_url": base_url}, store=store, config=dry)
    assert (result.status, len(result.context["rows"])) == ("completed", 3)
    assert not Path(watched["out"]).exists()


# -- killed -----------------------------------------------------------------------------------------------


SLOW = """
import importlib.util, json, sys, time
sys.path.insert(0, sys.argv[1])
import test_examples as tests
from machine import open_store, run

slow, url, run_id, given = sys.argv[2:]
transports = tests.fixed()
inner = {**transports, "file": tests.FileTransport()}[slow]

class Slow(tests.FileTransport):
    async def perform(self, namespace, request):
        answer = await inner.perform(namespace, request)
        if namespace != "file.read":
            print("slow", flush=True)
            time.sleep(600)
        return answer

with open_store(url) as store:
    run(tests.load(tests.REPORT).plan, input=json.loads(given), store=store, run_id=run_id,
        transports={**transports, slow: Slow()})
"""


def _killed(slow, url, given, durable):
    """Start a report whose clock or file hangs after it has answered; SIGKILL it there; return its id."""
    run_id = str(new_run_id())
    argv = [sys.executable, "-c", SLOW, Path(__file__).parent, slow, url, run_id, json.dumps(given)]
    with subprocess.Popen(argv, env=_env(), stdout=subprocess.PIPE, text=True) as child:
        watchdog = threading.Timer(WAIT, child.kill)
        watchdog.start()
        try:
            assert child.stdout.readline() == "slow\n"
            with open_store(url) as store:
                wait_for(lambda: any(durable(event) for event in events(store, run_id)))
        finally:
            child.kill()
            watchdog.cancel()
            assert child.wait(WAIT) == -signal.SIGKILL
    return run_id


@pytest.mark.parametrize(
    ("slow", "last", "intents"),
    [("clock", "state_entered", 1), ("file", "effect_intended", 2)],
    ids=["before the effect", "between the effect and its record"],
)
def test_a_killed_report_is_resumed_to_the_same_result(slow, last, intents, url, store, asked):
    state = "repo_report.report.render" if slow == "clock" else "repo_report.report.write"
    run_id = _killed(slow, url, asked, lambda event: (event["type"], event.get("state_id")) == (last, state))
    left = Path(asked["out"]).read_bytes() if slow == "file" else None
    assert Path(asked["out"]).exists() == (slow == "file")

    plan, files = load(REPORT).plan, Written()
    result = resume(run_id, plan=plan, store=store, transports={**fixed(), "file": files})
    assert result.status == "completed", result.error
    text = Path(asked["out"]).read_bytes()
    assert left in {None, text}, "what is sent again is what was sent before"
    assert files.writes == [(asked["out"], pack(text))]
    written = [event for event in events(store, run_id) if event.get("name") == "report_written"]
    assert len(written) == 1
    assert [event["type"] for event in events(store, run_id)].count("effect_intended") == intents
    assert replay(run_id, plan=plan, store=store).identical
    assert verify(run_id, store=store).ok

    straight = run(plan, input=asked, store=store, transports=fixed())
    assert result.final_snapshot_id == straight.final_snapshot_id
    assert resume(run_id, plan=plan, store=store).digest == result.digest, (
        "a run that has ended stays as it is"
    )


# -- the trip that is booked, and cancelled in reverse order ------------------------------------------------


@pytest.fixture
def trip(tmp_path):
    """Return the example, and what makes the input of a trip some part of which is sold out."""
    module = load(EXAMPLES / "booking.py")

    def desk(*sold_out):
        path = tmp_path / "desk.json"
        path.write_text(json.dumps({"done": [], "sold_out": sold_out}))
        return {"desk": str(path), "trip": "oslo"}

    return module, desk


def done(given):
    return [key.partition("/")[2] for key in json.loads(Path(given["desk"]).read_text())["done"]]


@pytest.mark.parametrize("mode", [Sequential(), FanOutJoin(3)], ids=["sequential", "concurrent"])
@pytest.mark.parametrize(
    ("part", "then"),
    [
        ("flight", []),
        ("hotel", ["flight", "no flight"]),
        ("car", ["flight", "hotel", "no hotel", "no flight"]),
        ("nothing", ["flight", "hotel", "car"]),
    ],
)
def test_what_was_booked_is_cancelled_in_reverse_order(trip, mode, part, then):
    module, desk = trip
    given = desk(part)
    with open_store("memory://") as store:
        result = run(module.plan, input=given, store=store, config=RunConfig(execution_mode=mode))
        assert result.status == ("completed" if part == "nothing" else "failed")
        assert done(given) == then
        assert result.skipped == (() if part == "flight" else ("booking.tell.weather",))
        assert replay(result.run_id, plan=module.plan, store=store).identical
        assert verify(result.run_id, store=store).problems == ()
    assert done(given) == then  # a replay books and cancels nothing


@pytest.mark.slow
def test_a_trip_that_fails_is_killed_everywhere_and_cancelled_all_the_same(trip):
    module, desk = trip
    matrix = crash_matrix(
        module.plan, input=desk("car"), faults=["killed_before_append", "killed_after_return"]
    )
    assert matrix.safe, matrix.render()


# -- the research agent ----------------------------------------------------------------------------------------

AGENT = EXAMPLES / "research_agent.py"


def usage_of(store, run_id):
    return fold(codec.decode_entry(event.seq, event.data) for event in store.read_range(run_id)).usage


@pytest.mark.parametrize(
    ("limits", "asked", "used"),
    [
        ({}, 6, (2100, 300, "0.006375")),
        ({"tokens": 1200}, 4, (1000, 200, "0.00375")),  # reached exactly
        ({"tokens": 1000}, 4, (1000, 200, "0.00375")),
        ({"cost": "0.002"}, 3, (600, 150, "0.002625")),
        ({"tokens": 1}, 1, (100, 50, "0.00075")),
    ],
)
def test_the_agent_stops_at_its_budget_and_its_cost_is_right(monkeypatch, limits, asked, used):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    example = load(AGENT)
    with open_store("memory://") as store:
        with example.model() as server:
            given = {"base_url": server.address, "question": "What?"}
            result = run(example.plan, input=given, store=store, config=RunConfig(limits=Limits(**limits)))
            assert server.paths.count("/v1/chat/completions") == asked
            assert server.paths.count("/reports") == (not limits)
        assert result.status == ("limit_exceeded" if limits else "completed"), result.error
        usage = usage_of(store, result.run_id)
        assert (usage.input_tokens, usage.output_tokens, usage.of("cost")) == used
        assert replay(result.run_id, plan=example.plan, store=store).identical


def test_the_policy_of_the_agent_asks_before_the_report_is_sent(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    example, path = load(AGENT), AGENT.with_suffix(".toml")
    config = RunConfig(policy=read_policy(str(path), path.read_bytes()))
    with open_store("memory://") as store, example.model() as server:
        given = {"base_url": server.address, "question": "What?"}
        result = run(example.plan, input=given, store=store, config=config)
        assert (result.status, server.paths.count("/reports")) == ("suspended", 0)
        machine.approve(result.run_id, store=store)
        result = resume(result.run_id, plan=example.plan, store=store)
        assert (result.status, server.paths.count("/reports")) == ("completed", 1)
        assert replay(result.run_id, plan=example.plan, store=store).identical
