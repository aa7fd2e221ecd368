"""The guard: what a handler does to the outside by itself is refused before it is done, and nothing else is."""

# The plain calls, not pathlib, are what is tested; nothing here opens a file that stays open or runs a program.
# ruff: noqa: PTH101, PTH102, PTH104, PTH105, PTH106, PTH107, PTH123, PTH207, PTH211
# ruff: noqa: SIM115, ASYNC230, BLE001

from __future__ import annotations

import asyncio
import builtins
import contextvars
import ftplib
import glob
import http.client
import imaplib
import importlib
import importlib.resources
import linecache
import logging
import mimetypes
import multiprocessing
import os
import poplib
import pty
import random
import shutil
import smtplib
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import traceback
import urllib.request
import uuid
import warnings
import zoneinfo
from datetime import UTC, datetime
from pathlib import Path

import pytest

from machine import DomainEvent, Plan, Reporter, RunConfig, open_store, run
from machine.io.transport import BaseTransport
from machine.watch.audit_hook import ACTS
from machine.watch.recorded_clients import has_client


class Told(Reporter):
    """Keeps what it is told of."""

    def __init__(self):
        self.undeclared_io = []

    def undeclared(self, state_id, what):
        self.undeclared_io.append(what)


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def drive(told):
    """Run one handler and give the result; what it did by itself is in `told`."""

    def drive_it(handler, undeclared_io="error", **options):
        plan = Plan("op")
        plan.state("step.state", side_effects="apply_side_effect", idempotency="k")(handler)
        with open_store("memory://") as store:
            config = RunConfig(undeclared_io=undeclared_io)
            return run(plan, store=store, config=config, reporter=told, **options)

    return drive_it


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").write_text("there")
    tempfile.gettempdir()  # looks where it can write, once
    (tmp_path / "folder").mkdir()
    return tmp_path


def listing(place):
    return sorted((path.name, path.stat().st_mode, path.stat().st_size) for path in place.iterdir())


def with_socket(call, kind=socket.SOCK_DGRAM):
    with socket.socket(type=kind) as one:
        call(one)


KEPT = []


@pytest.fixture(scope="module", autouse=True)
def kept():
    KEPT.extend(socket.socketpair())  # not as it is imported: a worker may run none of these tests
    yield
    for each in KEPT:
        each.close()


def open_before(client):
    """Give a client a connection, as one has that was made before the handler ran."""
    client.sock, client._debugging = KEPT[0], 0
    return client


def spawned():
    process = multiprocessing.get_context("spawn").Process(target=print)
    process.start()
    process.join()


