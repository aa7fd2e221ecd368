"""What the engine's tests share: a store, a scripted outside, and plans small enough to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from machine import MachineError
from machine.io.transport import BaseTransport
from machine.stores import MemoryStore, Store


class Scripted(BaseTransport):
    """An outside that answers with what a function returns, and counts what it was asked."""

    one_effect_per_key = True

    def __init__(
        self, answer: Callable[[Any], Any] = lambda request: request, *, effect: bool = False
    ) -> None:
        self.answer = answer
        self.effect = effect
        self.asked: list[Any] = []

    def is_effect(self, namespace: str, request: Any) -> bool:
        return self.effect

    def with_idempotency_key(self, namespace: str, request: Any, key: str) -> Any:
        return {"key": key, **request}

    async def perform(self, namespace: str, request: Any) -> Any:
        self.asked.append(request)
        if isinstance(request, dict) and "delay" in request:
            await anyio.sleep(request["delay"])
        answer = self.answer(request)
        if isinstance(answer, MachineError):
            raise answer
        return answer


@pytest.fixture
def store() -> Iterator[Store]:
    with MemoryStore() as opened:
        yield opened


@pytest.fixture
def scripted() -> type[Scripted]:
    return Scripted


def prefix_of(store: Store, run_id: str, length: int) -> Store:
    """Return a store that holds the run as it was after `length` events, as a crash there would leave it."""
    cut = MemoryStore()
    for kind, data in store._contents.artifacts.values():
        cut.put(kind, data)
    cut.append(run_id, 0, list(store.read_range(run_id, 1, length)))
    return cut


@pytest.fixture
def crashed_after() -> Callable[[Store, str, int], Store]:
    return prefix_of
