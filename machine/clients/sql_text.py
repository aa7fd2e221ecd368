"""Sorting of SQL statements by what they do: read, write, change the session, or begin and end a transaction.

It reads words, it does not parse. A statement that it does not know counts as a write, so that none goes unseen;
the read-only sessions of the servers catch a write that looks like a read.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import attrs


class Kind(StrEnum):
    """The kind of a statement; of several statements in one text it is the strongest."""

    READ = "read"
    SESSION = "session"
    BEGIN = "begin"
    SAVEPOINT = "savepoint"
    MAYBE = "maybe"
    """It calls a function of which nothing is known."""
    WRITE = "write"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    REFUSED = "refused"
    """It changes what this library has to rely on, or it cannot be recorded."""


@attrs.frozen
class Statement:
    """One text of SQL. `name` is that of a savepoint; `several` is true of more than one statement."""

    kind: Kind
    word: str
    name: str = ""
    several: bool = False
    dml: bool = False
    """True when its first word is that of a change of rows."""
    atomic: bool = False
    """True when it can be made in a transaction together with a note of it."""

    @property
    def writes(self) -> bool:
        """True when it changes the database for certain."""
        return self.kind is Kind.WRITE


_TOKEN: Final = re.compile(
    r"""--[^\n]*|/\*.*?\*/            # comments
    |[eE]'(?:[^'\\]|\\.|'')*'        # a string with escapes
    |'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\[[A-Za-z_][^\]']*\]
    |(\$[A-Za-z_]*\$).*?\1           # a dollar-quoted string
    |[A-Za-z_][\w$]*|;|\(|\)|=|[^\s\w]|\d[\w.]*""",
    re.DOTALL | re.VERBOSE,
)
_WORD: Final = re.compile(r"[A-Za-z_][\w$]*\Z")
_READS: Final = frozenset(
    {"SELECT", "VALUES", "TABLE", "SHOW", "EXPLAIN", "DESCRIBE", "DESC", "SUMMARIZE", "FROM", "WITH", "PIVOT"}
)
_SESSION: Final = frozenset(
    {"SET", "RESET", "USE", "LOAD", "ATTACH", "DETACH", "LISTEN", "UNLISTEN", "PREPARE", "DEALLOCATE"}
)
_DML: Final = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE"})
_ATOMIC: Final = _DML | {"CREATE", "DROP", "ALTER", "TRUNCATE", "GRANT", "REVOKE", "COMMENT", "LOCK"}
_ALONE: Final = frozenset({"CONCURRENTLY", "DATABASE", "SYSTEM", "TABLESPACE", "SUBSCRIPTION"})
"""Words of statements that Postgres makes outside of transactions only."""
_ORDER: Final = {kind: at for at, kind in enumerate(Kind)}
_PURE: Final = frozenset(
    [
        "ABS",
        "ARRAY_AGG",
        "ARRAY_LENGTH",
        "ARRAY_TO_STRING",
        "AVG",
        "BIT_LENGTH",
        "BOOL_AND",
        "BOOL_OR",
        "BTRIM",
        "CARDINALITY",
        "CAST",
        "CEIL",
        "CEILING",
        "CHAR_LENGTH",
        "COALESCE",
        "COL_DESCRIPTION",
        "CONCAT",
        "CONCAT_WS",
        "COUNT",
        "CUME_DIST",
        "CURRENT_DATABASE",
        "CURRENT_SCHEMA",
        "CURRENT_SCHEMAS",
        "CURRENT_SETTING",
        "DATE_PART",
        "DATE_TRUNC",
        "DENSE_RANK",
        "EXISTS",
        "EXTRACT",
        "FIRST_VALUE",
        "FLOOR",
        "FORMAT",
        "FORMAT_TYPE",
        "GENERATE_SERIES",
        "GREATEST",
        "INITCAP",
        "JSON_AGG",
        "JSON_BUILD_ARRAY",
        "JSON_BUILD_OBJECT",
        "JSON_OBJECT_AGG",
        "JSONB_AGG",
        "JSONB_ARRAY_ELEMENTS",
        "JSONB_BUILD_OBJECT",
        "JSONB_EACH",
        "LAG",
        "LAST_VALUE",
        "LEAD",
        "LEAST",
        "LEFT",
        "LENGTH",
        "LOWER",
        "LPAD",
        "LTRIM",
        "MAKE_DATE",
        "MAX",
        "MD5",
        "MIN",
        "MOD",
        "NOW",
        "NTH_VALUE",
        "NULLIF",
        "OBJ_DESCRIPTION",
        "OCTET_LENGTH",
        "PERCENTILE_CONT",
        "PG_GET_CONSTRAINTDEF",
        "PG_GET_EXPR",
        "PG_GET_INDEXDEF",
        "PG_GET_SERIAL_SEQUENCE",
        "PG_GET_VIEWDEF",
        "PG_TABLE_IS_VISIBLE",
        "PG_TYPE_IS_VISIBLE",
        "POSITION",
        "POWER",
        "RANDOM",
        "RANK",
        "REGEXP_MATCH",
        "REGEXP_MATCHES",
        "REGEXP_REPLACE",
        "REPEAT",
        "REPLACE",
        "REVERSE",
        "RIGHT",
        "ROUND",
        "ROW",
        "ROW_NUMBER",
        "ROW_TO_JSON",
        "RPAD",
        "RTRIM",
        "SIGN",
        "SPLIT_PART",
        "SQRT",
        "STRING_AGG",
        "STRPOS",
        "SUBSTR",
        "SUBSTRING",
        "SUM",
        "TO_CHAR",
        "TO_DATE",
        "TO_JSON",
        "TO_JSONB",
        "TO_NUMBER",
        "TO_REGCLASS",
        "TO_TIMESTAMP",
        "TRANSLATE",
        "TRIM",
        "TRUNC",
        "UNNEST",
        "UPPER",
        "VERSION",
        "AGE",
        "ANY",
        "ALL",
        "SOME",
        "ARRAY",
        "IN",
        "VALUES",
        "AS",
        "AND",
        "OR",
        "NOT",
        "ON",
        "USING",
        "OVER",
        "FILTER",
        "WHERE",
        "FROM",
        "SELECT",
        "BY",
        "WITHIN",
        "GROUP",
        "LATERAL",
        "WHEN",
        "THEN",
        "ELSE",
        "BETWEEN",
        "LIKE",
        "ILIKE",
        "IS",
        "DISTINCT",
        "UNION",
        "EXCEPT",
        "INTERSECT",
        "JOIN",
        "LIMIT",
        "OFFSET",
        "HAVING",
        "MATERIALIZED",
        "RECURSIVE",
        "INTERVAL",
        "NUMERIC",
        "DECIMAL",
        "VARCHAR",
        "CHAR",
        "CHARACTER",
        "TIMESTAMP",
        "TIMESTAMPTZ",
        "TIME",
        "BIT",
        "FLOAT",
    ]
)
"""Functions of Postgres, and words before a parenthesis, that certainly change nothing."""
_PRAGMA_ASKS: Final = frozenset(
    [
        "TABLE_INFO",
        "TABLE_XINFO",
        "TABLE_LIST",
        "INDEX_LIST",
        "INDEX_INFO",
        "INDEX_XINFO",
        "FOREIGN_KEY_LIST",
        "FOREIGN_KEY_CHECK",
        "INTEGRITY_CHECK",
        "QUICK_CHECK",
        "DATABASE_LIST",
        "COLLATION_LIST",
        "FUNCTION_LIST",
        "COMPILE_OPTIONS",
        "SHOW",
        "DATABASE_SIZE",
        "STORAGE_INFO",
        "VERSION",
    ]
)
_PRAGMA_WRITES: Final = frozenset(
    [
        "JOURNAL_MODE",
        "USER_VERSION",
        "APPLICATION_ID",
        "AUTO_VACUUM",
        "INCREMENTAL_VACUUM",
        "WAL_CHECKPOINT",
        "OPTIMIZE",
        "ENCODING",
    ]
)


@functools.lru_cache(maxsize=1024)
def statement_of(sql: str) -> Statement:
    """Return what a text of SQL does."""
    parts = _statements(sql)
    if not parts:
        return Statement(Kind.READ, "")
    found = [_one(part) for part in parts]
    if len(found) == 1:
        return found[0]
    ends = {Kind.BEGIN, Kind.COMMIT, Kind.ROLLBACK, Kind.SAVEPOINT}
    kinds = {each.kind for each in found}
    if kinds & ends and not (found[0].kind is Kind.BEGIN and found[-1].kind in {Kind.COMMIT, Kind.ROLLBACK}):
        return Statement(
            Kind.REFUSED, found[0].word, "several statements, one of which is of a transaction", several=True
        )
    kinds -= ends
    strongest = max(kinds or {Kind.READ}, key=_ORDER.__getitem__)
    ended = found[0].kind is Kind.BEGIN
    atomic = not ended and all(each.atomic for each in found)
    return Statement(strongest, found[0].word, several=True, atomic=atomic)


def _statements(sql: str) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for match in _TOKEN.finditer(sql):
        found = match[0]
        if found == ";":
            parts.append([])
        elif not found.startswith(("--", "/*")):
            parts[-1].append(found.upper() if _WORD.match(found) else found)
    return [part for part in parts if part]


def _one(words: Sequence[str]) -> Statement:
    first = next((word for word in words if word != "("), "")
    if "SET_CONFIG" in words and _may_lift(words):
        return Statement(Kind.REFUSED, "set_config")
    after = words[1] if len(words) > 1 else ""
    match first:
        case "BEGIN" | "START":
            return Statement(Kind.REFUSED if ("READ", "WRITE") in _pairs(words) else Kind.BEGIN, first)
        case "COMMIT" | "END":
            return Statement(Kind.REFUSED if {"PREPARED", "CHAIN"} & set(words) else Kind.COMMIT, first)
        case "ROLLBACK" | "ABORT":
            if "TO" in words:
                return Statement(Kind.SAVEPOINT, "ROLLBACK TO", words[-1])
            return Statement(Kind.REFUSED if {"PREPARED", "CHAIN"} & set(words) else Kind.ROLLBACK, first)
        case "SAVEPOINT" | "RELEASE":
            return Statement(Kind.SAVEPOINT, first, words[-1])
        case "PRAGMA":
            return Statement(_pragma(words), first)
        case "DECLARE" | "FETCH" | "MOVE" | "CLOSE":
            return Statement(Kind.REFUSED, first, "a cursor of the server")
        case "COPY":
            return Statement(Kind.REFUSED, first, "COPY")
        case "DISCARD":
            return Statement(Kind.REFUSED, first)
        case "PREPARE" if after == "TRANSACTION":
            return Statement(Kind.REFUSED, first, "a transaction in two phases")
    if first in _SESSION:
        return Statement(_session(words), first)
    if first in _READS and not (first == "EXPLAIN" and "ANALYZE" in words and _DML & set(words)):
        return Statement(_read(words), first, atomic=True)
    atomic = first in _ATOMIC and not _ALONE & set(words)
    return Statement(Kind.WRITE, first, dml=first in _DML, atomic=atomic)


def _pairs(words: Sequence[str]) -> set[tuple[str, str]]:
    return set(itertools.pairwise(words))


def _pragma(words: Sequence[str]) -> Kind:
    names = [word for word in words[1:] if _WORD.match(word)]
    name = names[1] if len(names) > 1 and "." in words[:4] else next(iter(names), "")
    if (
        "=" not in words
        and "(" not in words
        and name not in {"INCREMENTAL_VACUUM", "WAL_CHECKPOINT", "OPTIMIZE"}
    ):
        return Kind.READ
    if name in _PRAGMA_ASKS:
        return Kind.READ
    if name in {"QUERY_ONLY", "WRITABLE_SCHEMA"}:
        return Kind.REFUSED
    return Kind.WRITE if name in _PRAGMA_WRITES else Kind.SESSION


def _may_lift(words: Sequence[str]) -> bool:
    """Say whether a call of `set_config` may make a session writable."""
    texts = [word for word in words if word.startswith("'")]
    return not texts or any("read_only" in word.lower() for word in texts)


def _session(words: Sequence[str]) -> Kind:
    joined = " ".join(words)
    if joined == "RESET ALL":
        return Kind.REFUSED
    lifted = "READ WRITE" in joined or "TRANSACTION_READ_ONLY" in joined or "ACCESS_MODE" in joined
    return Kind.REFUSED if lifted else Kind.SESSION


def _read(words: Sequence[str]) -> Kind:
    known = set(words)
    if known & (_DML - {"REPLACE", "UPDATE"}) or known & {"NEXTVAL", "SETVAL"} or "INTO" in known:
        return Kind.WRITE
    pairs = _pairs(words)
    if any(one == "UPDATE" for one, _ in pairs) or words[-1] == "UPDATE" or ("FOR", "SHARE") in pairs:
        return Kind.WRITE  # a change in WITH, or rows that are locked for one
    if ("KEY", "SHARE") in pairs:
        return Kind.WRITE
    called = {one for one, then in pairs if then == "(" and _WORD.match(one)}
    return Kind.MAYBE if called - _PURE else Kind.READ
