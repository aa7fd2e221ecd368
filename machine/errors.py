"""Every error the library raises: one tree, each with a stable code.

An exception has data (an `ErrorInfo`); the sentence for a person is built late. A code, once released, keeps its
meaning; `docs/errors.md` has a section for each, with cause and remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final

import attrs

from machine.error_codes import Code

__all__ = [
    "BundleError",
    "CanonicalError",
    "Code",
    "CodecError",
    "ConcurrencyError",
    "ConfigError",
    "ContextError",
    "CorruptionError",
    "ErrorCategory",
    "ErrorCause",
    "ErrorInfo",
    "Failure",
    "IdError",
    "IoError",
    "LogError",
    "MachineError",
    "MissingFactError",
    "MissingFactKeyError",
    "NotFoundError",
    "OtherIoError",
    "OtherStoreError",
    "PlanError",
    "RateLimitedError",
    "RunError",
    "SealError",
    "SecretKeyError",
    "StateError",
    "StepError",
    "StoreError",
    "TransportError",
    "UsageError",
    "WaitTimeoutError",
]


class ErrorCategory(StrEnum):
    """The origin of an error, for routing of alerts."""

    PARSING_INPUT = "parsing_input"
    ON_CHAIN = "on_chain"
    OFF_CHAIN = "off_chain"
    RPC = "rpc"
    STORAGE = "storage"
    CONTEXT = "context"
    UNKNOWN = "unknown"


@attrs.frozen
class ErrorCause:
    """One cause behind an error.

    `relation` is `cause` (raised from it), `context` (raised while it was handled), `member` (of an exception
    group) or `note` (added to it); `text` is its description; `depth` is 0 for the error itself, 1 for its direct
    causes, and so on.
    """

    relation: str
    text: str
    depth: int = 0


@attrs.frozen
class ErrorInfo:
    """The known data of an error, in a form that can be stored and replayed.

    `code` is stable and lowercase (`ErrorCode` rule); `message` is one sentence for a person; `retryable` says
    whether a retry may help; `details` is any JSON object with more. `causes` are the causes of an exception of a
    handler, for people: they are never compared.
    """

    code: str
    category: ErrorCategory
    retryable: bool
    message: str
    details: Mapping[str, Any] | None = None
    causes: tuple[ErrorCause, ...] = attrs.field(default=(), eq=False, repr=False, kw_only=True)


class MachineError(Exception):
    """The root of every error that this library raises on purpose.

    `message` says what happened and to what; `hint`, when given, says what to do next.
    """

    default_code: ClassVar[str] = Code.USAGE
    category: ClassVar[ErrorCategory] = ErrorCategory.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        retryable: bool = False,
        details: Mapping[str, Any] | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.info = ErrorInfo(
            code=str(code or self.default_code),
            category=self.category,
            retryable=retryable,
            message=message,
            details=dict(details) if details else None,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # the constructors take more than `args`, which is all that pickle passes to them
        return _restored, (type(self), self.args, self.__dict__)

    @property
    def code(self) -> str:
        """The stable code of this error."""
        return self.info.code

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


def _restored(cls: type[MachineError], args: tuple[Any, ...], state: dict[str, Any]) -> MachineError:
    exc = cls.__new__(cls, *args)
    exc.args = args
    exc.__dict__.update(state)
    return exc


class UsageError(MachineError, ValueError):
    """The library or the command line was called in a way that cannot work."""


class IdError(MachineError, ValueError):
    """An identifier that breaks the rule of its kind."""

    default_code = Code.INVALID_ID
    category = ErrorCategory.PARSING_INPUT


class CanonicalError(MachineError, ValueError):
    """A value is not JSON, so it has no canonical bytes; `path` says where (`$.orders[3].price`)."""

    default_code = Code.NOT_JSON
    category = ErrorCategory.PARSING_INPUT

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}", details={"path": path})
        self.path = path
        self.problem = problem


class CodecError(MachineError, ValueError):
    """JSON does not have the shape a type asks for; `problems` lists every one, each with its path."""

    default_code = Code.MALFORMED
    category = ErrorCategory.PARSING_INPUT

    def __init__(self, what: str, problems: list[str]) -> None:
        super().__init__(f"{what}: {'; '.join(problems)}", details={"problems": problems})
        self.problems = problems


class ConfigError(MachineError, ValueError):
    """A configuration value is out of its range."""

    default_code = Code.INVALID_CONFIG
    category = ErrorCategory.PARSING_INPUT


class PlanError(MachineError, ValueError):
    """A plan cannot be validated, found or used."""

    default_code = Code.INVALID_STATE
    category = ErrorCategory.PARSING_INPUT


class LogError(MachineError):
    """A log breaks a rule of the envelope; `seq` is the event that breaks it."""

    default_code = Code.LOG_BAD_EVENT
    category = ErrorCategory.STORAGE

    def __init__(self, seq: int, problem: str, *, code: str) -> None:
        super().__init__(f"event {seq}: {problem}", code=code, details={"seq": seq})
        self.seq = seq


class RunError(MachineError):
    """A run cannot be driven further as asked."""

    default_code = Code.INVALID_TRANSITION


class StateError(MachineError):
    """An attempt failed for a reason that the engine found, not the handler."""

    default_code = Code.HANDLER_ERROR


class Failure(MachineError):  # noqa: N818 - what a handler raises, not what this library reports
    """Raise this in a handler to fail the attempt with a code of your own, retryable or not.

    Any other exception fails the attempt too, as `handler_error` and retryable.
    """

    default_code = Code.HANDLER_ERROR


class ContextError(MachineError, KeyError):
    """A handler used the context in a forbidden way."""

    default_code = Code.CONTEXT_KEY_MISSING
    category = ErrorCategory.CONTEXT

    __str__ = MachineError.__str__  # KeyError's own would print a repr


class IoError(MachineError):
    """A failed call to the outside world. It is recorded as a fact, so a replay fails the same way."""

    default_code = Code.IO_TRANSPORT_FAILED
    category = ErrorCategory.OFF_CHAIN
    kind: ClassVar[str] = "other"
    retry_after: float | None = None
    """The seconds that a service asked to wait before a retry, or None when it gave no number."""
    response_headers: Mapping[str, str] | None = None
    """The headers of an HTTP answer that asked to wait, as `retry-after` may name a date."""

    @staticmethod
    def from_fact(kind: str, info: ErrorInfo) -> IoError:
        """Return the exception that a recorded error outcome represents, of its original class."""
        cls = _IO_KINDS.get(kind, OtherIoError)
        exc = cls.__new__(cls, info.message)
        MachineError.__init__(exc, info.message)
        exc.info = info
        exc.retry_after = (info.details or {}).get("retry_after")
        return exc


class MissingFactKeyError(IoError):
    """A call needs an explicit fact key and has none."""

    default_code, kind = Code.MISSING_FACT_KEY, "missing_fact_key"


class MissingFactError(IoError):
    """There is no recorded fact for a call, and the run must not reach the outside world."""

    default_code, kind = Code.MISSING_FACT, "missing_fact"


class TransportError(IoError):
    """A service could not be reached or did not answer properly; `retry_after` as for `RateLimitedError`."""

    kind = "transport"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        details: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if retry_after is not None:
            details = {**(details or {}), "retry_after": retry_after}
        super().__init__(message, details=details, **options)
        self.retry_after = retry_after


class RateLimitedError(IoError):
    """A service asked to slow down; `retry_after` is in seconds, or None when it gave none."""

    default_code, kind = Code.RATE_LIMITED, "rate_limited"

    def __init__(
        self, message: str, *, retry_after: float | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, retryable=True, details={**(details or {}), "retry_after": retry_after})
        self.retry_after = retry_after


class StepError(IoError):
    """A step failed: its function raised an exception that cannot be raised as itself, or had no usable result.

    `exception` is the original class's name, `causes` are the exceptions behind it, nearest first, as texts.
    """

    default_code, kind = Code.STEP_FAILED, "step"

    @property
    def exception(self) -> str | None:
        """The qualified name of the class of the original exception, None when there was none."""
        name = (self.info.details or {}).get("exception")
        return name if isinstance(name, str) else None

    @property
    def causes(self) -> tuple[str, ...]:
        """The exceptions behind the original one, nearest first: class and message of each."""
        return tuple(map(str, (self.info.details or {}).get("causes") or ()))

    @property
    def retryable(self) -> bool:
        """True when another attempt may help."""
        return self.info.retryable


class WaitTimeoutError(IoError):
    """Nobody answered a wait of the handler within its time limit."""

    default_code, kind = Code.WAIT_TIMED_OUT, "wait"


class OtherIoError(IoError):
    """Any other failure of a call: refused by policy, invalid request, unknown namespace."""


_IO_KINDS: Final[Mapping[str, type[IoError]]] = {cls.kind: cls for cls in IoError.__subclasses__()}


class StoreError(MachineError):
    """A store could not do what was asked."""

    default_code = Code.STORE_FAILED
    category = ErrorCategory.STORAGE


class ConcurrencyError(StoreError):
    """Another process was first: at the run's next event, its lease or its invocation key. Nothing was written."""

    default_code = Code.CONCURRENCY


