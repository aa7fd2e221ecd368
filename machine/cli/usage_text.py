"""The amounts that a run has used, and of how much, for people and for programs."""

from __future__ import annotations

from typing import Any

from machine.cli.output import Cell
from machine.kernel.usage import Usage
from machine.limits import NAMES, Limits

_ALWAYS = ("tokens", "cost")


def used_rows(usage: Usage, limits: Limits) -> list[tuple[str, Cell]]:
    """Return the row that says what a run has used of its limits, and what it has spent; empty for neither."""
    given = limits.given
    parts = [
        f"{name} {usage.of(name)}{f' of {given[name]}' if name in given else ''}"
        for name in NAMES
        if name in given or (name in _ALWAYS and usage.of(name) != "0")
    ]
    return [("used", ", ".join(parts))] if parts else []


def used_json(usage: Usage) -> dict[str, Any]:
    """Return what a run has used as JSON; the cost is text, because it is exact."""
    return {
        "attempts": usage.attempts,
        "states": usage.states,
        "facts": usage.facts,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost": usage.of("cost"),
    }
