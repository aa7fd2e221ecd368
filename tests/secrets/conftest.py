"""What the tests of secrets share: a server that answers with secrets, stores on disk, and what is looked for."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest


class Server(BaseHTTPRequestHandler):
    """Answers with what its server's `answer` makes of a request, and keeps what it was sent."""

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        seen = {
            "path": self.path,
            "headers": dict(self.headers.items()),
            "body": body.decode("utf-8", "replace"),
        }
        self.server.seen.append(seen)
        status, headers, answer = self.server.answer(seen)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_PUT = do_GET  # noqa: N815 - the names that http.server asks for

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    """Run a server on loopback; set its `answer`, read its `seen`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        running.seen = []
        running.answer = lambda seen: (200, [], seen)
        running.url = f"http://127.0.0.1:{running.server_port}"
        running.host = f"127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def format_1(monkeypatch):
    """Let new runs have the secret format of old ones."""
    monkeypatch.setattr("machine.engine.new_run.SECRET_FORMAT", 1)
    monkeypatch.setattr("machine.engine.start_and_resume.check_startable", lambda config, **_: None)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def forms_of(value: str) -> set[bytes]:
    """Return the ways in which a value may hide in bytes, without asking the library."""
    raw = value.encode()
    texts = {value, quote(value), quote(value, safe=""), quote_plus(value)}
    texts |= {json.dumps(text)[1:-1] for text in texts} | {
        json.dumps(json.dumps(text)[1:-1])[1:-1] for text in texts
    }
    found = {text.encode() for text in texts}
    for before in range(3):
        packed = base64.b64encode(b"x" * before + raw)
        core = packed[4 if before else 0 : (before + len(raw)) // 3 * 4]
        if len(core) >= 8:
            found |= {core, core.translate(bytes.maketrans(b"+/", b"-_"))}
    return found | {raw.hex().encode()}


def leaks(folder: Path, secrets: list[str]) -> list[tuple[str, str]]:
    """Return which secret is in which file of a folder, in any form."""
    return [
        (path.name, secret)
        for path in sorted(folder.iterdir())
        for secret in secrets
        if any(form in path.read_bytes() for form in forms_of(secret))
    ]