NOWHERE = "http://127.0.0.1:9/"
BY_EVENT = {
    # the network
    "socket.connect": [lambda: with_socket(lambda one: one.connect(("127.0.0.1", 9)), socket.SOCK_STREAM)],
    "socket.bind": [lambda: with_socket(lambda one: one.bind(("127.0.0.1", 0)))],
    "socket.sendto": [lambda: with_socket(lambda one: one.sendto(b"", ("127.0.0.1", 9)))],
    "socket.sendmsg": [lambda: with_socket(lambda one: one.sendmsg([b""], [], 0, ("127.0.0.1", 9)))],
    "socket.getaddrinfo": [
        lambda: socket.getaddrinfo("localhost", 9),
        lambda: socket.create_connection(("localhost", 9)),
    ],
    "socket.gethostbyname": [lambda: socket.gethostbyname("localhost")],
    "socket.gethostbyaddr": [lambda: socket.gethostbyaddr("127.0.0.1")],
    "socket.getnameinfo": [lambda: socket.getnameinfo(("127.0.0.1", 9), 0)],
    "socket.gethostname": [socket.gethostname],
    "http.client.connect": [lambda: http.client.HTTPConnection("127.0.0.1", 9).connect()],
    "smtplib.connect": [lambda: smtplib.SMTP("127.0.0.1", 9)],
    # over a connection that was there before
    "http.client.send": [lambda: open_before(http.client.HTTPConnection("h")).send(b"x")],
    "smtplib.send": [lambda: open_before(smtplib.SMTP.__new__(smtplib.SMTP)).send(b"x")],
    "ftplib.sendcmd": [lambda: open_before(ftplib.FTP()).putcmd("x")],
    "imaplib.send": [lambda: open_before(imaplib.IMAP4.__new__(imaplib.IMAP4)).send(b"x")],
    "poplib.putline": [lambda: open_before(poplib.POP3.__new__(poplib.POP3))._putline(b"x")],
    "ftplib.connect": [lambda: ftplib.FTP("127.0.0.1")],
    "imaplib.open": [lambda: imaplib.IMAP4("127.0.0.1", 9)],
    "poplib.connect": [lambda: poplib.POP3("127.0.0.1", 9)],
    "urllib.Request": [lambda: urllib.request.urlopen(NOWHERE)],
    # programs and threads
    "subprocess.Popen": [
        lambda: subprocess.run(["touch", "new"], check=True),
        lambda: os.popen("touch new"),
    ],
    "pty.spawn": [lambda: pty.spawn(["touch", "new"])],
    "_posixsubprocess.fork_exec": [spawned],
    "os.system": [lambda: os.system("touch new")],
    "os.exec": [lambda: os.execv("/bin/true", ["true"])],
    "os.posix_spawn": [lambda: os.posix_spawn("/bin/touch", ["touch", "new"], {})],
    "os.fork": [os.fork],
    "os.forkpty": [os.forkpty],
    "os.kill": [lambda: os.kill(1, 0)],
    "os.killpg": [lambda: os.killpg(1, 0)],
    # files and databases
    "open": [
        lambda: open("new", "w"),
        lambda: open("there", "a"),
        lambda: open("there", "r+"),
        lambda: open(b"new", "x"),
        lambda: os.open("new", os.O_CREAT),
        lambda: Path("new").write_text("new"),
        lambda: tempfile.NamedTemporaryFile(dir="."),
        lambda: open("there"),
        lambda: os.open("there", os.O_RDONLY),
        lambda: Path("there").read_bytes(),
    ],
    "sqlite3.connect": [lambda: sqlite3.connect("data.db"), lambda: sqlite3.connect(Path("data.db"))],
    "os.remove": [lambda: os.remove("there"), lambda: Path("there").unlink()],
    "os.rename": [lambda: os.rename("there", "moved"), lambda: os.replace("there", "moved")],
    "os.rmdir": [lambda: os.rmdir("folder")],
    "os.mkdir": [lambda: os.mkdir("more"), lambda: Path("more/and/more").mkdir(parents=True)],
    "os.link": [lambda: os.link("there", "other")],
    "os.symlink": [lambda: os.symlink("there", "other")],
    "os.truncate": [lambda: os.truncate("there", 1)],
    "os.chmod": [lambda: os.chmod("there", 0o600)],
    "os.chown": [lambda: os.chown("there", -1, -1)],
    "os.utime": [lambda: os.utime("there")],
    "os.setxattr": [lambda: os.setxattr("there", "user.a", b"")],
    "os.removexattr": [lambda: os.removexattr("there", "user.a")],
    "shutil.copyfile": [lambda: shutil.copyfile("there", "copy")],
    "shutil.copymode": [lambda: shutil.copymode("there", "there")],
    "shutil.copystat": [lambda: shutil.copystat("there", "there")],
    "shutil.copytree": [lambda: shutil.copytree("folder", "more")],
    "shutil.move": [lambda: shutil.move("there", "moved")],
    "shutil.rmtree": [lambda: shutil.rmtree("folder")],
    "shutil.chown": [lambda: shutil.chown("there", user=0)],
    "shutil.make_archive": [lambda: shutil.make_archive("new", "tar")],
    "shutil.unpack_archive": [lambda: shutil.unpack_archive("new.tar")],
    "tempfile.mkstemp": [lambda: tempfile.mkstemp(dir=".")],
    "tempfile.mkdtemp": [lambda: tempfile.mkdtemp(dir=".")],
    "os.listdir": [os.listdir],
    "os.scandir": [os.scandir, lambda: list(os.walk("."))],
    "glob.glob": [lambda: glob.glob("*")],
    # this process
    "os.chdir": [lambda: os.chdir("folder")],
    "os.putenv": [lambda: os.environ.update(MACHINE_TEST="1")],
    "os.unsetenv": [lambda: os.unsetenv("MACHINE_TEST")],
    "builtins.input": [builtins.input],
}
ELSEWHERE = {
    "os.spawn",
    "webbrowser.open",
    "os.chflags",
    "nntplib.connect",
    "telnetlib.Telnet.open",
    "socket.send",
    "signal.pidfd_send_signal",
    "os.mkfifo",
    "os.mknod",
}
"""What this system or a version of Python has not got, and what only a replay looks for."""
EACH = [(event, act) for event, acts in BY_EVENT.items() for act in acts]


def test_every_event_of_the_table_is_tried():
    assert set(ACTS) == set(BY_EVENT) | ELSEWHERE


