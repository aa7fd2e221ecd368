"""What the transport tests share: the event loop, a clean environment, and servers on loopback."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    """Loopback is reached directly, whatever the machine's settings are."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def unplugged(monkeypatch):
    """Give a function after which no socket can be connected."""

    def unplug():
        def refused(*args):
            raise AssertionError("a replay went to the network")

        monkeypatch.setattr(socket.socket, "connect", refused)
        monkeypatch.setattr(asyncio.BaseEventLoop, "create_connection", refused)

    return unplug


@contextmanager
def raw_server(handle, *, tls=None):
    """Run a server that gives each connection to `handle(connection, stop)`; yield its port."""
    stop = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    workers = []

    def work(connection):
        with connection, suppress(OSError):
            peer = tls.wrap_socket(connection, server_side=True) if tls else connection
            with peer:
                handle(peer, stop)

    def accept():
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.settimeout(5)
                workers.append(threading.Thread(target=work, args=(connection,)))
                workers[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for worker in workers:
            worker.join()


@pytest.fixture
def serve_raw():
    """Give a function that starts a raw server and returns its port; all stop when the test ends."""
    servers = []

    def start(handle, **options):
        servers.append(raw_server(handle, **options))
        return servers[-1].__enter__()

    yield start
    for server in servers:
        server.__exit__(None, None, None)


@pytest.fixture
def serve_bytes(serve_raw):
    """Give a function that starts a server which answers everything with the same bytes and hangs up."""

    def start(answer, **options):
        def handle(connection, stop):
            connection.recv(65536)
            connection.sendall(answer)

        return f"http://127.0.0.1:{serve_raw(handle, **options)}/"

    return start


@pytest.fixture
def bad_tls():
    """Give the server side of TLS, with a certificate that nobody signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Path(__file__).with_name("self_signed.pem"))
    return context


class Recorder(BaseHTTPRequestHandler):
    """Answers from `routes` (path to status, headers, body) and keeps what it was asked."""

    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.server.connections.append(self.connection)

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append((self.command, self.path, dict(self.headers.items()), body))
        status, headers, content = self.server.routes.get(self.path.partition("?")[0], (404, {}, b"nothing"))
        self.send_response(status)
        for name, value in headers.items():
            for one in value if isinstance(value, list) else [value]:
                self.send_header(name, one)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = answer  # noqa: N815 - the base class's names

    def log_message(self, *args):
        pass


@contextmanager
def recording_server(tls=None):
    """Run an HTTP server with `.url`, `.routes` to fill and `.asked` to look at."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as http:
        http.daemon_threads = False
        http.routes, http.asked, http.connections = {}, [], []
        http.url = f"http{'s' if tls else ''}://127.0.0.1:{http.server_port}"
        if tls:
            http.socket = tls.wrap_socket(http.socket, server_side=True)
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield http
        finally:
            http.shutdown()
            thread.join()
            for connection in http.connections:  # clients may still keep them
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def start_server():
    """Give a function that starts such a server; all stop when the test ends."""
    with ExitStack() as servers:
        yield lambda **options: servers.enter_context(recording_server(**options))


@pytest.fixture
def server(start_server):
    """Give such a server."""
    return start_server()
