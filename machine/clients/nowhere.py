"""A transport of asyncio that leads nowhere: for a connection that is given what was recorded."""

from __future__ import annotations

import asyncio
from typing import Any


class Nowhere(asyncio.Transport):
    """A transport that takes everything and sends nothing."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the default: nothing is known of a connection that is none."""
        del name
        return default

    def is_closing(self) -> bool:
        """Return False."""
        return False

    def write(self, data: Any) -> None:
        """Send nothing."""

    def writelines(self, list_of_data: Any) -> None:
        """Send nothing."""

    def write_eof(self) -> None:
        """Send nothing."""

    def can_write_eof(self) -> bool:
        """Return True."""
        return True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Keep nothing."""

    def close(self) -> None:
        """Close nothing."""

    def abort(self) -> None:
        """Close nothing."""

    def pause_reading(self) -> None:
        """Wait for nothing."""

    def resume_reading(self) -> None:
        """Wait for nothing."""
