"""The language in which users select runs: `error.code = "state_timeout" and waiting > 1h`.

`parsed` makes a tree of a text, and refuses what means nothing with the position of the fault. Evaluation is in
`engine/filtered_runs.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, TypeAlias

import attrs

from machine.did_you_mean import did_you_mean
from machine.errors import Code, UsageError


class Kind(Enum):
    """The kinds of values that a column has."""

    TEXT = "a text"
    NUMBER = "a whole number"
    DURATION = "a duration like 90s, 30m, 1h or 2d"


COLUMNS: Final[Mapping[str, Kind]] = {
    "run": Kind.TEXT,
    "status": Kind.TEXT,
    "op": Kind.TEXT,
    "plan": Kind.TEXT,
    "state": Kind.TEXT,
    "error.code": Kind.TEXT,
    "wait": Kind.TEXT,
    "waiting": Kind.DURATION,
    "age": Kind.DURATION,
    "attempts": Kind.NUMBER,
    "retries": Kind.NUMBER,
    "events": Kind.NUMBER,
}
"""The columns, with the kind of their values. `docs/looking-at-runs.md` says what each of them is."""

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DEEPEST: Final = 100
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<quoted>"[^"]*"|'[^']*')|(?P<sign><=|>=|!=|=|<|>|\(|\)|,)|(?P<word>[A-Za-z0-9_][A-Za-z0-9_.:@-]*))"""
)
_DURATION: Final = re.compile(r"(?:[0-9]{1,9}[smhd])+")
_KEYWORDS: Final = frozenset({"and", "or", "not", "in"})
_SIGNS: Final = ("=", "!=", "<", "<=", ">", ">=")


@attrs.frozen
class Comparison:
    """A column compared with a value; `values` has several only for `in`. Durations are in milliseconds."""

    column: str
    sign: str
    values: tuple[str | int, ...]


@attrs.frozen
class Not:
    """The opposite of a condition."""

    of: Condition


@attrs.frozen
class And:
    """Conditions that all hold."""

    of: tuple[Condition, ...]


@attrs.frozen
class Or:
    """Conditions of which one holds."""

    of: tuple[Condition, ...]


Condition: TypeAlias = Comparison | Not | And | Or


@attrs.frozen
class _Token:
    text: str
    at: int
    quoted: bool = False

    @property
    def keyword(self) -> str:
        """The keyword that this is, else an empty text."""
        word = self.text.lower()
        return word if not self.quoted and word in _KEYWORDS else ""


def parsed(text: str) -> Condition:
    """Return the condition that a text says. Raises `UsageError` (`invalid_filter`)."""
    return _Parser(text).whole()


