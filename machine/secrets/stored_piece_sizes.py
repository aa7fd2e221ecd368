"""The sizes of the pieces of a streamed body for a handler without the key, which gets the stored body."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from machine.secrets.placeholder import MARK
from machine.secrets.restore import keys_in_order


def stored_pieces(true: Any, stored: Any, edits: Sequence[Any]) -> list[int] | None:
    """Return the sizes in bytes of the pieces of a response's stored body; None where storing changed none.

    A piece that ends within a secret ends after its placeholder; a piece without text left is dropped.
    """
    match true, stored:
        case {"chunks": list(sizes), "body": {"text": str(text)}}, {"body": {"text": str(kept)}}:
            pass
        case _:
            return None
    if sum(sizes) != len(text.encode()):
        return None
    cuts = next((change for node, change in edits if node == _node_of_text(stored)), None)
    if cuts is None:
        return None
    places, moved = itertools.accumulate(sizes), []
    shift = taken = 0  # how much longer the stored bytes are so far; how many true bytes are behind us
    at, end = 0, next(places, None)
    for begin, after, was in [*cuts, (len(kept), len(kept), "")]:
        taken += len(kept[at:begin].encode())  # up to the placeholder both are the same
        while end is not None and end <= taken:
            moved.append(end + shift)
            end = next(places, None)
        taken += len(was.encode())
        shift += len(kept[begin:after].encode()) - len(was.encode())
        while end is not None and end < taken:
            moved.append(taken + shift)
            end = next(places, None)
        at = after
    moved += [taken + shift] * (end is not None)
    return [size for first, second in itertools.pairwise([0, *moved]) if (size := second - first)]


def _node_of_text(stored: Any) -> int:
    """Return the number of the text of a body in a walk in which every key and every value counts one."""
    node = 1
    for key in keys_in_order(stored):
        if key == "body":
            return node + 3  # the key itself, its object, and the key of the text
        node += 1 + _size(stored[key])
    raise AssertionError


def _size(value: Any) -> int:
    if isinstance(value, dict) and MARK not in value:
        return 1 + sum(1 + _size(item) for item in value.values())
    return 1 + sum(_size(item) for item in value) if isinstance(value, list) else 1
