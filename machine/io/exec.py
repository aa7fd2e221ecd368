"""Running a program as a recorded call: request, result and transport of the namespace `exec`.

No shell is involved: the arguments are passed unchanged. The transport must never leave a process, a zombie or a
file descriptor behind, and never wait past the call's deadline, whatever the program and its children do. The
allow-list limits honest plans to the programs they declare; it is not a sandbox.
"""

# Paths as the child will see them: pathlib would tidy them up.
# ruff: noqa: PTH100, PTH117, PTH118

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any, Final, Self

import attrs

from machine.errors import Code, ConfigError, OtherIoError
from machine.io.child_process import Finished, run_process
from machine.io.request_fields import (
    checked_count,
    checked_seconds,
    checked_text,
    field,
    pack,
    refusal,
    unpack,
)
from machine.io.transport import BaseTransport
from machine.secrets.reserved_store_key import RESERVED_NAMES

MOST_STDIN: Final = 1024 * 1024
"""The largest number of bytes for a program's standard input."""

KEY_VARIABLE: Final = "MACHINE_IDEMPOTENCY_KEY"
"""The environment variable that passes the idempotency key of the state to the program."""

_TAIL: Final = 2000
_LINE: Final = 500


def exec_request(
    argv: Sequence[str],
    *,
    stdin: str | bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    timeout: float = 60.0,
    max_output: int = 1024 * 1024,
) -> dict[str, Any]:
    """Return the request that runs the program `argv[0]` with its arguments.

    `stdin` is at most 1 MiB (text is sent as UTF-8; the default is an empty input); `env` is added to the inherited
    environment; `cwd` is recorded as given and resolved when the call is performed; `timeout` is in seconds and
    covers the whole call; `max_output` is in bytes, for standard output and standard error each. Raises
    `OtherIoError(io_invalid_request)` for an invalid argument.
    """
    if isinstance(argv, str | bytes) or not isinstance(argv, Sequence):
        raise refusal('argv must be a list of strings, such as ["git", "status"]: no shell splits it')
    if not argv:
        raise refusal("argv must name a program")
    request: dict[str, Any] = {
        "argv": [checked_text(arg, f"argv[{i}]", empty=i > 0) for i, arg in enumerate(argv)],
        "timeout": checked_seconds(timeout, "timeout"),
        "max_output": checked_count(max_output, "max_output"),
    }
    if stdin is not None and not isinstance(stdin, str | bytes):
        raise refusal(f"stdin must be a string or bytes, not {type(stdin).__name__}")
    data = checked_text(stdin, "stdin", nul=True).encode() if isinstance(stdin, str) else stdin
    if data:
        if len(data) > MOST_STDIN:
            raise refusal(f"stdin holds {len(data)} bytes; at most {MOST_STDIN} are passed")
        request["stdin"] = pack(data)
    if env is not None and not isinstance(env, Mapping):
        raise refusal(f"env must be a mapping of strings, not {type(env).__name__}")
    if env:
        request["env"] = {_checked_name(k): checked_text(v, f"env[{k!r}]") for k, v in env.items()}
    if cwd is not None:
        request["cwd"] = checked_text(_fspath(cwd), "cwd", empty=False)
    return request


def _checked_name(name: Any) -> str:
    name = checked_text(name, "the name of an environment variable", empty=False)
    if "=" in name:
        raise refusal(f"the name of an environment variable holds an equals sign: {name!r}")
    return str(name)


def _fspath(path: Any) -> Any:
    return os.fspath(path) if isinstance(path, os.PathLike) else path


@attrs.frozen
class ExecResult:
    """The result of a program: its outputs and its `returncode`, minus the signal's number when one ended it."""

    returncode: int
    stdout_bytes: bytes
    stderr_bytes: bytes

    @classmethod
    def from_json(cls, response: Mapping[str, Any]) -> Self:
        """Return the view of an `exec` response."""
        return cls(response["returncode"], unpack(response["stdout"]), unpack(response["stderr"]))

    def to_json(self) -> dict[str, Any]:
        """Return the `exec` response that this object represents."""
        return {
            "returncode": self.returncode,
            "stdout": pack(self.stdout_bytes),
            "stderr": pack(self.stderr_bytes),
        }

    @property
    def stdout(self) -> str:
        """Standard output as text: UTF-8, with U+FFFD for invalid bytes."""
        return self.stdout_bytes.decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """Standard error as text: UTF-8, with U+FFFD for invalid bytes."""
        return self.stderr_bytes.decode("utf-8", "replace")

    def check(self) -> Self:
        """Return this result if the program succeeded.

        Raises `OtherIoError(exec_status)` when the return code is not 0, with the last line of standard
        error in its message and more of it in its details.
        """
        if self.returncode:
            said = self.stderr.strip().rpartition("\n")[2][:_LINE]
            raise OtherIoError(
                f"the program ended with status {self.returncode}{': ' if said else ''}{said}",
                code=Code.EXEC_STATUS,
                details={"returncode": self.returncode, "stderr_tail": self.stderr[-_TAIL:]},
            )
        return self


