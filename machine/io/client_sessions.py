"""The clients of other libraries that a handler's `io` makes, each imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from machine.io.client_calls import ClientCalls
from machine.recorded_clients import module_of

if TYPE_CHECKING:
    from aiohttp import ClientSession
    from requests import Session


class ClientSessions(ClientCalls):
    """The part of an `io` that makes clients whose every call it records."""

    def aiohttp_session(self, **options: Any) -> ClientSession:
        """Return an `aiohttp.ClientSession` of which every request is a recorded call of `http`.

        `options` are those of `aiohttp.ClientSession`. Raises `UsageError` (`client_not_installed`) without aiohttp.
        """
        made: ClientSession = module_of("aiohttp").session(self, options)
        return made

    def requests_session(self) -> Session:
        """Return a `requests.Session` of which every request is a recorded call of `http`.

        Raises `UsageError` (`client_not_installed`) without requests.
        """
        made: Session = module_of("requests").session(self)
        return made
