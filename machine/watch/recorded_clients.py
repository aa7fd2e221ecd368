"""The libraries whose clients this package can record, as `Plan(clients=[...])` names them."""

from __future__ import annotations

import functools
from pathlib import Path


@functools.cache
def has_client(name: str) -> bool:
    """Say whether `machine.clients` has a module of this name, without importing it."""
    return (Path(__file__).parents[1] / "clients" / f"{name}.py").is_file()