class NotFoundError(StoreError, LookupError):
    """There is no such run, artifact or store."""

    default_code = Code.RUN_NOT_FOUND


class CorruptionError(StoreError):
    """Stored bytes are not what was stored."""

    default_code = Code.STORE_CORRUPT


class OtherStoreError(StoreError):
    """Any other failure of a store: it is full, busy, read-only, or a file that is not a store."""


class SecretKeyError(MachineError):
    """The key of a store's secrets is missing, wrong, readable by others or invalid; `code` says which."""

    default_code = Code.SECRET_KEY_MISSING
    category = ErrorCategory.STORAGE


class SealError(MachineError):
    """Sealed bytes do not open: they were changed or moved, or another key sealed them. The value is lost."""

    default_code = Code.SEAL_NOT_OPENED
    category = ErrorCategory.STORAGE


class BundleError(MachineError):
    """A bundle cannot be read, stored or written; `line` is the place, counted from 1, None for the whole file."""

    default_code = Code.BUNDLE_INVALID
    category = ErrorCategory.STORAGE

    def __init__(
        self,
        problem: str,
        *,
        path: str,
        line: int | None = None,
        code: str | None = None,
        hint: str | None = None,
    ) -> None:
        where = path if line is None else f"{path}, line {line}"
        super().__init__(f"{where}: {problem}", code=code, details={"path": path, "line": line}, hint=hint)
        self.path = path
        self.line = line
        self.problem = problem
