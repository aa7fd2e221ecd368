"""Clients of requests: its connection pools are those of urllib3, which are recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.sessions import SessionRedirectMixin

from machine.clients import urllib3
from machine.clients.http_exchange import led_elsewhere, recorded_request, secrets_left_behind
from machine.clients.recording import all_of, keep_recording, recorded_by, recorder, replaced
from machine.clients.urllib3_bodies import body_of
from machine.io.client_calls import ClientCalls


def patch() -> Callable[[], None]:
    """Record the requests of sessions; return the function that undoes it."""
    return all_of([urllib3.patch(), replaced(SessionRedirectMixin, "rebuild_auth", _leaving_secrets)])


def _leaving_secrets(original: Callable[..., None]) -> Callable[..., None]:
    def rebuild_auth(session: Any, prepared: Any, response: Any) -> None:
        original(session, prepared, response)
        adapter = session.get_adapter(prepared.url)
        io = adapter.io if isinstance(adapter, RecordedAdapter) else recorder("requests")
        if io is None or not led_elsewhere(response.url, prepared.url):
            return
        body = body_of(prepared.body)
        message = recorded_request(prepared.method, prepared.url, prepared.headers.items(), body, {})
        for name in secrets_left_behind(io, message, response.url):
            del prepared.headers[name]

    return rebuild_auth


class RecordedAdapter(HTTPAdapter):
    """An adapter of requests whose requests one `io` records, as long as its attempt lasts."""

    def __init__(self, io: ClientCalls, **options: Any) -> None:
        self.io = io
        super().__init__(**options)

    def send(self, *args: Any, **options: Any) -> requests.Response:
        """Send a request as any adapter does; the call is recorded."""
        with recorded_by(self.io):
            return super().send(*args, **options)


def session(io: ClientCalls) -> requests.Session:
    """Return a session all of whose requests an `io` records."""
    keep_recording("requests")
    made = requests.Session()
    for prefix in ("http://", "https://"):
        made.mount(prefix, RecordedAdapter(io))
    return made
