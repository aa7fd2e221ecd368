"""The clients of other libraries that a handler's `io` makes, each imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machine.io.client_calls import ClientCalls
from machine.recorded_clients import module_of

if TYPE_CHECKING:
    from requests import Session


class ClientSessions(ClientCalls):
    """The part of an `io` that makes clients whose every call it records."""

    def requests_session(self) -> Session:
        """Return a `requests.Session` of which every request is a recorded call of `http`.

        Raises `UsageError` (`client_not_installed`) without requests.
        """
        made: Session = module_of("requests").session(self)
        return made