@attrs.define
class _Parser:
    """A reader of one text, from left to right."""

    text: str
    tokens: list[_Token] = attrs.field(init=False)
    at: int = 0
    depth: int = 0

    def __attrs_post_init__(self) -> None:
        self.tokens = []
        place, text = 0, self.text.rstrip()
        while place < len(text):
            found = _TOKEN.match(text, place)
            if found is None:
                blank = len(text[place:]) - len(text[place:].lstrip())
                bad = text[place + blank]
                what = "a quotation that does not end" if bad in "\"'" else f"{bad!r}"
                raise self._fault(f"{what} means nothing here", place + blank)
            kind = str(found.lastgroup)
            word = found[kind]
            quoted = kind == "quoted"
            self.tokens.append(_Token(word[1:-1] if quoted else word, found.start(kind), quoted))
            place = found.end()

    def whole(self) -> Condition:
        """Return the condition of the whole text."""
        if not self.tokens:
            raise self._fault("it is empty", 0)
        condition = self._any()
        if (left := self._next()) is not None:
            raise self._fault(f"{left.text!r} follows the end of a condition: join two with and, or", left.at)
        return condition

    def _next(self) -> _Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def _take(self, expected: str) -> _Token:
        token = self._next()
        if token is None:
            raise self._fault(f"{expected} is missing at the end", len(self.text.rstrip()))
        self.at += 1
        return token

    def _takes(self, keyword: str) -> bool:
        token = self._next()
        if token is None or token.keyword != keyword:
            return False
        self.at += 1
        return True

    def _any(self) -> Condition:
        found = [self._all()]
        while self._takes("or"):
            found.append(self._all())
        return found[0] if len(found) == 1 else Or(tuple(found))

    def _all(self) -> Condition:
        found = [self._one()]
        while self._takes("and"):
            found.append(self._one())
        return found[0] if len(found) == 1 else And(tuple(found))

    def _one(self) -> Condition:
        self.depth += 1
        token = self._take("a column")
        if self.depth > _DEEPEST:
            raise self._fault(f"it is nested more than {_DEEPEST} deep", token.at)
        found: Condition
        if token.keyword == "not":
            found = Not(self._one())
        elif token.text == "(" and not token.quoted:
            found = self._any()
            closing = self._take("a closing parenthesis")
            if closing.text != ")":
                raise self._fault(f"{closing.text!r} stands where a closing parenthesis is due", closing.at)
        else:
            found = self._comparison(token)
        self.depth -= 1
        return found

    def _comparison(self, named: _Token) -> Comparison:
        column = named.text
        if column not in COLUMNS or named.quoted:
            near = did_you_mean(column, COLUMNS)
            raise self._fault(
                f"there is no column {column!r}", named.at, near or f"one of {', '.join(COLUMNS)}"
            )
        sign = self._take(f"a comparison of {column}")
        if sign.keyword == "in":
            return Comparison(column, "in", self._list(column))
        if sign.text not in _SIGNS or sign.quoted:
            raise self._fault(
                f"{sign.text!r} compares nothing, for {column}", sign.at, f"one of {', '.join(_SIGNS)}, in"
            )
        if COLUMNS[column] is Kind.TEXT and sign.text not in {"=", "!="}:
            raise self._fault(f"{column} is {Kind.TEXT.value}: it has no order", sign.at, "one of =, !=, in")
        return Comparison(column, sign.text, (self._value(column),))

    def _list(self, column: str) -> tuple[str | int, ...]:
        opening = self._take("an opening parenthesis")
        if opening.text != "(" or opening.quoted:
            raise self._fault(f"the values of {column} in (...) stand in parentheses", opening.at)
        found = [self._value(column)]
        while (token := self._take("a closing parenthesis")).text != ")" or token.quoted:
            if token.text != "," or token.quoted:
                raise self._fault(f"{token.text!r} stands where a comma is due", token.at)
            found.append(self._value(column))
        return tuple(found)

    def _value(self, column: str) -> str | int:
        token, kind = self._take(f"a value of {column}"), COLUMNS[column]
        word = token.text
        if not token.quoted and (word in {*_SIGNS, "(", ")", ","} or token.keyword):
            raise self._fault(f"{word!r} stands where a value of {column} is due", token.at)
        if kind is Kind.TEXT:
            return word
        if kind is Kind.NUMBER and word.isascii() and word.isdigit() and len(word) <= 18:  # noqa: PLR2004 - in 64 bits
            return int(word)
        if kind is Kind.DURATION and _DURATION.fullmatch(word):
            return (
                sum(int(part[:-1]) * _SECONDS[part[-1]] for part in re.findall("[0-9]+[smhd]", word)) * 1000
            )
        raise self._fault(f"{column} is {kind.value}, not {word!r}", token.at, column=column)

    def _fault(self, problem: str, at: int, hint: str | None = None, column: str | None = None) -> UsageError:
        details: dict[str, Any] = {"filter": self.text, "position": at + 1}
        named = [column] if column else [t.text for t in self.tokens if t.text in COLUMNS and t.at <= at][-1:]
        if named:
            details["column"] = named[0]
        return UsageError(
            f"the filter cannot be read at character {at + 1}: {problem}",
            code=Code.INVALID_FILTER,
            details=details,
            hint=hint or """a filter is like status = failed and error.code = "state_timeout" and age > 1h""",
        )
