"""Opening of a store from the URL or path that a user writes."""

from __future__ import annotations

import os
from typing import Literal
from urllib.parse import parse_qsl, unquote_to_bytes

from machine.errors import Code, OtherStoreError
from machine.stores.base import Store
from machine.stores.memory import MemoryStore
from machine.stores.sqlite import SqliteStore

_SUFFIXES = (".db", ".sqlite")
_SUPPORTED = (
    "use memory://, sqlite:///relative/path.db, sqlite:////absolute/path.db (either with "
    "?synchronous=full or ?synchronous=normal), or a path that ends in .db or .sqlite"
)


def open_store(url: str | os.PathLike[str], *, create: bool = True) -> Store:
    """Return the store that `url` names; close it when done, or use it as a context manager.

    `memory://` is a new store in memory. `sqlite:///runs.db` and `sqlite:////var/lib/runs.db` are files,
    percent-decoded, with `?synchronous=full` (the default) or `normal`; a path that ends in .db or .sqlite and any
    `os.PathLike` are files too, taken literally. `create=False` never makes a file.

    Raises `OtherStoreError` with code `store_unknown_url`, `NotFoundError` with code `store_not_found`, or another
    `StoreError` about the file.
    """
    if isinstance(url, os.PathLike):
        return SqliteStore(url, create=create)
    if "\0" in url or not _can_be_path(url):
        raise _unknown(url, "it cannot be a path")
    if "://" not in url:
        if not url.endswith(_SUFFIXES):
            raise _unknown(url, "it names neither a kind of store nor a database file")
        return SqliteStore(url, create=create)
    scheme, _, rest = url.partition("://")
    if scheme == "memory":
        if rest:
            raise _unknown(url, "memory:// takes no path and no options")
        return MemoryStore()
    if scheme != "sqlite":
        raise _unknown(url, f"there is no kind of store called {scheme!r}")
    # by hand: urlsplit drops line ends and fails on brackets, and there is no host to be parsed
    quoted, _, query = rest.partition("?")
    path = os.fsdecode(unquote_to_bytes(os.fsencode(quoted)))
    if "\0" in path:
        raise _unknown(url, "it cannot be a path")
    if not path.startswith("/") or path.endswith("/") or "#" in rest:
        raise _unknown(url, "it does not name a file")
    return SqliteStore(path[1:], synchronous=_synchronous(url, query), create=create)


def _can_be_path(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def _synchronous(url: str, query: str) -> Literal["full", "normal"]:
    synchronous = "full"
    for name, synchronous in parse_qsl(query, keep_blank_values=True):
        if name != "synchronous":
            raise _unknown(url, f"there is no option {name!r}")
        if synchronous not in {"full", "normal"}:
            raise _unknown(url, f"synchronous cannot be {synchronous!r}")
    return "normal" if synchronous == "normal" else "full"


def _unknown(url: str, why: str) -> OtherStoreError:
    return OtherStoreError(
        f"{url!r} does not name a store: {why}",
        code=Code.STORE_UNKNOWN_URL,
        details={"url": url},
        hint=_SUPPORTED,
    )
