"""Secrets in the columns of tables: CSV, results of SQL, Markdown, what programs align with blanks, and INSERTs.

The work is linear in the text: each line is split once for the table that it stands in, and a few times at most to
see whether it is the head of one.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from machine.secrets.credential_looks import SHORTEST, looks_like_credential
from machine.secrets.names import Strength
from machine.secrets.redacted_text import MOST_CANDIDATES, TooManyPlacesError, Work
from machine.secrets.rules import Rules

_DELIMITERS: Final = ("|", "\u2502", "\t", ",", ";", "  ")
_NEAR: Final = re.compile("pass|secret|token|key|pwd|credential")
_RULE: Final = re.compile(r"[-+|:= \u2500-\u257f]++")
_TITLE: Final = re.compile(r"[A-Za-z_][\w. -]{0,39}")
_ALIGNED: Final = re.compile(r"(?:[^ \t]++[ ]?)++")
_HEAD: Final = re.compile(r"(?:[\w \t.,;|\u2502\"'`*-]++|COPY [^()]++\([^()]++\)[^()]*+)", re.IGNORECASE)
"""A line that may be the titles of a table's columns."""

_NO_ROWS: Final = re.compile(r"(?:(?!copy )[\w .\"'`*-]*+[^\w\s.\"'`*,;|\u2502-][^|\n]*+\n)*+")
"""Lines with no bar and a sign in what would be their first cell that neither a title nor a name has."""

_COPY: Final = re.compile(r"COPY [\w.\"]{1,100} \(([^()]{1,1000})\) FROM std", re.IGNORECASE)
_INSERT: Final = re.compile(
    r"into[ \t]{1,4}+[\w.\"`]{1,100}+[ \t]{0,4}+\(([^()]{1,2000}+)\)\s{0,20}+values\s{0,20}+(?=\()"
)
_TUPLE: Final = re.compile(r"[,\s]{0,20}+\(((?:[^()']++|'[^']*+'|\([^()']{0,100}+\))*+)\)")
_ITEM: Final = re.compile(r"(?:[^,']++|'[^']*+')++")
_PAIR: Final = re.compile(
    r"(?:[\w.-]{0,40}+[,;\t])?[ \"']{0,2}+([A-Za-z][\w. -]{1,60}+)[\"']?[,;\t][ \"']{0,2}+"
    r"([^\s,;\"']{1,2048}+)[\"']?"
    r"(?:[,;\t][^,;\t\r\n]{0,200}+)?"
)
"""A row of a name and its value, with one more cell before or behind them: `7,api_key,x`."""

_LONGEST_LINE: Final = 4096
_MOST_COLUMNS: Final = 64
_LEAST: Final = 2
_PLAIN: Final = frozenset("\t,;")
_MANY: Final = 1000
"""The number of rows after which it is faster to skip plain rows by one expression."""

_ROW: Final = 4
"""The units of `Work` for a row."""

_JUDGED: Final = 6
"""The units of `Work` for a cell that is judged."""

_MOST_BARS: Final = 3
"""The most vertical bars in a row of a name and a value, those around it included."""


class _Cell(NamedTuple):
    begin: int
    end: int


class _Table(NamedTuple):
    delimiter: str
    columns: int
    secret: dict[int, str]


def may_have_table(text: str) -> bool:
    """Tell whether a text that holds the name of a secret could hold a table."""
    return "\n" in text or "|" in text or "into" in text or "INTO" in text


def in_tables(rules: Rules, text: str, low: str, work: Work) -> Iterator[tuple[int, int, str]]:
    """Yield the offsets of values that look like credentials under secret names, and these names.

    `low` is the text in lower case.
    """
    table: _Table | None = None
    at = heads = rows = 0
    while at < len(text):
        if table is None:  # only a line with such a name is a head
            near = _NEAR.search(low, at)
            if near is None:
                break
            at = max(at, text.rfind("\n", at, near.start()) + 1)
            skipped = _NO_ROWS.match(low, at)
            if skipped and skipped.end() > at:
                at = skipped.end()
                continue
        elif rows > _MANY and table.delimiter in _PLAIN:
            plain = _plain_rows(table.delimiter, table.columns, tuple(table.secret)).match(text, at)
            at = plain.end() if plain else at
        begin, end = at, text.find("\n", at)
        end = len(text) if end < 0 else end
        at = end + 1
        work.spend(1)
        line = text[begin:end].rstrip("\r") if end - begin <= _LONGEST_LINE else ""
        if line and _RULE.fullmatch(line):
            continue
        if table is not None or "|" in line:
            rows += 1
            work.spend(_ROW)
        cells = _cells(line, table.delimiter) if table else []
        if table is not None and len(cells) == table.columns:
            for column, name in table.secret.items():
                yield from _credential(text, begin, cells[column], name, work)
            continue
        table = None  # one ends with an empty line
        if _HEAD.fullmatch(line) and _NEAR.search(low, begin, end):
            heads += 1
            if heads > MOST_CANDIDATES:
                raise TooManyPlacesError
            table = _head(rules, line)
        if table is None and 0 < line.count("|") <= _MOST_BARS:
            yield from _row(rules, text, begin, line, work)
        elif table is None and (pair := _PAIR.fullmatch(line)) and _is_secret(rules, pair[1]):
            yield from _credential(text, begin, _Cell(*pair.span(2)), pair[1], work)
    for insert in work.candidates(_INSERT.finditer(low)):
        yield from _inserted(rules, text, insert, work)


