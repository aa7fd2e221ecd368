"""Answers of Redis as JSON: what the parser of redis-py returns, undecoded, and the errors that it finds or raises.

Text stands for bytes that are UTF-8. A client that decodes its answers decodes these when it reads them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from machine import canonical
from machine.clients.redis_commands import argument_from_json, argument_to_json
from machine.errors import Code, IoError, TransportError
from machine.io.step_values import decode as decode_number
from machine.io.step_values import encode as encode_number

_ERROR: Final = "$error"
_ENTRIES: Final = "$dict"
_SET: Final = "$set"
_RETRYABLE: Final = frozenset({"ConnectionError", "TimeoutError", "BusyLoadingError"})


def _exceptions() -> Any:
    return importlib.import_module("redis.exceptions")


def error_to_json(exc: Any) -> dict[str, Any]:
    """Return the class, the message and the code of an error of redis-py as JSON."""
    found = {"class": _known_class(type(exc)).__name__, "message": str(exc)}
    code = getattr(exc, "status_code", None)
    return found | {"code": code} if isinstance(code, str) else found


def _known_class(kind: type[Any]) -> type[Any]:
    """Return the class of redis-py itself that an error has, or inherits from."""
    known = vars(_exceptions())
    found: type[Any] = next(base for base in kind.__mro__ if known.get(base.__name__) is base)
    return found


def error_from_json(stored: Mapping[str, Any]) -> Any:
    """Return the error of redis-py that `error_to_json` wrote, of a class of `redis.exceptions`."""
    library = _exceptions()
    kind = getattr(library, str(stored["class"]), None)
    if not (isinstance(kind, type) and issubclass(kind, library.RedisError)):
        kind = library.RedisError
    message = str(stored["message"])
    if "code" not in stored:
        return kind(message)
    try:
        return kind(message, status_code=stored["code"])
    except TypeError:  # releases before 7 have no codes
        return kind(message)


def failure_of(exc: Any, action: str) -> TransportError:
    """Return the failure of a call for an error that redis-py raised while it spoke to the server."""
    details = {"redis": error_to_json(exc)}
    retryable = details["redis"]["class"] in _RETRYABLE
    return TransportError(
        f"{action}: {type(exc).__name__}: {exc}",
        code=Code.IO_TRANSPORT_FAILED,
        retryable=retryable,
        details=details,
    )


def raised_for(failure: IoError) -> Any:
    """Return the error of redis-py for a recorded failure; None if redis-py had no part in it."""
    stored = (failure.info.details or {}).get("redis")
    return error_from_json(stored) if isinstance(stored, Mapping) else None


def reply_to_json(reply: Any) -> Any:
    """Return an undecoded answer as JSON."""
    if reply is None or isinstance(reply, bool):
        return reply
    if isinstance(reply, bytes):
        return argument_to_json(reply)
    if isinstance(reply, str):
        return reply
    if isinstance(reply, int | float):
        return encode_number(reply)
    if isinstance(reply, Exception):
        return {_ERROR: error_to_json(reply)}
    if isinstance(reply, dict):
        return {_ENTRIES: [[reply_to_json(key), reply_to_json(value)] for key, value in reply.items()]}
    items = [reply_to_json(item) for item in reply]
    # as releases before 5.1 read the sets of RESP3
    return {_SET: sorted(items, key=canonical.encode)} if isinstance(reply, set | frozenset) else items


def is_error(stored: Any) -> bool:
    """Say whether a reply, as JSON, is an error of the server."""
    return isinstance(stored, dict) and _ERROR in stored


def reply_from_json(stored: Any, decode: Callable[[bytes], Any] | None) -> Any:
    """Return the answer that `reply_to_json` wrote; with `decode`, its bytes are decoded."""
    if isinstance(stored, str):
        data = stored.encode()
        return data if decode is None else decode(data)
    if isinstance(stored, list):
        return [reply_from_json(item, decode) for item in stored]
    if not isinstance(stored, dict):
        return stored
    if is_error(stored):
        return error_from_json(stored[_ERROR])
    if _ENTRIES in stored:
        return {
            reply_from_json(key, decode): reply_from_json(value, decode) for key, value in stored[_ENTRIES]
        }
    if _SET in stored:
        return {reply_from_json(item, decode) for item in stored[_SET]}
    if "$bytes" in stored:
        data = argument_from_json(stored)
        return data if decode is None else decode(data)
    return decode_number(stored)
