"""What the tests of the watch share with those of `io`: a server that notes what it is asked."""

from __future__ import annotations

from pathlib import Path

from kills import loaded

_of_io = loaded(Path(__file__).parents[1] / "io" / "conftest.py")
anyio_backend = _of_io.anyio_backend
no_proxies = _of_io.no_proxies
server = _of_io.server
start_server = _of_io.start_server
