"""Rows of the table: a value, a ratio, a goal; how they are kept, and how what is kept is printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from contest import Found


@attrs.frozen
class Goal:
    """What is to be reached, by a row's ratio when it has one, else by its value."""

    limit: float
    most: bool

    def met(self, number: float) -> bool:
        """Say whether a number reaches the goal."""
        return number <= self.limit if self.most else number >= self.limit


def at_most(limit: float) -> Goal:
    """Return the goal of no more than `limit`."""
    return Goal(limit, most=True)


def at_least(limit: float) -> Goal:
    """Return the goal of no less than `limit`."""
    return Goal(limit, most=False)


@attrs.frozen(kw_only=True)
class Row:
    """One line: `ratio` is over the row named `over`; `absent` says why there is no value."""

    what: str
    value: float | None = None
    unit: str = ""
    ratio: float | None = None
    over: str | None = None
    goal: Goal | None = None
    absent: str | None = None
    samples: tuple[float, ...] = ()

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal or without a value."""
        number = self.ratio if self.over else self.value
        return None if self.goal is None or number is None else self.goal.met(number)

    def to_json(self) -> dict[str, Any]:
        """Return what is kept."""
        kept = attrs.asdict(
            self, filter=lambda field, value: field.name != "goal" and value not in (None, "", ())
        )
        if self.goal:
            limit = "at_most" if self.goal.most else "at_least"
            kept |= {
                "goal": {limit: self.goal.limit, "of": "ratio" if self.over else "value"},
                "met": self.met,
            }
        return {key: _rounded(value) for key, value in kept.items()}


def row(
    found: Found,
    name: str,
    key: str,
    unit: str,
    *,
    over: str | None = None,
    over_key: str | None = None,
    goal: Goal | None = None,
    what: str | None = None,
) -> Row:
    """Return the row of a contender: the median of `key`, and the ratio over that of another."""
    about: dict[str, Any] = {"what": what or name, "unit": unit, "over": over, "goal": goal}
    missing = found.absent.get(name)
    if missing is not None:
        return Row(**about, absent=missing)
    ratio = found.ratio(name, key, over, over_key or key) if over in found.told else None
    return Row(**about, value=found.median(name, key), ratio=ratio, samples=tuple(found.samples(name, key)))


def _short(number: float) -> str:
    if number == round(number) or abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.2f}" if abs(number) < 10 else f"{number:.1f}"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def cells(kept: Mapping[str, Any]) -> list[str]:
    """Return the cells of a row as it is kept."""
    goal, unit, over = kept.get("goal"), kept.get("unit", ""), kept.get("over")
    most = goal is not None and "at_most" in goal
    limit = goal["at_most" if most else "at_least"] if goal else 0
    return [
        kept["what"],
        kept.get("absent") or (f"{_short(kept['value'])} {unit}" if "value" in kept else ""),
        f"{_short(kept['ratio'])} × {over}" if "ratio" in kept else "",
        f"{'≤' if most else '≥'} {_short(limit)} {'×' if over else unit}" if goal else "",
        {True: "met", False: "MISSED", None: "?"}[kept["met"]] if goal else "",
    ]


def markdown(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Return kept figures as one table, aligned in plain text too."""
    table = [["what", "measured", "ratio", "goal", ""]]
    for name, figure in figures.items():
        table.append([f"**{name}**: {figure['title']}", "", "", "", ""])
        table += [cells(kept) for kept in figure["rows"]]
    # a title may be longer than what stands below it
    widths = [max(len(line[at]) for line in table if at or "**" not in line[0]) for at in range(5)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in table
    ]
    return "\n".join([lines[0], "| --- | ---: | ---: | ---: | --- |", *lines[1:]])
