"""A replay touches nothing: what reaches the outside without io is refused, whatever the recording allowed."""

# The plain calls, not pathlib, are what is tested.
# ruff: noqa: PTH102, PTH104, PTH108, PTH109, PTH123, PTH208, PTH211

from __future__ import annotations

import _thread
import asyncio
import concurrent.futures
import contextlib
import contextvars
import http.client
import inspect
import io as memory
import json
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import weakref
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio
import httpx
import pytest

import machine
from machine import Plan, RunConfig, compare, open_store, replay, run, schedules
from machine.config import FanOutJoin
from machine.recordings.divergence_text import lines as lines_of
from machine.target import load
from machine.testing.golden_options import asked_of
from machine.watch.watch import ALLOWED


class Counting(BaseHTTPRequestHandler):
    """Counts what it is sent."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.hits += 1
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Counting) as http_server:
        http_server.hits = 0
        http_server.daemon_threads = True
        thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield http_server
        http_server.shutdown()
        thread.join()


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "there").write_text("there")
    (tmp_path / "folder").mkdir()
    tempfile.gettempdir()  # looks where it can write, once
    return tmp_path


def appended(line="x"):
    with open("log", "a") as file:
        file.write(f"{line}\n")


def in_database(name="data.db"):
    with contextlib.closing(sqlite3.connect(name)) as db:
        db.execute("create table if not exists t (x)")
        db.execute("insert into t values (1)")
        db.commit()


def posted(port):
    urllib.request.urlopen(f"http://127.0.0.1:{port}/", data=b"x").close()


def sent(port):
    with socket.create_connection(("127.0.0.1", port)) as one:
        one.sendall(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        one.recv(4096)


def requested(port):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/")
    connection.getresponse().read()
    connection.close()


def unwatched(function, *args):
    """Do it in a thread, as code that waits for no answer does."""
    thread = threading.Thread(target=function, args=args)
    thread.start()
    thread.join()


def pooled(function, *args):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(function, *args).result()


def bare(function, *args):
    """Do it in a context in which nothing is set."""
    contextvars.Context().run(function, *args)


CONTEXTS = []


def in_kept_context(function, *args):
    """Do it in the context of the handler that was the first to do so."""
    CONTEXTS[:] = CONTEXTS or [contextvars.copy_context()]
    CONTEXTS[0].copy().run(function, *args)


def driven(function, *args):
    """Do it in a task without a context, on an event loop of its own."""

    async def act():
        function(*args)

    with asyncio.Runner() as runner:
        runner.run(act(), context=contextvars.Context())


def encrypted(port):
    context = ssl._create_unverified_context()
    with contextlib.suppress(OSError), context.wrap_socket(socket.socket()) as one:
        one.settimeout(0.2)
        one.connect(("127.0.0.1", port))


def certified(port):
    with contextlib.suppress(OSError):
        ssl.get_server_certificate(("127.0.0.1", port), timeout=0.2)


def finished(function, *args):
    owner = threading.Event()
    weakref.finalize(owner, function, *args)()


class Asked:
    """Acts when somebody looks at it."""

    @property
    def member(self):
        return appended()


CLIENT = httpx.Client(trust_env=False)
ENDS = socket.socketpair()


def sent_from_file(port):
    """Send with what copies from descriptor to descriptor in the kernel, which Python does not announce."""
    with open("there", "rb") as file:
        os.sendfile(ENDS[0].fileno(), file.fileno(), 0, 5)


def signalled(port):
    descriptor = os.pidfd_open(os.getpid())
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGCONT)
    finally:
        os.close(descriptor)


def initialised(function):
    with concurrent.futures.ThreadPoolExecutor(1, initializer=function) as pool:
        pool.submit(int).result()


def bare_thread(function):
    done = threading.Event()

    def act():
        with contextlib.suppress(BaseException):
            function()
        done.set()

    _thread.start_new_thread(act, ())
    done.wait()


KEPT = concurrent.futures.ThreadPoolExecutor(1)


def another(kind):
    process = multiprocessing.get_context(kind).Process(target=os.mkdir, args=(f"made-{time.time_ns()}",))
    process.start()
    process.join()


PLAIN = {
    "os.system": lambda port: os.system("echo x >> log"),
    "os.popen": lambda port: os.popen("echo x >> log").close(),
    "subprocess": lambda port: subprocess.run(["sh", "-c", "echo x >> log"], check=True),
    "os.posix_spawn": lambda port: os.waitpid(
        os.posix_spawn("/bin/sh", ["sh", "-c", "echo x >> log"], dict(os.environ)), 0
    ),
    "open": lambda port: appended(),
    "pathlib": lambda port: Path("log").write_text(str(time.time_ns())),
    "os.open": lambda port: os.close(os.open("log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)),
    "shutil.copy": lambda port: shutil.copy("there", f"copy-{time.time_ns()}"),
    "shutil.copytree": lambda port: shutil.copytree("folder", f"copy-{time.time_ns()}"),
    "os.mkdir": lambda port: os.mkdir(f"made-{time.time_ns()}"),
    "os.rename": lambda port: os.rename(
        next(str(path) for path in Path().iterdir() if path.name.startswith("there")),
        f"there-{time.time_ns()}",
    ),
    "a temporary file elsewhere": lambda port: os.close(tempfile.mkstemp(dir=".")[0]),
    "sqlite": lambda port: in_database(),
    "urllib": posted,
    "a raw socket": sent,
    "http.client": requested,
    "a thread": lambda port: unwatched(posted, port),
    "a thread in a thread": lambda port: unwatched(unwatched, posted, port),
    "a pool of threads": lambda port: pooled(posted, port),
    "a pool that was there before": lambda port: KEPT.submit(posted, port).result(),
    "a context of its own": lambda port: bare(appended),
    "a context of another handler": lambda port: in_kept_context(appended),
    "a context of its own in a thread": lambda port: unwatched(bare, appended),
    "a context of its own in a pool": lambda port: pooled(bare, appended),
    "a thread in a context of its own": lambda port: bare(unwatched, appended),
    "a pool in a context of its own": lambda port: bare(pooled, appended),
    "a loop of its own in a thread": lambda port: unwatched(driven, appended),
    "a process that is forked": lambda port: another("fork"),
    "a process that is spawned": lambda port: another("spawn"),
    "a socket with TLS": encrypted,
    "a certificate": certified,
    "a finaliser that is called": lambda port: finished(appended),
    "a finaliser of the system's": lambda port: finished(os.mkdir, f"made-{time.time_ns()}"),
    "what is looked at": lambda port: inspect.getmembers(Asked()),
    "sqlite, by a telling name": lambda port: in_database("a?name=memory&mode=memory.db"),
    "a connection that was open before": lambda port: CLIENT.post(f"http://127.0.0.1:{port}/"),
    "the initializer of a pool": lambda port: initialised(appended),
    "a thread of _thread": lambda port: bare_thread(appended),
    "a chdir before": lambda port: (os.chdir("."), appended()),
    "os.mkfifo": lambda port: os.mkfifo(f"made-{time.time_ns()}"),
    "os.mkfifo by a keyword": lambda port: os.mkfifo(mode=0o600, path=f"made-{time.time_ns()}"),
    "os.mknod": lambda port: os.mknod(f"made-{time.time_ns()}"),
    "os.sendfile": sent_from_file,
    "signal.pidfd_send_signal": signalled,
}


async def connected(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    await reader.read(100)
    writer.close()


async def programmed(port):
    await (await asyncio.create_subprocess_exec("sh", "-c", "echo x >> log")).wait()


async def handed(port):
    await asyncio.get_running_loop().run_in_executor(None, posted, port)


async def gathered(port):
    await asyncio.gather(asyncio.to_thread(posted, port), asyncio.sleep(0), return_exceptions=True)


async def resumed(port):
    await asyncio.sleep(0)
    bare(appended)


async def left(port):
    task = asyncio.create_task(connected(port))
    with contextlib.suppress(Exception):
        await task


AWAITED = {
    "asyncio.open_connection": connected,
    "asyncio.create_subprocess": programmed,
    "asyncio.to_thread": lambda port: asyncio.to_thread(posted, port),
    "run_in_executor": handed,
    "anyio.to_thread": lambda port: anyio.to_thread.run_sync(posted, port),
    "gather that keeps exceptions": gathered,
    "a task": left,
    "a context of its own after a wait": resumed,
    "a context of its own to_thread": lambda port: asyncio.to_thread(bare, appended),
}


def planned(act, port, *, plain, hides):
    plan = Plan("op", version="1")

    if plain:

        @plan.state("step.state")
        def handle(ctx, io, rec):
            if hides:
                with contextlib.suppress(BaseException):
                    act(port)
            else:
                act(port)
            ctx["at"] = io.now()

    else:

        @plan.state("step.state")
        async def handle(ctx, io, rec):
            if hides:
                with contextlib.suppress(BaseException):
                    await act(port)
            else:
                await act(port)
            ctx["at"] = await io.now()

    return plan


def outside(place, server):
    """Return all that can be seen from outside."""
    files = [
        (str(path.relative_to(place)), path.read_bytes() if path.is_file() else None)
        for path in sorted(place.rglob("*"))
        if path.suffix != ".db"
    ]
    rows = 0
    if (place / "data.db").exists():
        with contextlib.closing(sqlite3.connect(place / "data.db")) as db:
            rows = db.execute("select count(*) from t").fetchone()[0]
    return server.hits, files, rows


EVERY = [(name, act, True) for name, act in PLAIN.items()] + [
    (name, act, False) for name, act in AWAITED.items()
]


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning", "ignore::DeprecationWarning"
)
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("hides", [False, True], ids=["", "hidden"])
@pytest.mark.parametrize("recorded", ["warn", "allow"])
@pytest.mark.parametrize(("name", "act", "plain"), EVERY, ids=[name for name, _, _ in EVERY])
def test_what_a_handler_does_without_io_is_not_done_again(place, server, name, act, plain, recorded, hides):
    plan = planned(act, server.server_port, plain=plain, hides=hides)
    with open_store("memory://") as store:
        result = run(plan, store=store, config=RunConfig(undeclared_io=recorded))
        assert result.status == "completed", result.error
        before = outside(place, server)
        found = replay(result.run_id, plan=plan, store=store)
    assert outside(place, server) == before, "the replay did it again"
    assert found.divergence is not None
    assert (found.divergence.kind, found.divergence.state_id) == ("undeclared_io", "op.step.state")
    assert found.divergence.attempt == 0


def test_the_divergence_says_what_where_what_instead_and_the_way_out(place, server):
    plan = Plan("op", version="1")

    @plan.state("step.state")
    def handle(ctx, io, rec):
        appended()

    line = appended.__code__.co_firstlineno + 1
    with open_store("memory://") as store:
        run_id = run(plan, store=store).run_id
        divergence = replay(run_id, plan=plan, store=store).divergence
    assert divergence.summary == (
        f"the handler opens for writing 'log' without io at test_touches_nothing.py:{line}, which a replay refuses"
    )
    assert divergence.now["remedy"] == 'use "io.write_file(path, data)"'
    text = " ".join(" ".join(lines_of(divergence)).split())
    assert '"io.write_file(path, data)"; a replay does it again only with --undeclared-io allow' in text
    assert "is in no recording" in text


def test_only_allow_of_the_replay_itself_does_it_again(place):
    plan = Plan("op", version="1")
    plan.state("step.state")(lambda ctx, io, rec: appended())
    with open_store("memory://") as store:
        run_id = run(plan, store=store, config=RunConfig(undeclared_io="allow")).run_id
        for chosen, lines in ((None, 1), ("warn", 1), ("error", 1), ("allow", 2)):
            found = replay(run_id, plan=plan, store=store, undeclared_io=chosen)
            assert (found.identical, len(Path("log").read_text().splitlines())) == (lines == 2, lines)


def test_what_is_read_is_read_again_as_it_was_allowed_to_be(place):
    plan = Plan("op", version="1")

    @plan.state("step.state")
    def handle(ctx, io, rec):
        assert time.time() > 0
        ctx["text"] = Path("there").read_text()
        ctx["listed"] = len(os.listdir("folder"))

    with open_store("memory://") as store:
        for allowed in ("warn", "allow"):
            run_id = run(plan, store=store, config=RunConfig(undeclared_io=allowed)).run_id
            assert replay(run_id, plan=plan, store=store).identical


@pytest.mark.golden(allow=["socket.connect", "socket.getaddrinfo"])
def test_a_test_that_may_connect_may_send_on_what_it_has_connected(place, server, request):
    plan = planned(sent, server.server_port, plain=True, hides=False)
    token = ALLOWED.set(frozenset(asked_of(request.node).allow))
    try:
        with open_store("memory://") as store:
            run_id = run(plan, store=store).run_id
            assert replay(run_id, plan=plan, store=store).identical
    finally:
        ALLOWED.reset(token)
    assert server.hits == 2


def test_what_was_refused_when_it_was_recorded_is_refused_alike_and_identical(place):
    plan = Plan("op", version="1")
    plan.state("step.state")(lambda ctx, io, rec: appended())
    with open_store("memory://") as store:
        result = run(plan, store=store, config=RunConfig(undeclared_io="error"))
        assert result.status == "failed"
        assert replay(result.run_id, plan=plan, store=store).identical


def in_memory():
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.execute("create table t (x)")
    memory.BytesIO().write(b"x")


def temporary():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "one").write_text("one")
        Path(folder, "sub").mkdir()
        os.rename(Path(folder, "one"), Path(folder, "sub", "two"))
        shutil.copy(Path(folder, "sub", "two"), Path(folder, "three"))
        assert Path(folder, "three").read_text() == "one"
        shutil.rmtree(Path(folder, "sub"))
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x")
    with tempfile.TemporaryFile() as file:
        file.write(b"x")
    descriptor, path = tempfile.mkstemp()
    os.close(descriptor)
    os.unlink(path)


def told():
    print("said")
    handler = logging.FileHandler("handler.log", delay=True)
    logging.getLogger("test").addHandler(handler)
    logging.getLogger("test").warning("said")
    logging.getLogger("test").removeHandler(handler)
    handler.close()


INSIDE = {"in memory": in_memory, "temporary files": temporary, "stdout and logs": told}


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
@pytest.mark.parametrize("mode", ["allow", "warn", "error"])
@pytest.mark.parametrize("act", INSIDE.values(), ids=INSIDE)
def test_what_stays_with_the_attempt_is_no_effect(place, act, mode, plain):
    plan = Plan("op", version="1")

    async def coroutine(ctx, io, rec):
        act()

    plan.state("step.state")((lambda ctx, io, rec: act()) if plain else coroutine)
    with open_store("memory://") as store:
        result = run(plan, store=store, config=RunConfig(undeclared_io=mode))
        assert result.status == "completed", result.error
        assert replay(result.run_id, plan=plan, store=store).identical


def test_a_way_out_of_a_temporary_folder_is_found(place):
    plan = Plan("op", version="1")

    @plan.state("step.state")
    def handle(ctx, io, rec):
        with tempfile.TemporaryDirectory() as folder:
            os.symlink(os.getcwd(), Path(folder, "out"))
            appended_to = Path(folder, "out", f"made-{time.time_ns()}")
            appended_to.write_text("x")

    with open_store("memory://") as store:
        run_id = run(plan, store=store).run_id
        assert replay(run_id, plan=plan, store=store).divergence.now["event"] == "open"
    assert len([path for path in place.iterdir() if path.name.startswith("made")]) == 1


# -- every way of replaying ----------------------------------------------------------------------------------


@pytest.fixture
def planned_in_a_file(place):
    (place / "effects.py").write_text(
        "from machine import Plan\n"
        "plan = Plan('op', version='1')\n"
        "@plan.state('step.one')\n"
        "async def one(ctx, io, rec):\n"
        "    with open('log', 'a') as file:\n"
        "        file.write('x')\n"
        "@plan.state('step.two')\n"
        "async def two(ctx, io, rec):\n"
        "    ctx['at'] = await io.now()\n"
    )
    return place


def machine_says(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "machine", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.slow
def test_every_command_that_replays_refuses(planned_in_a_file):
    log = planned_in_a_file / "log"
    made = machine_says("run", "effects.py", "--json")
    assert (made.returncode, log.read_text()) == (0, "x"), made.stderr
    run_id = json.loads(made.stdout)["run_id"]
    assert machine_says("export", run_id, "--output", "one.run").returncode == 0
    once = ("replay", run_id), ("replay", "one.run"), ("replay", "--all"), ("replay", "--all", "--jobs", "2")
    for arguments in (*once, ("compare", run_id), ("doctor", run_id)):
        found = machine_says(*arguments)
        assert (found.returncode, log.read_text()) == (1, "x"), (arguments, found.stdout, found.stderr)
        assert "opens for writing 'log'" in found.stdout + found.stderr, arguments
    allowed = machine_says("replay", run_id, "--undeclared-io", "allow")
    assert (allowed.returncode, log.read_text()) == (0, "xx"), allowed.stdout


def test_compare_and_schedules_refuse_and_name_the_state(planned_in_a_file):
    loaded = load("effects.py", str(planned_in_a_file))
    log = planned_in_a_file / "log"
    with open_store("memory://") as store:
        run_id = run(
            loaded.plan, store=store, config=RunConfig(execution_mode=FanOutJoin(max_concurrency=2))
        ).run_id
        states = compare(run_id, plan=loaded.plan, store=store).states
        assert [(state.state_id, state.verdict) for state in states] == [
            ("op.step.one", "differs"),
            ("op.step.two", "identical"),
        ]
        for target in (None, loaded.target):
            found = schedules(run_id, plan=loaded.plan, store=store, target=target)
            assert found.divergence.kind == "undeclared_io"
    assert log.read_text() == "x"


def test_the_second_run_of_a_paranoid_one_refuses(place):
    plan = Plan("op", version="1")
    plan.state("step.state")(lambda ctx, io, rec: appended())
    for allowed in ("warn", "allow"):
        Path("log").unlink(missing_ok=True)
        with open_store("memory://") as store:
            result = run(plan, store=store, config=RunConfig(paranoid=True, undeclared_io=allowed))
        assert (result.status, result.error.code) == ("failed", "not_deterministic")
        assert "opens for writing 'log' without io" in result.error.message
        assert Path("log").read_text() == "x\n"


def test_what_a_replayed_handler_left_behind_does_nothing_either(place):
    done = threading.Event()

    def later():
        with contextlib.suppress(BaseException):
            time.sleep(0.2)
            os.mkdir(f"made-{time.time_ns()}")
        done.set()

    plan = Plan("op", version="1")
    plan.state("step.state")(lambda ctx, io, rec: threading.Thread(target=later).start())
    with open_store("memory://") as store:
        run_id = run(plan, store=store, config=RunConfig(undeclared_io="allow")).run_id
        assert done.wait(10)
        done.clear()
        replay(run_id, plan=plan, store=store)
        assert done.wait(10)
    assert len([path for path in place.iterdir() if path.name.startswith("made")]) == 1


def test_a_run_within_a_handler_is_not_made_again(place):
    inner = Plan("inner", version="1")
    inner.state("step.state")(lambda ctx, io, rec: appended())
    plan = Plan("op", version="1")

    @plan.state("step.state")
    async def handle(ctx, io, rec):
        with open_store("memory://") as store:
            assert (await machine.aio.run(inner, store=store)).status == "completed"

    with open_store("memory://") as store:
        result = run(plan, store=store, config=RunConfig(undeclared_io="allow"))
        assert result.status == "completed"
        run_id = result.run_id
        assert replay(run_id, plan=plan, store=store).divergence.now["event"] == "machine.run"
    assert Path("log").read_text() == "x\n"


def test_other_threads_and_pools_of_the_process_go_on_as_they_did(place):
    pool = concurrent.futures.ThreadPoolExecutor(1)
    plan = Plan("op", version="1")

    @plan.state("step.state")
    def handle(ctx, io, rec):
        ctx["n"] = pool.submit(int).result()  # its thread begins here

    with pool, open_store("memory://") as store:
        run_id = run(plan, store=store, config=RunConfig(undeclared_io="allow")).run_id
        pool.submit(appended).result()
        assert replay(run_id, plan=plan, store=store).identical
        pool.submit(appended).result()
    assert Path("log").read_text() == "x\nx\n"
