"""The errors of HTTP calls, made of the failures of the HTTP library, of sockets and of decoders."""

from __future__ import annotations

import errno
import socket
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from machine.errors import Code, OtherIoError, TransportError
from machine.io.httpx_logs import unlogged
from machine.io.urls import bare_url, public_url


def failure(
    call: Mapping[str, Any], code: Code, problem: str, *, retryable: bool = False, **more: Any
) -> TransportError:
    """Return the error of a call, with its method and URL."""
    url = call["url"]
    return TransportError(
        f"{call['method']} {bare_url(url)} {problem}",
        code=code,
        retryable=retryable,
        details={"method": call["method"], "url": public_url(url), **more},
    )


def too_large(call: Mapping[str, Any]) -> TransportError:
    """Return the error of an answer whose body exceeds the limit of the call."""
    most = call["max_body"]
    problem = f"has a body of more than {most} bytes"
    return failure(call, Code.HTTP_BODY_TOO_LARGE, problem, max_body=most)


def late(call: Mapping[str, Any]) -> TransportError:
    """Return the error of a call that has exceeded its time limit."""
    problem = f"was not answered within {call['timeout']:g} seconds"
    return failure(call, Code.HTTP_TIMEOUT, problem, retryable=True)


@contextmanager
def failures_of(call: Mapping[str, Any]) -> Iterator[None]:
    """Raise the errors for failures of the HTTP library, of sockets and of decoders; log nothing."""
    import httpx  # noqa: PLC0415 - only those who use it pay for it

    try:
        with unlogged():
            yield
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError, zlib.error) as error:
        _fail(call, error)


def _fail(call: Mapping[str, Any], error: Exception) -> NoReturn:
    """Raise the error for a failure of the HTTP library, of a socket or of a decoder."""
    import ssl  # noqa: PLC0415 - see above

    import httpx  # noqa: PLC0415 - the same

    more = _named(call, error)
    causes = list(_causes(error))
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if tls is not None:
        reason = getattr(tls, "verify_message", None) or tls.reason or "unknown"
        raise failure(
            call, Code.HTTP_TLS, f"failed to agree on TLS: {reason}", reason=reason, **more
        ) from error
    match error:
        case httpx.InvalidURL() | UnicodeError():
            problem = f"{call['method']} {bare_url(call['url'])} has a url that cannot be used"
            raise OtherIoError(problem, code=Code.IO_INVALID_REQUEST) from error
        case httpx.TimeoutException():
            raise failure(
                call, Code.HTTP_TIMEOUT, "was not answered in time", retryable=True, **more
            ) from error
        case httpx.ConnectError() | httpx.ProxyError() | OSError():
            reason = next(
                (_reason(cause) for cause in reversed(causes) if isinstance(cause, OSError)), "unknown"
            )
            problem = f"could not connect: {reason}"
            raise failure(call, Code.HTTP_CONNECT, problem, retryable=True, reason=reason, **more) from error
        case httpx.NetworkError():
            problem, retryable = "lost its connection before the answer was complete", True
        case httpx.LocalProtocolError():
            problem, retryable = "is a request that HTTP does not allow", False
        case httpx.UnsupportedProtocol():
            problem, retryable = "was redirected to something that is not HTTP", False
        case zlib.error():
            problem, retryable = "has a body that cannot be decompressed", True
        case _:
            problem, retryable = "was not answered in proper HTTP", True
    raise failure(call, Code.HTTP_PROTOCOL, problem, retryable=retryable, **more) from error


def _named(call: Mapping[str, Any], error: Exception) -> dict[str, Any]:
    """Return the HTTP library's name for a failure, if the call was made for a client of that library."""
    if "stream" not in call:
        return {}
    return {"exception": "DecodingError" if isinstance(error, zlib.error) else type(error).__name__}


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "the host name is not known"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return errno.errorcode.get(error.errno or 0, "unknown")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, the first of each group, outermost first."""
    while error is not None:
        yield error
        inner = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else None
        error = inner or error.__cause__ or error.__context__
