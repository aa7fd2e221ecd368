"""Output of commands: aligned lines, tables and JSON; data goes to stdout, the rest to stderr.

Colour is used only on a terminal. Nothing from a log reaches a terminal unescaped: a recorded response may
contain control sequences.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any, Final, Literal, TypeAlias

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

Cell: TypeAlias = str | tuple[str, str]
"""A piece of a line: text, or text and the style it has on a terminal."""

STYLES: Final[Mapping[str, str]] = {
    "completed": "green",
    "identical": "green",
    "failed": "bold red",
    "diverged": "bold red",
    "limit_exceeded": "bold red",
    "cancelled": "yellow",
    "interrupted": "yellow",
    "suspended": "yellow",
    "waiting": "yellow",
    "waits": "yellow",
    "open": "yellow",
    "running": "cyan",
    "skipped": "dim",
    "pending": "dim",
}
_SHORT: Final = 12


def on_terminal(stream: IO[str]) -> bool:
    """Return whether a stream is a terminal that understands colour and cursor movement."""
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        return False


def clean(text: str) -> str:
    """Return text on one line, with everything that is not printable escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def compact(value: Any, most: int = 200) -> str:
    """Return a value as one line of JSON, shortened to `most` characters."""
    text = json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
    return clean(text if len(text) <= most else f"{text[:most]}...")


def cut(text: str, most: int) -> str:
    """Return text shortened to a number of characters, but never to fewer than 8."""
    return text if len(text) <= most else f"{text[: max(most, 8) - 3]}..."


def short(identifier: str) -> str:
    """Return the first characters of a hash, enough for people to compare."""
    return identifier[:_SHORT]


def duration(ms: float) -> str:
    """Return milliseconds in a readable form."""
    if ms < 60_000:  # noqa: PLR2004 - a minute
        return f"{ms / 1000:.2f}s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m{seconds:02}s" if hours else f"{minutes}m{seconds:02}s"


def moment(ms: int, *, seconds: bool = False) -> str:
    """Return milliseconds since the epoch as local time: to the minute, or to the second if `seconds`."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M", time.localtime(ms / 1000))
    except (OverflowError, ValueError, OSError):  # a log may contain any number
        return str(ms)


class Output:
    """The output of one command; streams are looked up when used, so that a caller may redirect them."""

    def line(self, *cells: Cell, err: bool = False) -> None:
        """Print one line made of pieces, to stdout or (`err`) to stderr."""
        stream = sys.stderr if err else sys.stdout
        if not on_terminal(stream):
            stream.write("".join(_text(cell) for cell in cells).rstrip() + "\n")
            return
        text = Text.assemble(*cells)
        text.rstrip()
        console_of(stream).print(text, soft_wrap=True)

    def pairs(self, rows: Iterable[tuple[str, Cell]]) -> None:
        """Print names and values in two columns."""
        items = list(rows)
        width = max((len(name) for name, _ in items), default=0)
        for name, value in items:
            self.line((f"{name:<{width}}  ", "dim"), value)

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        """Print aligned columns; on a terminal the last is clipped to the width."""
        lines = [tuple((header, "dim") for header in headers), *rows]
        widths = [max(cell_len(_text(line[i])) for line in lines) for i in range(len(headers))]
        others = sum(widths[:-1]) + 2 * (len(widths) - 1)
        room = console_of(sys.stdout).width - others if on_terminal(sys.stdout) else None
        for line in lines:
            cells: list[Cell] = []
            for i, cell in enumerate(line):
                last = i == len(line) - 1
                text, style = _text(cell), "" if isinstance(cell, str) else cell[1]
                if last and room is not None and cell_len(text) > room:
                    text = set_cell_size(text, max(room - 1, 1)) + "\u2026"
                cells.append((text if last else f"{text}{' ' * (widths[i] - cell_len(text) + 2)}", style))
            self.line(*cells)

    def json(self, value: Mapping[str, Any]) -> None:
        """Print one JSON object on stdout: on one line, or indented for a person at a terminal."""
        sys.stdout.write(json.dumps(value, indent=2 if on_terminal(sys.stdout) else None) + "\n")

    def data(self, data: bytes) -> None:
        """Write bytes to stdout unchanged."""
        buffer = getattr(sys.stdout, "buffer", None)
        if buffer is None:  # stdout was replaced by a text-only stream
            sys.stdout.write(data.decode("utf-8", "backslashreplace"))
        else:
            sys.stdout.flush()
            buffer.write(data)

    def document(self, value: Any) -> None:
        """Print an indented JSON document for people."""
        text = json.dumps(value, indent=2, ensure_ascii=False)
        if on_terminal(sys.stdout):
            text = "\n".join(clean(line) for line in text.split("\n"))
        sys.stdout.write(text + "\n")


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell[0]


def colours() -> Literal["auto"] | None:
    """Return the colours to give a console: None, which is no style at all, when `NO_COLOR` is set."""
    # else rich would leave out colours alone, and print bold and dim
    return None if os.environ.get("NO_COLOR") else "auto"


def console_of(stream: IO[str]) -> Console:
    """Return a console that prints text on a stream as it is."""
    return Console(file=stream, color_system=colours(), highlight=False, markup=False, emoji=False)
