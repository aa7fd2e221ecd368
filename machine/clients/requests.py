"""Clients of requests: its connection pools are those of urllib3, which are recorded."""

from __future__ import annotations

from typing import Any

import requests
from requests.adapters import HTTPAdapter

from machine.clients import urllib3
from machine.clients.recording import keep_recording, recorded_by
from machine.io.client_calls import ClientCalls

patch = urllib3.patch


class RecordedAdapter(HTTPAdapter):
    """An adapter of requests whose requests one `io` records, as long as its attempt lasts."""

    def __init__(self, io: ClientCalls, **options: Any) -> None:
        self._io = io
        super().__init__(**options)

    def send(self, *args: Any, **options: Any) -> requests.Response:
        """Send a request as any adapter does; the call is recorded."""
        with recorded_by(self._io):
            return super().send(*args, **options)


def session(io: ClientCalls) -> requests.Session:
    """Return a session all of whose requests an `io` records."""
    keep_recording("requests")
    made = requests.Session()
    for prefix in ("http://", "https://"):
        made.mount(prefix, RecordedAdapter(io))
    return made
