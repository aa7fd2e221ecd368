"""The report of an exception: an exit code, and `error[code]: message` with a hint, or JSON."""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final, Self

from cyclopts import CycloptsError, MissingArgumentError, UnknownCommandError, UnusedCliTokensError

from machine.cli.command_session import Session
from machine.cli.output import clean
from machine.did_you_mean import did_you_mean
from machine.errors import (
    BundleError,
    CanonicalError,
    Code,
    CodecError,
    ConfigError,
    CorruptionError,
    IdError,
    LogError,
    MachineError,
    NotFoundError,
    PlanError,
    SealError,
    SecretKeyError,
    StoreError,
    UsageError,
)


class Exit(IntEnum):
    """The exit codes, each with its meaning."""

    OK = 0, "done; the run completed, the replay is identical, the run is sound"
    FAILED = (
        1,
        "the run failed, the replay diverged, a boundary is unsafe, or a store or file refused (full, read-only)",
    )
    USAGE = 2, "the arguments, target, plan, input or configuration are invalid"
    INTEGRITY = 3, "the stored data is damaged, or is no store or bundle of this version"
    SUSPENDED = 4, "the run waits for an external answer"
    NOT_FOUND = 5, "there is no such run, artifact, stream, store or bundle"
    HUNG_UP = 129, "SIGHUP: its terminal is gone; nothing durable is lost"
    CANCELLED = 130, "Ctrl-C; nothing durable is lost"
    BROKEN_PIPE = 141, "the reader of the output is gone"
    TERMINATED = 143, "SIGTERM; nothing durable is lost"

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Self:
        """Create one from a number and its meaning."""
        self = int.__new__(cls, value)
        self._value_ = value
        self.meaning = meaning
        return self


RUN_EXITS: Mapping[str, Exit] = {
    "completed": Exit.OK,
    "failed": Exit.FAILED,
    "limit_exceeded": Exit.FAILED,
    "suspended": Exit.SUSPENDED,
    "cancelled": Exit.CANCELLED,
}
"""The exit code of a run, by its status."""


BUNDLE_DAMAGED: Final = "get the bundle again from where it came from, or export the run again"
"""Hint for a bundle that cannot be read."""

_OUTPUT_FAILED: Final = "output_failed"


class NotHereError(NotFoundError):
    """Raised when a name that the user gave does not exist, as opposed to a name in a log."""


class Cancelled(MachineError):  # noqa: N818 - no error: the user asked for it
    """Raised when the user pressed Ctrl-C, or another signal asked the process to end."""

    default_code = "cancelled"
    exit: Exit = Exit.CANCELLED


_INTEGRITY = frozenset(
    {
        Code.STORE_NOT_A_STORE,
        Code.STORE_NEWER_SCHEMA,
        Code.STORE_CORRUPT,
        Code.ARTIFACT_CORRUPT,
        Code.RUN_NEWER_FORMAT,
    }
)
_BUNDLES: Mapping[str, Exit] = {
    Code.BUNDLE_NOT_FOUND: Exit.NOT_FOUND,
    Code.BUNDLE_NOT_A_FILE: Exit.USAGE,
    Code.BUNDLE_READ_ONLY: Exit.USAGE,
    Code.BUNDLE_TOO_LARGE: Exit.FAILED,
    Code.BUNDLE_CONFLICT: Exit.FAILED,
    Code.BUNDLE_WAITS: Exit.FAILED,
    Code.BUNDLE_NOT_WRITTEN: Exit.FAILED,
    Code.BUNDLE_KEY_NEEDED: Exit.USAGE,
    Code.BUNDLE_KEY_WRONG: Exit.USAGE,
}
_USAGE = (UsageError, PlanError, ConfigError, CanonicalError, CodecError, IdError, SecretKeyError)


