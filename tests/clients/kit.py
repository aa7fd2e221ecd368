"""The test of each client of another library: recorded, killed, resumed, and replayed elsewhere with no server.

`proven(...)` is that test for a plan in a file. `serving(...)` starts an HTTP server with `.url`, which counts what
reaches it in `.asked` and which `.stop()` ends.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs

from machine import new_run_id

LIFE = Path(__file__).with_name("life.py")
GOLDEN = """
import json
from {plan} import plan

def test_golden(golden):
    golden.check(plan, input=json.loads({given!r}))
"""


@attrs.define
class Program:
    """A process that has loaded the plan in a file and forks a child for every order; its store is in `folder`."""

    plan: Path
    folder: Path
    process: subprocess.Popen[str]

    def order(self, do: str, **more: Any) -> dict[str, Any]:
        """Give an order of `life.py` and return its answer, `{"killed": signal}` if the child was killed."""
        print(json.dumps({"do": do, "store": self.store, **more}), file=self.process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        assert "failed" not in answer, answer["failed"]
        return answer

    @property
    def store(self) -> str:
        return f"sqlite:///{self.folder}/runs.db"

    def run(self, given: Any, run_id: str, kill: Mapping[str, int] | None = None) -> dict[str, Any]:
        """Run the plan: `status`, `context` and `error`. Killed once the store has so many events of each kind."""
        return self.order("run", input=given, run_id=run_id, kill=kill)

    def resume(self, run_id: str) -> dict[str, Any]:
        return self.order("resume", run_id=run_id)

    def replay(self, *run_ids: str) -> None:
        """Replay runs with `machine replay`. Each has to be identical."""
        target = ("--target", f"{self.plan}:plan", "--store", self.store, "--jobs", "1")
        answer = self.order("machine", args=["replay", *run_ids, *target, "--json"])
        assert answer["code"] == 0, answer["said"]

    def golden(self, *options: str) -> None:
        """Run the golden test of the plan. It has to pass."""
        answer = self.order("pytest", args=["-q", f"--rootdir={self.folder}", str(self.folder), *options])
        assert answer["code"] == 0, answer["said"]


@contextlib.contextmanager
def program(plan: Path, folder: Path, *, seed: int, environment: Mapping[str, str] | None = None):
    """Start a `Program` with this hash seed; `environment` is added to a small one."""
    own = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    own |= {"PYTHONHASHSEED": str(seed), "PYTHONDONTWRITEBYTECODE": "1", "NO_PROXY": "*"}
    own |= {"PYTHONWARNINGS": "error", **(environment or {})}
    process = subprocess.Popen(
        [sys.executable, str(LIFE), str(plan)],
        cwd=folder,
        env=own,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Program(plan, folder, process)
        finally:
            process.stdin.close()
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                process.kill()


def proven(
    plan: Path,
    folder: Path,
    given: Any,
    *,
    kills: list[Mapping[str, int]],
    arrivals: Callable[[], Counter[Any]],
    stop: Callable[[], None],
    environment: Mapping[str, str] | None = None,
    prepare: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Prove the promises of a recorded client with the plan in a file; return the context of the whole run.

    The plan is run as a whole; run, killed at each of `kills` and resumed, upon which exactly the same must have
    reached the server; and recorded as a golden. Then `stop` ends every server, and the run and the golden are
    replayed in another process, with another hash seed and without `environment`.

    Only the last of `kills` with an effect, or the last, is tried outside of campaigns.

    `arrivals` counts what has reached the servers, `prepare` puts them into the state that a run expects. A kill
    is what the store has when the process is killed, as in `{"FactRecorded": 3}` or `{"EffectIntended": 1}`.
    """
    if os.environ.get("MACHINE_CAMPAIGN") != "full":
        kills = [kill for kill in kills if "EffectIntended" in kill][-1:] or kills[-1:]
    runs = [str(new_run_id()) for _ in range(1 + len(kills))]
    test = GOLDEN.format(plan=plan.stem, given=json.dumps(given))
    (folder / "test_golden_of_client.py").write_text(test)
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {plan.parent}\nfilterwarnings = error\n")
    with program(plan, folder, seed=1, environment=environment) as first:
        prepare()
        before = arrivals()
        whole = first.run(given, runs[0])
        assert whole.get("status") == "completed", whole
        usual = arrivals() - before
        for run_id, kill in zip(runs[1:], kills, strict=True):
            prepare()
            before = arrivals()
            assert first.run(given, run_id, kill) == {"killed": 9}
            resumed = first.resume(run_id)
            assert resumed.get("status") == "completed", resumed
            assert resumed["context"] == whole["context"]
            assert arrivals() - before == usual, (kill, arrivals() - before, usual)
        prepare()
        first.golden("--golden-update")
    stop()
    with program(plan, folder, seed=2) as second:
        second.replay(*runs)
        second.golden()
    return whole["context"]


