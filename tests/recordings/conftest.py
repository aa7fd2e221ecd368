"""What the replay tests share: a store and a way to record a run and replay it against other code."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from machine.stores import MemoryStore, Store


@pytest.fixture
def store() -> Iterator[Store]:
    with MemoryStore() as opened:
        yield opened
