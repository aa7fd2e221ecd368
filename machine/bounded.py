"""Reading of large arrays and objects in parts, which bounds the cost of reporting their problems."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final

__all__ = ["in_parts"]

_MOST_ITEMS: Final = 1000
"""The size of the parts in which a larger array or object is read, up to the first part with a problem: reporting
every problem of millions of items would cost a thousand times as much as reading them."""


def in_parts(
    problems: Callable[[BaseException], list[str]], inner: Callable[[Any, Any], Any]
) -> Callable[[Any, Any], Any]:
    """Return `inner`, a reader of containers, with a bound on the problems it reports through `problems`."""

    def structure(value: Any, kind: Any) -> Any:
        if len(value) <= _MOST_ITEMS:
            return inner(value, kind)
        items = iter(value.items() if type(value) is dict else value)
        parts: list[Any] = []
        while part := type(value)(itertools.islice(items, _MOST_ITEMS)):
            try:
                read = inner(part, kind)
            except Exception as exc:  # noqa: BLE001 - whatever a hook trips over, the JSON is what is wrong
                text = f"of {len(value)} items, one after the first {len(parts)}: {problems(exc)[0]}"
                raise ValueError(text) from None
            parts += read.items() if type(read) is dict else read
        return type(read)(parts)

    return structure