class Answers(BaseHTTPRequestHandler):
    """One connection of `HttpServer`, which describes what it answers."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: HttpServer

    def answer(self) -> None:
        self.body = self._read_body()
        url = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        with self.server.lock:
            self.server.asked[self.command, self.path] += 1
            self.times = self.server.asked[self.command, self.path]
            key = self.headers.get("idempotency-key")
            if key is not None:
                self.server.keys.append(key)
        self.server.requests.append((self.command, self.path, dict(self.headers.items()), self.body))
        name = url.path.strip("/").split("/")[0]
        handle = self.server.routes.get(name) or getattr(self, f"at_{name}", Answers.at_echo)
        handle(self) if name in self.server.routes or handle is Answers.at_echo else handle()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - the base class's names

    def _read_body(self) -> bytes:
        if self.headers.get("transfer-encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def say(
        self, status: int, content: bytes, headers: Mapping[str, str] | list[tuple[str, str]] = ()
    ) -> None:
        """Answer with a body whose length is stated."""
        self.send_response(status)
        for name, value in headers.items() if isinstance(headers, Mapping) else headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def say_json(
        self, status: int, value: Any, headers: Mapping[str, str] | list[tuple[str, str]] = ()
    ) -> None:
        pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
        self.say(status, json.dumps(value).encode(), [("content-type", "application/json"), *pairs])

    def at_echo(self) -> None:
        """Say what was asked."""
        self.say_json(
            200,
            {
                "method": self.command,
                "path": self.path,
                "cookie": self.headers.get("cookie"),
                "body": self.body.decode("latin-1"),
            },
        )

    def at_chunks(self) -> None:
        """Send ten pieces, chunked."""
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number in range(10):
            piece = f"piece {number}\n".encode() * 100
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def at_gzip(self) -> None:
        self.say(200, gzip.compress(b"text " * 1000, mtime=0), {"content-encoding": "gzip"})

    def at_redirect(self) -> None:
        """Redirect to the `to` of the query, with its `status`."""
        self.say(int(self.query.get("status", "302")), b"", {"location": self.query.get("to", "/echo")})

    def at_login(self) -> None:
        self.say_json(200, {}, [("set-cookie", "visit=1; Path=/"), ("set-cookie", "theme=dark; Path=/")])

    def at_status(self) -> None:
        """Answer with the `code` of the query."""
        self.say(int(self.query["code"]), b"no")

    def at_busy(self) -> None:
        """Answer 429 every first time, 200 every second."""
        if self.times % 2:
            self.say(429, b"{}", {"retry-after": "0"})
        else:
            self.say_json(200, {"times": 2})

    def at_failing(self) -> None:
        """Answer 500 every first time, 200 every second."""
        if self.times % 2:
            self.say(500, b"{}")
        else:
            self.say_json(200, {"times": 2})

    def at_reset(self) -> None:
        """Reset the connection without an answer."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.connection.close()

    def at_hangup(self) -> None:
        """Close the connection without an answer."""
        self.close_connection = True

    def at_cutoff(self) -> None:
        """Say 1,000 bytes and send ten."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-length", "1000")
        self.end_headers()
        self.wfile.write(b"0123456789")

    def at_slow(self) -> None:
        """Answer only when the server stops, or after ten seconds."""
        self.server.stopping.wait(10)
        self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass


class HttpServer(ThreadingHTTPServer):
    """Answers `/echo`, `/chunks`, `/gzip`, `/redirect`, `/login`, `/status`, `/busy`, `/reset` and more.

    `asked` counts what has arrived by method and path, `keys` has the idempotency keys, `requests` everything.
    `routes` has handlers of a test's own by the first part of the path; each is called with the `Answers`.
    """

    request_queue_size = 64
    daemon_threads = True
    block_on_close = False

    answers: type[Answers] = Answers

    def __init__(
        self, routes: Mapping[str, Callable[[Answers], None]], address: Any = ("127.0.0.1", 0)
    ) -> None:
        self.routes = dict(routes)
        self.lock = threading.Lock()
        self.asked: Counter[tuple[str, str]] = Counter()
        self.keys: list[str] = []
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.problems: list[BaseException | None] = []
        self.stopping = threading.Event()
        self.open: set[Any] = set()
        super().__init__(address, self.answers)
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def process_request(self, request, client_address):
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.open.discard(request)
        with contextlib.suppress(OSError):
            super().shutdown_request(request)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), OSError | ValueError):  # a killed client is what this is about
            self.problems.append(sys.exception())

    def stop(self) -> None:
        """Stop and close every connection. May be called again."""
        if not self.stopping.is_set():
            self.stopping.set()
            self.shutdown()
            self.thread.join()
            self.server_close()
            for request in list(self.open):
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)
        assert not self.problems, self.problems


class UnixAnswers(Answers):
    """One connection on a Unix socket."""

    disable_nagle_algorithm = False


class UnixHttpServer(HttpServer):
    """The same on a Unix socket, whose path is `server_address`."""

    address_family = socket.AF_UNIX
    answers = UnixAnswers
    server_bind = TCPServer.server_bind  # that of HTTP servers asks for the name of the host


@contextlib.contextmanager
def serving_on(path: Path, **routes: Callable[[Answers], None]):
    """Start a `UnixHttpServer` on the socket at a path."""
    server = UnixHttpServer(routes, str(path))
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def serving(**routes: Callable[[Answers], None]):
    """Start an `HttpServer`, with routes of your own."""
    server = HttpServer(routes)
    try:
        yield server
    finally:
        server.stop()