@pytest.mark.filterwarnings("ignore:unclosed")
@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
@pytest.mark.parametrize(
    ("event", "act"), EACH, ids=[f"{event} {number}" for number, (event, _) in enumerate(EACH)]
)
def test_what_reaches_outside_is_refused_before_it_is_done(place, drive, event, act, plain):
    before = listing(place)

    async def handle(ctx, io, rec):
        act()

    result = drive((lambda ctx, io, rec: act()) if plain else handle)
    assert result.status == "failed"
    assert (result.error.code, result.error.retryable) == ("undeclared_io", False)
    assert result.error.details["event"] == event
    assert result.error.details["place"].startswith("test_audit_hook.py:")
    assert listing(place) == before


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
@pytest.mark.parametrize("name", ["httpx", "requests"])
def test_what_a_client_of_other_people_does_is_told_with_the_transport_for_it(drive, name, plain):
    client = pytest.importorskip(name, reason=f"pip install {name}")

    async def handle(ctx, io, rec):
        client.get(NOWHERE)

    error = drive((lambda ctx, io, rec: client.get(NOWHERE) and None) if plain else handle).error
    assert error.code == "undeclared_io"
    recorded = f'Plan(clients=["{name}"])' if has_client(name) else "io.httpx_transport()"
    assert recorded in error.details["remedy"]
    assert "docs/clients.md" in error.details["remedy"]
    assert "io.http(" not in error.message


def test_a_thread_that_the_event_loop_starts_is_let_through(drive, told):
    async def handle(ctx, io, rec):
        await asyncio.get_running_loop().run_in_executor(None, int)
        ctx["n"] = await asyncio.to_thread(int)

    assert drive(handle).status == "completed"
    assert told.undeclared_io == []


def test_the_message_says_what_where_and_what_to_do_instead(place, drive):
    def handle(ctx, io, rec):
        open("there").close()

    async def coroutine(ctx, io, rec):
        open("there").close()

    line = handle.__code__.co_firstlineno + 1
    assert drive(handle).error.message == (
        f"op.step.state reads the file 'there' without io at test_audit_hook.py:{line} "
        '(use "io.read_file(path)")'
    )
    assert drive(coroutine).error.details == {
        "event": "open",
        "place": f"test_audit_hook.py:{line + 3}",
        "remedy": 'use "await io.read_file(path)"',
    }


def test_a_program_is_named_without_its_environment(drive):
    def handle(ctx, io, rec):
        subprocess.run(["true"], env={"TOKEN": "not to be told"}, check=True)

    result = drive(handle)
    assert "'true'" in result.error.message
    assert "not to be told" not in repr(result)


# -- what must not trip it -----------------------------------------------------------------------------------


class Noting(logging.Handler):
    """A log of the user's own that is a file."""

    def emit(self, record):
        with open("noted", "a") as file:
            file.write(record.getMessage())


def logs():
    log = logging.getLogger("machine.tests.guard")
    handlers = [logging.FileHandler("own.log", delay=True), Noting()]
    for handler in handlers:
        log.addHandler(handler)
    log.warning("said")
    for handler in handlers:
        log.removeHandler(handler)
        handler.close()


def traces():
    linecache.clearcache()
    assert "traces" in "".join(traceback.format_stack())


def warns():
    linecache.clearcache()
    warnings.formatwarning("said", UserWarning, __file__, 1)


def knows_zones():
    zoneinfo.ZoneInfo.no_cache("Europe/Berlin")


def keeps_in_memory():
    sqlite3.connect(":memory:").close()
    sqlite3.connect("file:name?mode=memory", uri=True).close()
    sqlite3.connect("").close()


def writes_nowhere():
    with open(os.devnull, "w") as nowhere:
        nowhere.write("nothing")


def imports():
    sys.dont_write_bytecode, before = False, sys.dont_write_bytecode
    try:
        assert importlib.import_module("guarded_module").value == 1
    finally:
        sys.dont_write_bytecode = before
    assert importlib.util.find_spec("no_such_module_anywhere") is None


def reads_what_came_with_a_package():
    assert importlib.resources.files("guarded_package") is not None
    assert importlib.import_module("pkgutil").get_data("guarded_package", "data.txt") == b"data"
    data = importlib.resources.files("guarded_package") / "data.txt"
    assert data.read_text() == "data"
    with importlib.resources.as_file(data) as path, open(path) as file:
        assert file.read() == "data"


