"""Names near to one that is not known, for hints."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable


def did_you_mean(
    name: str, names: Iterable[str], otherwise: str | None = None, *, show: Callable[[str], str] = str
) -> str | None:
    """Return a hint that names the one nearest to `name` of `names`, `otherwise` when none is near."""
    near = difflib.get_close_matches(name, list(names), 1)
    return f"did you mean {show(near[0])}?" if near else otherwise
