"""An outside for runs: a server that counts what arrives and applies each effect once by its key."""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver(ThreadingHTTPServer):
    """Answers on loopback. `at_arrival` is called with the key of every effect, before anything is done."""

    request_queue_size = 64

    def __init__(self, at_arrival: Callable[[str], None]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.at_arrival = at_arrival
        self.lock = threading.Lock()
        self.arrivals: Counter[str | None] = Counter()
        self.applied: list[str] = []
        self.problems: list[str] = []
        self.asked: Counter[str] = Counter()
        self._bodies: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # a killed client is what this is about
            self.problems.append(repr(sys.exception()))

    def get(self, path):
        """Answer a read."""
        kind, *rest = path.strip("/").split("/")
        with self.lock:
            self.asked[path] += 1
            times, total = self.asked[path], self.asked.total()
        if kind == "flaky":
            return (200, {"of": rest[1]}) if times > 2 else (503, {})
        if kind == "nonce":
            return 200, total
        if kind == "seen":
            return 200, self.arrivals[rest[0]]
        if kind == "same":
            time.sleep(random.uniform(0, 0.003))  # so that every lane of a race wins at times
        return 200, {"of": rest[0]}

    def post(self, path, key, body):
        """Answer an effect: applied when its key is new, the same answer again when it is not."""
        if key is None:
            self.problems.append(f"an effect without a key: {body!r}")
            return 400, {}
        self.at_arrival(key)
        with self.lock:
            self.arrivals[key] += 1
            if path == "/moody" and self.arrivals[key] == 1:
                return 503, {}
            if self._bodies.setdefault(key, body) != body:
                self.problems.append(f"{key} came again with another body: {self._bodies[key]!r}, {body!r}")
                return 422, {}
            if key not in self.applied:
                self.applied.append(key)
        time.sleep(0.001)  # applied, and nobody has been told yet
        return 200, {"applied": json.loads(body)["of"]}


class Answer(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one segment
    disable_nagle_algorithm = True
    server: Receiver

    def do_GET(self):
        self._answer(*self.server.get(self.path))

    def do_POST(self):
        length = int(self.headers["content-length"])
        body = self.rfile.read(length)
        if len(body) == length:  # else the client was killed while it sent
            self._answer(*self.server.post(self.path, self.headers["idempotency-key"], body))

    def _answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextmanager
def receiving(at_arrival: Callable[[str], None] = lambda key: None) -> Iterator[Receiver]:
    """Serve until the block ends; then no thread and no socket is left."""
    with Receiver(at_arrival) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