HARMLESS = {
    "logging": logs,
    "tracebacks": traces,
    "warnings": warns,
    "time zones": knows_zones,
    "a database in memory": keeps_in_memory,
    "the null device": writes_nowhere,
    "imports": imports,
    "data of packages": reads_what_came_with_a_package,
    "certificates": ssl.create_default_context,
    "types of files": mimetypes.init,
    "printing": lambda: print("said"),
    "a generator with a seed": lambda: random.Random(4).choice([1, 2]),
    "a time that is given": lambda: datetime.fromtimestamp(0, UTC).isoformat(),
    "a name-based UUID": lambda: uuid.uuid5(uuid.NAMESPACE_DNS, "name"),
    "a socket that goes nowhere": lambda: socket.socket().close(),
}


@pytest.fixture
def modules(place, monkeypatch):
    (place / "guarded_module.py").write_text("import os\nvalue = len(os.listdir('folder')) + 1")
    (place / "guarded_package").mkdir()
    (place / "guarded_package" / "__init__.py").touch()
    (place / "guarded_package" / "data.txt").write_text("data")
    monkeypatch.syspath_prepend(place)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    yield place
    for name in ("guarded_module", "guarded_package"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
@pytest.mark.parametrize("act", HARMLESS.values(), ids=HARMLESS)
def test_what_the_interpreter_needs_and_what_stays_in_the_process_is_let_through(
    modules, drive, told, act, plain
):
    async def handle(ctx, io, rec):
        act()

    for mode in ("warn", "error"):
        result = drive((lambda ctx, io, rec: act() and None) if plain else handle, mode)
        assert (result.status, result.error) == ("completed", None)
    assert told.undeclared_io == []


def test_an_import_keeps_what_it_has_compiled(modules, drive):
    assert drive(lambda ctx, io, rec: imports()).status == "completed"
    assert list((modules / "__pycache__").iterdir()), "the import kept nothing, so nothing was let through"


def test_everything_behind_io_and_rec_is_let_through(place, drive, told, server):
    server.routes["/hello"] = (200, {}, b"hello")

    async def handle(ctx, io, rec):
        assert (await io.http("GET", f"{server.url}/hello")).status == 200
        assert (await io.exec(["true"])).check()
        assert (await io.read_file("there")).text == "there"
        await io.write_file("new", "new")
        await io.sleep(0.001)
        await asyncio.gather(io.now(), io.uuid(), io.random_bytes(3), io.env("HOME"))
        await rec.emit(DomainEvent("said", {}))
        ctx["drawn"] = (await io.random()).random()

    def plain(ctx, io, rec):
        assert io.http("GET", f"{server.url}/hello").status == 200
        assert io.exec(["true"]).check()
        io.write_file("newer", "new")
        io.sleep(0.001)
        rec.emit(DomainEvent("said", {}))

    for handler in (handle, plain):
        assert drive(handler).error is None
    assert (place / "newer").exists()


def test_the_guard_is_up_again_after_a_call_of_io(drive, place):
    async def handle(ctx, io, rec):
        await io.now()
        os.mkdir("async")

    def plain(ctx, io, rec):
        io.now()
        os.mkdir("plain")

    async def racing(ctx, io, rec):
        await asyncio.gather(io.now(), io.sleep(0.01), io.uuid())
        os.mkdir("racing")

    for handler in (handle, plain, racing):
        assert drive(handler).error.details["event"] == "os.mkdir"
    assert sorted(path.name for path in place.iterdir()) == ["folder", "there"]


# -- whose doing it is ---------------------------------------------------------------------------------------

LIBRARY = """
import os, random, socket, time

def looks(path):
    time.time(), random.random(), os.environ.get("HOME"), os.getcwd(), os.path.exists(path)
    with open(path) as file:
        return file.read(), os.listdir()

def writes():
    os.mkdir("made")

def calls():
    with socket.socket() as sock:
        sock.connect(("127.0.0.1", 9))
"""


@pytest.fixture
def library(place, monkeypatch):
    """Install a library where libraries are."""
    home = place / "lib" / "site-packages"
    home.mkdir(parents=True)
    (home / "guarded_library.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(home)
    yield importlib.import_module("guarded_library")
    del sys.modules["guarded_library"]


def test_a_library_may_look_around(drive, library):
    assert drive(lambda ctx, io, rec: library.looks("there") and None).error is None


@pytest.mark.parametrize(("name", "event"), [("writes", "os.mkdir"), ("calls", "socket.connect")])
def test_a_library_may_neither_write_nor_call(drive, library, name, event):
    line = test_a_library_may_neither_write_nor_call.__code__.co_firstlineno + 2
    result = drive(lambda ctx, io, rec: getattr(library, name)())
    assert result.error.details["event"] == event
    assert result.error.details["place"] == f"test_audit_hook.py:{line + 1}"


def test_a_handler_that_is_installed_itself_is_still_the_users_own(drive, library):
    def handle(ctx, io, rec):
        library.looks("there")

    handle.__module__ = "guarded_library"  # as for a plan that a package brings along
    assert drive(handle).error.code == "undeclared_io"


def test_tasks_and_threads_of_a_handler_are_guarded_and_other_code_is_not(place, drive):
    async def make(name):
        os.mkdir(name)

    async def handle(ctx, io, rec):
        for made in (asyncio.create_task(make("task")), asyncio.to_thread(os.mkdir, "thread")):
            try:
                await made
            except Exception as exc:
                ctx["refused"] = [*ctx.get("refused", []), type(exc).__name__]
        raise RuntimeError(*ctx["refused"])

    def innocent(began, done):
        began.wait(10)
        os.mkdir("innocent")
        done.set()

    began, done = threading.Event(), threading.Event()
    other = threading.Thread(target=innocent, args=(began, done))
    other.start()

    async def waiting(ctx, io, rec):
        began.set()
        done.wait(10)
        await handle(ctx, io, rec)

    assert drive(waiting).error.code == "undeclared_io"
    other.join()
    assert sorted(path.name for path in place.iterdir()) == ["folder", "innocent", "there"]


def test_what_runs_in_another_context_is_the_handlers_that_has_the_thread(place, drive):
    def bare():
        contextvars.Context().run(os.mkdir, "made")

    async def handle(ctx, io, rec):
        bare()

    async def later(ctx, io, rec):
        await io.now()
        bare()

    kept = []

    def keeping(ctx, io, rec):
        kept.append(contextvars.copy_context())

    def plain(ctx, io, rec):
        bare()

    def in_kept(ctx, io, rec):
        kept[0].run(os.mkdir, "made")

    assert drive(keeping).error is None
    for handler in (handle, later, plain, in_kept):
        assert drive(handler).error.details["event"] == "os.mkdir", handler
    bare()  # when no handler has the thread, nobody minds
    assert (place / "made").is_dir()


def test_an_idempotency_key_is_watched_in_another_context_too(place):
    plan = Plan("op")

    @plan.state(
        "step.state",
        side_effects="apply_side_effect",
        idempotency=lambda ctx: contextvars.Context().run(os.mkdir, "made") or "k",
    )
    def handle(ctx, io, rec):
        pass

    with open_store("memory://") as store:
        result = run(plan, store=store, config=RunConfig(undeclared_io="error"))
    assert result.error.code == "undeclared_io"
    assert not (place / "made").exists()


def test_what_io_does_in_another_context_is_let_through(place, drive):
    class Bare(BaseTransport):
        async def perform(self, namespace, request):
            contextvars.Context().run(Path(request).mkdir)
            await asyncio.sleep(0)
            contextvars.Context().run(Path(request, "in").mkdir)
            return 1

    def plain(ctx, io, rec):
        io.call("bare", "plain")
        contextvars.Context().run(io.write_file, "file", "x")

    async def handle(ctx, io, rec):
        await io.call("bare", "async")
        await asyncio.gather(io.call("bare", "one"), io.call("bare", "another"))
        await asyncio.create_task(io.write_file("other", "x"), context=contextvars.Context())

    for handler in (plain, handle):
        assert drive(handler, transports={"bare": Bare()}).error is None
    made = {path.parent.name for path in place.glob("*/in")}
    assert made == {"plain", "async", "one", "another"}


def test_the_hook_is_installed_at_the_first_use_and_once_and_never_with_allow():
    script = (
        "import sys\n"
        "hooks = []\n"
        "sys.addaudithook = hooks.append\n"
        "from machine import Plan, RunConfig, open_store, run\n"
        "plan = Plan('op')\n"
        "@plan.state('a.b')\n"
        "async def state(ctx, io, rec):\n"
        "    assert sys.getprofile() is None\n"
        "for mode, count in (('allow', 0), ('warn', 1), ('error', 1)):\n"
        "    with open_store('memory://') as store:\n"
        "        assert run(plan, store=store, config=RunConfig(undeclared_io=mode)).status == 'completed'\n"
        "    assert len(hooks) == count, mode\n"
        "    if sys.version_info >= (3, 12):\n"
        "        tools = [sys.monitoring.get_tool(number) for number in (3, 4)]\n"
        "        assert tools.count('machine') == count\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
