"""The search for a secret in what is stored as it is: the context, the input of a run, and keys."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from machine.secrets.credential_formats import shapes
from machine.secrets.encodings import SEARCHED_ANYWHERE
from machine.secrets.known_values import Known
from machine.secrets.placeholder import TEXT, source_of
from machine.secrets.policy import path_text
from machine.secrets.redact import say_text, texts_in
from machine.secrets.redacted_text import TooManyPlacesError, Work
from machine.secrets.rules import Rules
from machine.secrets.value_places import is_allowed


def refused(rules: Rules, known: Known, key: str, value: Any) -> str | None:
    """Return the path of the first secret in a context, an input or a key, None when there is none."""
    near = known.near([key, *texts_in(value)])
    todo: list[tuple[Any, list[str | int]]] = [(value, [key]), (key, [key])]
    while todo:
        item, path = todo.pop()
        if isinstance(item, str):
            if _is_refused(rules, known, near, item, allowed=is_allowed(rules, path)):
                return _said(rules, known, path)
        elif isinstance(item, dict):
            for name, member in reversed(item.items()):
                todo += (member, [*path, name]), (name, [*path, name])
        elif isinstance(item, list | tuple):
            todo += [(item[at], [*path, at]) for at in range(len(item) - 1, -1, -1)]
    return None


def _said(rules: Rules, known: Known, path: Sequence[str | int]) -> str:
    """Return a path with placeholders in quotes, whatever the true value looks like: a replay may not have it."""
    parts = ["$"]
    for step in path:
        said = say_text(rules, known, step) if isinstance(step, str) else step
        quoted = isinstance(said, str) and TEXT.search(said)
        parts.append(f"[{json.dumps(said)}]" if quoted else path_text([step])[1:])
    return "".join(parts)


def _is_refused(rules: Rules, known: Known, near: Known, text: str, *, allowed: bool) -> bool:
    if known.source_of(text, plain=False) is not None:
        return True
    for found in TEXT.finditer(text):
        if source_of(found[0]) in known.sources:
            return True
    try:
        if any(len(cut.true) >= SEARCHED_ANYWHERE for cut in near.marked(text).cuts):
            return True
    except TooManyPlacesError:
        return True
    return not allowed and next(shapes(rules.formats_in(text), text, Work()), None) is not None
