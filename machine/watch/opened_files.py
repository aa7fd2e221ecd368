"""The files and connections that an attempt has opened itself, whose use is reported no second time."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from machine.watch.safe_inspection import is_a, never_raises


class Opened:
    """The files and the connections that the watched code has opened so far."""

    def __init__(self) -> None:
        self._paths: set[str] = set()
        self._connections: set[int] = set()

    @never_raises(None)
    def add(self, event: str, args: tuple[Any, ...]) -> None:
        """Add what an audit event says is being opened, if it is such an event."""
        if event in {"open", "sqlite3.connect"} and is_a(args[0], str, bytes, os.PathLike):
            self._paths.add(os.path.realpath(os.fsdecode(args[0])))
        elif event == "socket.connect":
            self._connections.add(args[0].fileno())

    def has(self, paths: Iterable[str]) -> bool:
        """Say whether the attempt has opened all these files."""
        return all(os.path.realpath(path) in self._paths for path in paths)

    @never_raises(False)  # noqa: FBT003 - whether it has
    def has_connection(self, connection: Any) -> bool:
        """Say whether the attempt has made this connection."""
        return connection.fileno() in self._connections