def exit_of(exc: BaseException) -> Exit:
    """Return the exit code for an exception."""
    match exc:
        case KeyboardInterrupt():
            return Exit.CANCELLED
        case Cancelled():
            return exc.exit
        case NotHereError():
            return Exit.NOT_FOUND
        case NotFoundError() if exc.code == Code.ARTIFACT_NOT_FOUND:  # a log names what its store lost
            return Exit.INTEGRITY
        case NotFoundError():
            return Exit.NOT_FOUND
        case BundleError():
            return _BUNDLES.get(exc.code, Exit.INTEGRITY)
        case LogError() | CorruptionError() | SealError():
            return Exit.INTEGRITY
        case StoreError() if exc.code in _INTEGRITY:
            return Exit.INTEGRITY
        case StoreError() if exc.code == Code.STORE_UNKNOWN_URL:
            return Exit.USAGE
        case CycloptsError() | UsageError() | PlanError():
            return Exit.USAGE
        case _ if isinstance(exc, _USAGE):
            return Exit.USAGE
        case _:
            return Exit.FAILED


def report(exc: BaseException, session: Session) -> int:
    """Report an error in the requested form, and return the exit code."""
    if session.debug:
        traceback.print_exception(exc, file=sys.stderr)
    code, message, hint, details = _told(exc)
    if session.as_json and code != _OUTPUT_FAILED:
        session.out.json({"error": as_json(exc)})
    elif code == Cancelled.default_code:
        session.out.line((clean(message), "yellow"), err=True)
    else:
        _print(session, code, message, hint, details)
    return int(exit_of(exc))


def as_json(exc: BaseException) -> dict[str, Any]:
    """Return an error as a JSON object."""
    return dict(zip(("code", "message", "hint", "details"), _told(exc), strict=True))


def _print(
    session: Session, code: str, message: str, hint: str | None, details: Mapping[str, Any] | None
) -> None:
    problems, changes = (details or {}).get("problems"), (details or {}).get("changes")
    listed = problems if isinstance(problems, list) and len(problems) > 1 else []
    if isinstance(changes, list):
        message, listed = message.split(": ", 1)[0], changes
    elif listed:
        message = f"{message.split(': ', 1)[0]} has {len(listed)} problems"
    session.out.line((f"error[{code}]", "bold red"), f": {clean(message)}", err=True)
    for problem in listed:
        session.out.line(f"  {clean(str(problem))}", err=True)
    if hint:
        session.out.line(("hint", "bold"), f": {clean(hint)}", err=True)


def _told(exc: BaseException) -> tuple[str, str, str | None, Mapping[str, Any] | None]:
    match exc:
        case BundleError(code=Code.BUNDLE_INVALID | Code.BUNDLE_TRUNCATED) if (
            exc.line is not None and not exc.hint
        ):
            return str(exc.code), exc.message, BUNDLE_DAMAGED, exc.info.details
        case MachineError():
            return str(exc.code), exc.message, exc.hint, exc.info.details
        case CycloptsError():
            return _told_of_arguments(exc)
        case KeyboardInterrupt():
            return "cancelled", "interrupted; nothing durable is lost.", None, None
        case OSError() if exc.filename is None and exc.strerror:
            return _OUTPUT_FAILED, f"the output cannot be written: {exc.strerror}", None, None
        case _:
            text = f"{type(exc).__qualname__}: {exc}".rstrip(": ")
            return "internal_error", text, "this should not happen; --debug shows where it did", None


def _told_of_arguments(exc: CycloptsError) -> tuple[str, str, str | None, None]:
    words = " ".join(("machine", *(exc.command_chain or ())))
    hint = f"{words} --help says what there is"
    text = _sentence(str(exc))
    match exc:
        case UnusedCliTokensError():
            text = f"{words} takes no more arguments: {shlex.join(exc.unused_tokens or ())}"
        case UnknownCommandError() if exc.unused_tokens and exc.app:
            name, known = exc.unused_tokens[0], [word for word in exc.app if not word.startswith("-")]
            text = f"{words} has no command {name!r}"
            hint = did_you_mean(name, known, hint, show=lambda near: f"{words} {near}") or hint
        case MissingArgumentError() if exc.argument is not None:
            text = f"{words} needs a value for {exc.keyword or exc.argument.name}"
    return str(Code.USAGE), text, hint, None


def _sentence(text: str) -> str:
    text = " ".join(text.split()).removesuffix(".")
    return text[:1].lower() + text[1:]
