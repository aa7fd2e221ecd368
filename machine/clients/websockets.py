"""Clients of websockets (17 and later), asynchronous and blocking, recorded message by message.

Each message that is received, and each that is sent, is a call of `websocket`. Sending is an effect, unless the
server is one of those that the option `reads` names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from websockets.asyncio.client import connect

from machine.clients import websockets_asyncio, websockets_sync
from machine.clients.recording import all_of, keep_recording
from machine.io.client_calls import ClientCalls


def patch() -> Callable[[], None]:
    """Record what connections receive and send; return the function that undoes it."""
    return all_of([*websockets_asyncio.patches(), *websockets_sync.patches()])


def websocket(io: ClientCalls, url: str, *, reads: bool, options: Mapping[str, Any]) -> connect:
    """Return a `connect` of websockets whose connections an `io` records."""
    keep_recording("websockets")
    made = connect(url, **options)
    websockets_asyncio.owners[made] = io, reads
    return made