class ExecTransport(BaseTransport):
    """The transport of `exec`, which runs programs that lie under one of the allowed path prefixes.

    `allow` holds absolute paths of folders or programs. A program is judged by its real path, symbolic links
    resolved, so a link in an allowed folder to a program elsewhere is refused.
    """

    __slots__ = ("_allow",)

    def __init__(self, allow: Sequence[str] = ("/",)) -> None:
        if isinstance(allow, str) or not all(os.path.isabs(path) for path in allow):
            raise ConfigError("the exec allow-list must be a list of absolute paths")
        self._allow = tuple(allow)

    def is_effect(self, namespace: str, request: Any) -> bool:  # noqa: ARG002 - the protocol's signature
        """Return True: the effects of a program cannot be known."""
        return True

    def with_idempotency_key(self, namespace: str, request: Any, key: str) -> Any:  # noqa: ARG002 - the same
        """Return the request with the key in `MACHINE_IDEMPOTENCY_KEY`, unless the caller set it."""
        key = checked_text(key, "the idempotency key")
        return {**request, "env": {KEY_VARIABLE: key, **field(request, "env", dict, default={})}}

    async def perform(self, namespace: str, request: Any) -> dict[str, Any]:
        """Run the program and return its return code and outputs.

        Raises `OtherIoError` with `exec_not_found`, `exec_not_allowed`, `exec_failed` (it could not be started),
        `exec_timeout` (retryable) or `exec_output_too_large`. Whenever it raises or is cancelled, the
        program's whole process group is killed first and the program is reaped.
        """
        if namespace != "exec":
            raise self._unknown(namespace)
        stdin = field(request, "stdin", dict, NoneType)
        call = exec_request(  # again, for requests that our builder did not make
            field(request, "argv", list),
            stdin=None if stdin is None else unpack(stdin),
            env=field(request, "env", dict, NoneType),
            cwd=field(request, "cwd", str, NoneType),
            timeout=field(request, "timeout", int, float),
            max_output=field(request, "max_output", int),
        )
        name = call["argv"][0]
        try:
            argv = [self._program(name, call), *call["argv"][1:]]
            finished = await run_process(
                argv,
                stdin=unpack(call["stdin"]) if "stdin" in call else b"",
                env={**_inherited(), **call.get("env", {})},
                cwd=call.get("cwd"),
                timeout=call["timeout"],
                max_output=call["max_output"],
            )
        except OSError as error:
            reason = errno.errorcode.get(error.errno or 0, "unknown")
            raise OtherIoError(
                f"{name!r} could not be started: {error.strerror}",
                code=Code.EXEC_FAILED,
                retryable=error.errno in {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE},
                details={"program": name, "errno": reason},
            ) from error
        return _response(call, finished)

    def _program(self, name: str, call: Mapping[str, Any]) -> str:
        """Return the absolute path of the program, looked up as the child would do it, if it is allowed."""
        base = os.path.abspath(call.get("cwd", "."))
        if "/" in name:
            found = shutil.which(os.path.join(base, name))
        else:
            path = call.get("env", {}).get("PATH", os.environ.get("PATH", os.defpath))
            folders = [os.path.join(base, folder) for folder in path.split(os.pathsep)] if path else []
            found = shutil.which(name, path=os.pathsep.join(folders))
        if found is None:
            raise OtherIoError(
                f"{name!r} was not found, or is not a program",
                code=Code.EXEC_NOT_FOUND,
                details={"program": name},
            )
        real = os.path.realpath(found)
        if not any(_lies_under(real, os.path.realpath(prefix)) for prefix in self._allow):
            raise OtherIoError(
                f"{name!r} lies under none of the paths that exec is allowed to run",
                code=Code.EXEC_NOT_ALLOWED,
                details={"program": name, "resolved": real, "allowed": list(self._allow)},
            )
        return found  # not the real path: a program may look at the name it was called by


def _inherited() -> dict[str, str]:
    """Return the environment of this process without the variables that open secrets."""
    return {name: value for name, value in os.environ.items() if name not in RESERVED_NAMES}


def _lies_under(path: str, prefix: str) -> bool:
    return os.path.commonpath([path, prefix]) == prefix


def _response(call: Mapping[str, Any], finished: Finished) -> dict[str, Any]:
    """Return the response for a program that finished, or raise for one that was killed."""
    name, timeout, cap = call["argv"][0], call["timeout"], call["max_output"]
    if finished.overflowed:
        raise OtherIoError(
            f"{name!r} wrote more than {cap} bytes to {finished.overflowed}",
            code=Code.EXEC_OUTPUT_TOO_LARGE,
            details={"program": name, "stream": finished.overflowed, "max_output": cap},
        )
    if finished.timed_out:
        raise OtherIoError(
            f"{name!r} did not finish within {timeout:g} seconds",
            code=Code.EXEC_TIMEOUT,
            retryable=True,
            details={"program": name, "timeout": timeout},
        )
    return {
        "returncode": finished.returncode,
        "stdout": pack(finished.stdout),
        "stderr": pack(finished.stderr),
    }