@functools.lru_cache(maxsize=64)
def _plain_rows(delimiter: str, columns: int, secret: tuple[int, ...]) -> re.Pattern[str]:
    """Return a pattern for rows of a table that have only short texts and plain words in the secret columns."""
    other = rf"[^{delimiter}\"\r\n]"
    plain = rf"(?:[a-z]{{0,15}}+(?!{other})|{other}{{0,5}}+)"
    cells = (plain if at in secret else f"{other}*+" for at in range(columns))
    return re.compile(rf"(?:{delimiter.join(cells)}\r?\n)*+")


def _cells(line: str, delimiter: str) -> list[_Cell]:
    """Return the offsets of the cells of a line, without quotes and blanks around them."""
    if delimiter == "  ":
        found = [_Cell(*cell.span()) for cell in _ALIGNED.finditer(line)]
    else:
        found, at = [], 0
        while len(found) <= _MOST_COLUMNS:
            begin = at
            if delimiter in ",;" and line[at : at + 1] == '"':
                at = max(line.find('"', at + 1), at)
            at = line.find(delimiter, at)
            found.append(_Cell(begin, len(line) if at < 0 else at))
            if at < 0:
                break
            at += len(delimiter)
        if delimiter in "|\u2502":  # those around a row are no parts of it
            ends = {found[0], found[-1]}
            found = [cell for cell in found if cell not in ends or line[cell.begin : cell.end].strip()]
    return [_stripped(line, cell) for cell in found]


def _stripped(line: str, cell: _Cell) -> _Cell:
    begin, end = cell
    while begin < end and line[begin] in " \t\"'`*":
        begin += 1
    while begin < end and line[end - 1] in " \t\"'`*":
        end -= 1
    return _Cell(begin, end)


def _head(rules: Rules, line: str) -> _Table | None:
    """Return the table of which a line is the head, with its secret columns, or None when it is no such line."""
    copied = _COPY.match(line)
    delimiters = ("\t",) if copied else _DELIMITERS
    for delimiter in delimiters:
        if not copied and delimiter not in line:
            continue
        if copied:
            titles = [title.strip(' "') for title in copied[1].split(",")]
        else:
            titles = [line[cell.begin : cell.end] for cell in _cells(line, delimiter)]
        if not _LEAST <= len(titles) <= _MOST_COLUMNS or not all(map(_is_title, titles)):
            continue
        secret = {at: title for at, title in enumerate(titles) if _is_secret(rules, title)}
        if secret:
            return _Table(delimiter, len(titles), secret)
    return None


def _is_title(text: str) -> bool:
    return not text or (_TITLE.fullmatch(text) is not None and not looks_like_credential(text))


def _is_secret(rules: Rules, name: str) -> bool:
    return rules.field(name) in {Strength.EXACT, Strength.SEVERAL, Strength.LIKELY, Strength.OWN} or (
        name.lower() in {"token", "pass"}
    )


def _row(rules: Rules, text: str, at: int, line: str, work: Work) -> Iterator[tuple[int, int, str]]:
    """Yield the secret of a row of a name and its value: `password | x`."""
    cells = _cells(line, "|")
    if len(cells) == _LEAST and _is_secret(rules, line[cells[0].begin : cells[0].end]):
        yield from _credential(text, at, cells[1], line[cells[0].begin : cells[0].end], work)


def _credential(text: str, at: int, cell: _Cell, name: str, work: Work) -> Iterator[tuple[int, int, str]]:
    begin, end = at + cell.begin, at + cell.end
    if end - begin < SHORTEST:
        return
    work.spend(_JUDGED)
    if looks_like_credential(work.read(text[begin:end])):
        yield begin, end, name


def _inserted(rules: Rules, text: str, insert: re.Match[str], work: Work) -> Iterator[tuple[int, int, str]]:
    """Yield the secrets in the rows that a statement of SQL inserts."""
    names = [name.strip('"`[] \t\r\n') for name in text[slice(*insert.span(1))].split(",")]
    secret = {at: name for at, name in enumerate(names) if _is_secret(rules, name)}
    row = _TUPLE.match(text, insert.end()) if secret else None
    while row is not None:
        for at, item in enumerate(_ITEM.finditer(row[1])):
            if at in secret:
                cell = _stripped(row[1], _Cell(*item.span()))
                yield from _credential(text, row.start(1), cell, secret[at], work)
        row = _TUPLE.match(text, row.end())
