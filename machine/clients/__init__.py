"""Clients of other libraries, recorded as they are: `Plan(clients=["requests", ...])`.

Each module here records one library. A library performs its calls itself; a replay gives it the recorded answers.
"""

from __future__ import annotations

from typing import Any

from machine.recorded_clients import RecordedClient, clients_of

__all__ = ["record"]


def record(*names: str, **options: Any) -> tuple[RecordedClient, ...]:
    """Return the choice of libraries for `Plan(clients=[...])`, all of them with the same `options`.

    Raises `UsageError` for a name that is not known, and for an option that its library has not.
    """
    chosen = tuple(RecordedClient(name, options) for name in names)
    clients_of(chosen)
    return chosen
