"""Parts of every transport's requests and responses: bytes in JSON, and checked arguments.

Everything here is pure. Nothing is guessed: a value that JSON cannot hold exactly is refused, so that the same call
has the same request bytes in any process, on any machine.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from machine.errors import Code, OtherIoError

LARGEST_INTEGER: Final = 2**53 - 1
"""The largest integer that JSON holds exactly everywhere (RFC 7493 section 2.2)."""


def pack(data: bytes) -> dict[str, str]:
    """Return bytes as JSON: `{"text": ...}` when they are UTF-8, else `{"base64": ...}`.

    `unpack` returns the same bytes in either case. Text is readable in a diff.
    """
    try:
        return {"text": data.decode("utf-8")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode("ascii")}


def unpack(packed: Mapping[str, Any]) -> bytes:
    """Return the bytes that `pack` was given. Raises `OtherIoError(io_invalid_request)` for anything else."""
    match packed:
        case {"text": str(text), **rest} if not rest:
            try:
                return text.encode("utf-8")
            except UnicodeEncodeError:
                raise refusal("packed text holds a lone surrogate, which is not UTF-8") from None
        case {"base64": str(text), **rest} if not rest:
            try:
                return base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError):
                raise refusal("packed bytes are not base64") from None
    raise refusal('packed bytes must be {"text": ...} or {"base64": ...}')


def refusal(problem: str, **details: Any) -> OtherIoError:
    """Return `OtherIoError(io_invalid_request)`: the call itself is wrong, so a retry cannot help."""
    return OtherIoError(problem, code=Code.IO_INVALID_REQUEST, details=details or None)


def field(request: Any, name: str, *kinds: type, default: Any = None) -> Any:
    """Return a field of a request that our builder may not have made; refuse it when it has the wrong type.

    A missing field is `default`; without one (None) the field is required, unless `NoneType` is among the kinds.
    """
    is_object = type(request) is dict or isinstance(request, Mapping)  # the first is quick, and nearly always
    value = request.get(name, default) if is_object else None
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise refusal(f"the request needs a field {name!r} of type {wanted}")
    return value


def checked_text(value: Any, what: str, *, empty: bool = True, nul: bool = False) -> str:
    """Return `value` if it is a string that JSON and the operating system can hold; refuse it otherwise.

    A lone surrogate is never allowed; the empty string and NUL are allowed as the flags say.
    """
    if not isinstance(value, str):
        raise refusal(f"{what} must be a string, not {type(value).__name__}")
    if not empty and not value:
        raise refusal(f"{what} must not be empty")
    if not nul and "\0" in value:
        raise refusal(f"{what} holds a NUL character")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise refusal(f"{what} holds a lone surrogate, which is not Unicode text") from None
    return str(value)


def checked_count(value: Any, what: str, *, least: int = 0, most: int = LARGEST_INTEGER) -> int:
    """Return `value` if it is an integer from `least` to `most`; refuse it otherwise."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise refusal(f"{what} must be an integer, not {type(value).__name__}")
    if not least <= value <= most:
        raise refusal(f"{what} must be from {least} to {most}, not {value}")
    return int(value)


def checked_seconds(value: Any, what: str, *, zero: bool = False, most: float = 365 * 86400) -> float:
    """Return `value` if it is a finite number of seconds, above 0 (from 0, with `zero`) up to `most`."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise refusal(f"{what} must be a number of seconds, not {type(value).__name__}")
    if not 0 <= value <= most or (value == 0 and not zero):  # not NaN either
        lowest = "from 0" if zero else "above 0 and"
        raise refusal(f"{what} must be {lowest} up to {most:g} seconds, not {value}")
    return float(value)
