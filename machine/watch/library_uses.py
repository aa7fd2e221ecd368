"""The uses of files and services that calls of library functions make, by their arguments.

A judge is given the arguments and returns the use, or None for a call that stays in the process. Judges look at
arguments without running the user's code; where they ask a connection for its database, they use its own functions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs

from machine.watch.safe_inspection import is_a, static_name


@attrs.frozen
class Use:
    """A use of something outside: `does` in words, the `paths` of its files, and whether it is an `effect`.

    What is no effect only reads files, and counts when the user's own code calls for it.
    """

    does: str
    effect: bool
    paths: tuple[str, ...] = ()


Judge: TypeAlias = Callable[[Sequence[Any], Mapping[str, Any]], Use | None]

_WORDS: Final = (
    *("path", "source", "file", "filepath_or_buffer", "path_or_buf", "filename", "fname", "where", "sink"),
    *("io", "target", "dest", "database", "metadata_path", "root_path", "output_file", "base_dir", "sources"),
    *("uri", "workbook", "path_or_buffer", "fp", "name", "path_or_paths", "file_or_path"),
)
"""The names under which libraries take a path."""

_REMOTE: Final = re.compile(r"(?!file:)[a-zA-Z][a-zA-Z0-9+.-]+://")
_MOST: Final = 3
_LONGEST_PATH: Final = 4096


def _given(args: Sequence[Any], kwargs: Mapping[str, Any], position: int) -> Any:
    if position < len(args):
        return args[position]
    return next((kwargs[word] for word in _WORDS if word in kwargs), None)


def _paths(value: Any) -> tuple[str, ...]:
    """Return the paths in an argument: one, or a list of them; nothing for what is open already or in memory."""
    if is_a(value, list, tuple):
        return tuple(path for each in value for path in _paths(each))
    if type(value) is bytes and (len(value) > _LONGEST_PATH or b"\n" in value):
        return ()  # data, not a path
    if not is_a(value, str, bytes, os.PathLike):
        return ()
    text = os.fsdecode(value)
    return () if text == os.devnull else (text.removeprefix("file://"),)


def _shown(paths: Sequence[str]) -> str:
    more = ", ..." if len(paths) > _MOST else ""
    return ", ".join(repr(path[:200]) for path in paths[:_MOST]) + more


def _of_files(paths: tuple[str, ...], verb: str, *, effect: bool) -> Use | None:
    if not paths:
        return None
    remote = any(_REMOTE.match(path) for path in paths)
    return Use(f"{verb} {_shown(paths)}", effect or remote, () if remote else paths)


def reads(position: int) -> Judge:
    """Return the judge of a function that reads the files that its argument names."""
    return lambda args, kwargs: _of_files(_paths(_given(args, kwargs, position)), "reads", effect=False)


def writes(position: int) -> Judge:
    """Return the judge of a function that writes the files that its argument names."""
    return lambda args, kwargs: _of_files(_paths(_given(args, kwargs, position)), "writes", effect=True)


def opens(position: int, mode: int, *, default: str = "r") -> Judge:
    """Return the judge of a function that opens a file in a mode: only the mode `r` does not write."""

    def judge(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Use | None:
        how = args[mode] if mode < len(args) else kwargs.get("mode", default)
        reading = how in {None, "r", "rb"}
        paths = _paths(_given(args, kwargs, position))
        return _of_files(paths, "reads" if reading else "writes", effect=not reading)

    return judge


def sends(does: str) -> Judge:
    """Return the judge of a function whose every call reaches a service: its arguments may be secret."""
    use = Use(does, effect=True)
    return lambda *_: use


def reads_any(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Use | None:
    """Judge a function, or a method, whose first argument or second names what it reads."""
    given = (
        *args[:2],
        *(kwargs[word] for word in (*_WORDS, "path_or_buffer", "file_glob") if word in kwargs),
    )
    return _of_files(tuple(path for each in given for path in _paths(each)), "reads", effect=False)


def camera(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Use | None:
    """Judge the opening of a film, or of a camera by its number."""
    given = _given(args, kwargs, 1)
    return (
        Use("opens a camera", effect=True)
        if is_a(given, int)
        else _of_files(_paths(given), "reads", effect=False)
    )


def arrow_reads(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Use | None:
    """Judge a method of an Arrow file system that reads: only a local one is no service."""
    paths = _paths(_given(args, kwargs, 1))
    local = type(args[0]).__name__ in {"LocalFileSystem", "SubTreeFileSystem"}
    return _of_files(paths or (".",), "reads", effect=not local)


def object_store(*, reading: bool) -> Judge:
    """Return the judge of a function that is given a store of objects: one in memory does not count."""

    def judge(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Use | None:
        kind = type(args[0] if args else kwargs.get("store")).__name__
        if kind == "MemoryStore":
            return None
        return Use(f"{'reads' if reading else 'changes'} objects", not reading or kind != "LocalStore")

    return judge


def polars_plan(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Use | None:
    """Judge the collection of a lazy frame: it reads if its plan scans files."""
    del kwargs
    found = re.findall(r"SCAN \[(.*?)(?:,|\])", args[0].explain(optimized=False))
    return _of_files(tuple(path for path in found if path != "in-mem"), "reads", effect=False)


# -- databases in a file ---------------------------------------------------------------------------------------


def _in_file(files: Sequence[Any]) -> Use | None:
    paths = tuple(file for file in files if is_a(file, str) and file)
    return Use(f"uses the database {_shown(paths)}", effect=True, paths=paths) if paths else None


def sqlite_files(connection: Any) -> Sequence[str]:
    """Return the files of an SQLite connection: none for one in memory, or for one of another thread."""
    kind: Any = static_name("sqlite3", "Connection")
    cursor_kind: Any = static_name("sqlite3", "Cursor")
    if kind is None or not is_a(connection, kind):
        return ()
    cursor = cursor_kind(connection)
    cursor.row_factory = None
    rows = cursor_kind.execute(cursor, "PRAGMA database_list").fetchall()
    return [file for _, _, file in rows if file]


def sqlite_connection(position: int, word: str) -> Judge:
    """Return the judge of a function that is given a connection of `sqlite3`."""

    def judge(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Use | None:
        return _in_file(sqlite_files(args[position] if position < len(args) else kwargs.get(word)))

    return judge


_DRIVERS_IN_C: Final = frozenset({"cx_oracle", "mysqlconnector", "mysqldb", "pymssql", "pyodbc"})
"""The drivers of SQLAlchemy that are written in C and have no entry points of their own in the table."""


def sqlalchemy_dialect(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Use | None:
    """Judge a connection or a statement that SQLAlchemy makes by a driver in C."""
    dialect: Any = args[0]
    cursor: Any = args[1] if len(args) > 1 else kwargs.get("cursor")
    if dialect.driver in _DRIVERS_IN_C:
        return Use("uses a database", effect=True)
    kind: Any = static_name("sqlite3", "Cursor")
    return _in_file(sqlite_files(cursor.connection)) if kind and is_a(cursor, kind) else None


def apsw_statement(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Use | None:
    """Judge a statement on a connection or a cursor of APSW."""
    del kwargs
    one: Any = args[0]
    if is_a(one, str):
        return _in_file([one] if one not in {"", ":memory:"} else [])
    connection: Any = one if hasattr(one, "filename") else one.connection
    return _in_file([connection.filename])


def lmdb_environment(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Use | None:
    """Judge the opening of an LMDB environment, or a transaction in one that was open before."""
    path: Any = args[0] if args else kwargs.get("path")
    return _in_file([path.path() if hasattr(path, "begin") else os.fsdecode(path)])


_DUCKDB_READS: Final = re.compile(
    r"\b(read_\w+|\w+_scan|glob|sniff_csv|st_read\w*|parquet_\w+)\s*\(|"
    r"\.(csv|tsv|txt|parquet|json|jsonl|ndjson|xlsx|db|duckdb|sqlite|arrow|feather|avro)\b|"
    r"\b(from|join)\s+'|://",
    re.IGNORECASE,
)
"""The names of files and addresses in a statement of DuckDB."""

_DUCKDB_WRITES: Final = re.compile(
    r"(^|;|\*/|\banalyze)\s*(copy|attach|export|import|install|load)\b", re.IGNORECASE | re.MULTILINE
)
"""The statements of DuckDB that reach files or addresses whatever their text names."""


def duckdb_connect(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Use | None:
    """Judge the opening of a DuckDB database."""
    database = args[0] if args else kwargs.get("database", ":memory:")
    if is_a(database, str) and (database in {"", ":default:"} or database.startswith(":memory:")):
        return None
    return _in_file(_paths(database))


def duckdb_statement(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Use | None:
    """Judge a statement of DuckDB: one in memory counts if it names a file."""
    kind: Any = static_name("duckdb", "DuckDBPyConnection")
    connection: Any = args[0] if args and is_a(args[0], kind) else kwargs.get("connection")
    rest = args[1:] if connection is not None and args and args[0] is connection else args
    text = rest[0] if rest else kwargs.get("query", "")
    if not is_a(text, str):
        return Use("runs a statement of DuckDB", effect=True)
    if _DUCKDB_WRITES.search(text):
        return Use("runs a statement that may write files", effect=True)
    if connection is not None and (use := _in_file(_duckdb_files(connection))) is not None:
        return use
    if (found := _DUCKDB_READS.search(text)) is None:
        return None
    return Use("runs a statement that reads files", effect="://" in text or "attach" in found[0].lower())


def _duckdb_files(connection: Any) -> Sequence[str]:
    rows = connection.cursor().execute("select path from duckdb_databases() where not internal").fetchall()
    return [path for (path,) in rows if path]
