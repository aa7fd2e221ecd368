"""Rows of the table: a value, a ratio, a goal; how they are printed and how they are kept."""

from __future__ import annotations

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

    def cells(self) -> list[str]:
        """Return the cells of the table."""
        sign, unit = ("≤", "≥")[self.goal is not None and not self.goal.most], "×" if self.over else self.unit
        return [
            self.what,
            self.absent or (f"{_short(self.value)} {self.unit}" if self.value is not None else ""),
            f"{_short(self.ratio)} × {self.over}" if self.ratio is not None else "",
            f"{sign} {_short(self.goal.limit)} {unit}" if self.goal else "",
            {True: "met", False: "MISSED", None: "?" if self.goal else ""}[self.met],
        ]

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


def markdown(rows: list[Row]) -> str:
    """Return rows as a table, aligned in plain text."""
    table = [["what", "measured", "ratio", "goal", ""], *(item.cells() for item in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in table
    ]
    rule = "| " + " | ".join("-" * width for width in widths) + " |"
    return "\n".join([lines[0], rule, *lines[1:]])
