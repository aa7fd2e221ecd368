"""The failures of a transport: whatever it raises becomes the recorded error of its call."""

from __future__ import annotations

import anyio

from machine.errors import CanonicalError, IoError, OtherIoError, SecretKeyError
from machine.exception_to_error_info import describe
from machine.io.call_identity import Call


class failures_of:  # noqa: N801 - a context manager, used like a function
    """Raise what a transport raises for a call as an `IoError`, but for what ends the call or the program.

    It is a class and not a generator for speed, because it is entered at every call.
    """

    __slots__ = ("_namespace",)

    def __init__(self, call: Call) -> None:
        self._namespace = call.namespace

    def __enter__(self) -> None:
        """Do nothing: only an exception counts."""

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if exc is None or isinstance(exc, IoError | SecretKeyError | KeyboardInterrupt):
            return
        if isinstance(exc, CanonicalError):
            raise OtherIoError(f"the transport of {self._namespace} answered with no JSON: {exc}") from exc
        if not isinstance(exc, _cancellations()):
            raise OtherIoError(f"the transport of {self._namespace} raised {describe(exc).message}") from exc


def _cancellations() -> tuple[type[BaseException], ...]:
    """Return the exceptions by which a call here may be cancelled, none in a thread without an event loop."""
    try:
        return (anyio.get_cancelled_exc_class(),)
    except RuntimeError:
        return ()
