"""JSON arguments of a command: literal, in a file, or on stdin."""

from __future__ import annotations

import errno
import json as json_module
import sys
from pathlib import Path
from typing import Any, Final

from machine import canonical
from machine.errors import Code, UsageError

_LIKE: Final = """write it like '{"key": "value"}', or @FILE, or - for stdin"""


def regular_bytes(path: str | Path) -> bytes:
    """Return the bytes of a regular file. Raises `OSError`; a pipe or device is not opened, since it may hang."""
    if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():
        raise OSError(errno.EINVAL, "it is not a regular file")
    return Path(path).read_bytes()


def json_input(text: str, what: str, code: Code) -> Any:
    """Return the JSON value in `text`, or in its @FILE or -. Raises `UsageError` or `CanonicalError`."""
    return _parsed(text, what, code)[1]


def json_object(text: str, what: str, code: Code) -> dict[str, Any]:
    """Return a JSON object in the same way as `json_input`; any other value is refused."""
    source, value = _parsed(text, what, code)
    if not isinstance(value, dict):
        kind = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(
            type(value), "a number"
        )
        raise UsageError(f"{source} must be a JSON object, not {kind}", code=code, hint=_LIKE)
    return value


def _parsed(text: str, what: str, code: Code) -> tuple[str, Any]:
    source, text = _read(text, what, code)
    try:
        value = json_module.loads(text, object_pairs_hook=_no_doubles)
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"{source} is not JSON: {exc}", code=code, hint=_LIKE) from None
    canonical.encode(value)  # what no run could hold is refused before a store is touched
    return source, value


def _read(text: str, what: str, code: Code) -> tuple[str, str]:
    try:
        if text == "-":
            return f"{what} on stdin", sys.stdin.read()
        if text.startswith("@"):
            return f"{what} {text[1:]}", regular_bytes(text[1:]).decode("utf-8")
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        where = "stdin" if text == "-" else text[1:]
        raise UsageError(f"{what} {where} cannot be read: {reason}", code=code) from None
    return what, text


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands there twice")
    return value
