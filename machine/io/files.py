"""Files as recorded calls: requests, view and transport of `file.read` and `file.write`.

A read must never hang on something that is not a file. A write must never leave half a file, nor be acknowledged
before the bytes are on the disk.
"""

# The system calls themselves, not pathlib: their flags, and paths exactly as given, are the point.
# ruff: noqa: PTH116

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Self

import anyio.to_thread
import attrs

from machine.errors import Code, OtherIoError
from machine.io.atomic_write import not_regular, write_atomically
from machine.io.request_fields import checked_count, checked_text, field, pack, refusal, unpack
from machine.io.transport import BaseTransport, Opened

_INLINE: Final = 256 * 1024
"""The size up to which files are read in the event loop; larger ones are read in a thread."""

OPEN: Final = "file.open"
"""The namespace of files that are read piece by piece."""

PIECE_BYTES: Final = _INLINE
_MOST_PIECE: Final = 64 * 1024 * 1024

_CODES: Final = {
    errno.ENOENT: Code.FILE_NOT_FOUND,
    errno.ENOTDIR: Code.FILE_NOT_FOUND,
    errno.EACCES: Code.FILE_DENIED,
    errno.EPERM: Code.FILE_DENIED,
    errno.EROFS: Code.FILE_DENIED,
}
_TRANSIENT: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EIO, errno.ENOSPC}
)


def read_request(path: str | os.PathLike[str], *, max_bytes: int = 64 * 1024 * 1024) -> dict[str, Any]:
    """Return the request that reads a whole file of at most `max_bytes` bytes (`file.read`).

    The path is recorded as given; a relative one is resolved against the working directory when performed.
    Raises `OtherIoError(io_invalid_request)` for a path that is empty, not text, or holds NUL.
    """
    return {"path": _checked_path(path), "max_bytes": checked_count(max_bytes, "max_bytes")}


def open_request(path: str | os.PathLike[str], *, piece_bytes: int = PIECE_BYTES) -> dict[str, Any]:
    """Return the request that reads a file of any size in pieces of about `piece_bytes` bytes (`file.open`).

    Raises `OtherIoError(io_invalid_request)` as `read_request` does.
    """
    most = checked_count(piece_bytes, "piece_bytes", least=1, most=_MOST_PIECE)
    return {"path": _checked_path(path), "piece_bytes": most}


def write_request(path: str | os.PathLike[str], data: str | bytes) -> dict[str, Any]:
    """Return the request that makes `data` the whole content of a file (`file.write`), text as UTF-8.

    The response is `{"bytes": number written}`. Raises `OtherIoError(io_invalid_request)` as `read_request` does,
    and for data that is neither text nor bytes.
    """
    if isinstance(data, str):
        data = checked_text(data, "data", nul=True).encode()
    elif not isinstance(data, bytes):
        raise refusal(f"data must be a string or bytes, not {type(data).__name__}")
    return {"path": _checked_path(path), "data": pack(data)}


def _checked_path(path: Any) -> str:
    return checked_text(os.fspath(path) if isinstance(path, os.PathLike) else path, "path", empty=False)


@attrs.frozen
class FileContent:
    """The content of a file that was read; `path` is as it was given."""

    path: str
    _data: bytes = attrs.field(alias="data", repr=False)

    @classmethod
    def from_json(cls, response: Mapping[str, Any]) -> Self:
        """Return the view of a `file.read` response."""
        return cls(response["path"], unpack(response["data"]))

    @property
    def text(self) -> str:
        """The content as text. Raises `OtherIoError(file_failed)` when it is not UTF-8; use `bytes` then."""
        try:
            return self._data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise OtherIoError(
                f"{self.path} is not UTF-8 text: byte {error.start} does not fit; use .bytes",
                code=Code.FILE_FAILED,
                details={"path": self.path, "offset": error.start},
            ) from None

    @property
    def bytes(self) -> bytes:
        """The content as bytes."""
        return self._data


class FileTransport(BaseTransport):
    """The transport of `file.read` and `file.write`, in this machine's file system."""

    __slots__ = ()

    def is_effect(self, namespace: str, request: Any) -> bool:  # noqa: ARG002 - the protocol's signature
        """Return True for `file.write`."""
        return namespace == "file.write"

    def is_certain_effect(self, namespace: str, request: Any) -> bool:
        """Return True for `file.write`, which always changes something."""
        return self.is_effect(namespace, request)

    def with_idempotency_key(self, namespace: str, request: Any, key: str) -> Any:  # noqa: ARG002 - the same
        """Return the request unchanged: writing the same bytes atomically twice is the same as once."""
        return request

    async def perform(self, namespace: str, request: Any) -> dict[str, Any]:
        """Read or write one file.

        Raises `OtherIoError` with `file_not_found`, `file_denied`, `file_too_large` or `file_failed` (not a regular
        file, disk full, ...). A write that fails or is interrupted leaves the file unchanged or completely written.
        """
        path = _checked_path(field(request, "path", str))
        with _said(path):
            match namespace:
                case "file.read":
                    return await _content(path, checked_count(field(request, "max_bytes", int), "max_bytes"))
                case "file.open":
                    return await _content(path, _MOST_PIECE)
                case "file.write":
                    data = unpack(field(request, "data", dict))
                    # in a thread, because a disk may take seconds to confirm the bytes
                    await anyio.to_thread.run_sync(write_atomically, path, [data])
                    return {"bytes": len(data)}
                case _:
                    raise self._unknown(namespace)

    async def open_stream(self, namespace: str, request: Any) -> Any:
        """Open a file to be read in pieces; a single piece is read at once. Raises what `perform` raises."""
        if namespace != OPEN:
            return await self.perform(namespace, request)
        call = open_request(field(request, "path", str), piece_bytes=field(request, "piece_bytes", int))
        path, most = call["path"], call["piece_bytes"]
        with _said(path):
            descriptor = _opened(path)
            try:
                size = os.fstat(descriptor).st_size
                if 0 < size <= most:
                    return await _content(path, _MOST_PIECE)
                source, descriptor = FilePieces(path, descriptor, most), -1
                return Opened({"path": path, "size": size}, source)
            finally:
                if descriptor >= 0:
                    os.close(descriptor)


class FilePieces:
    """The content of an open file, from its beginning to its end at the time that is read."""

    def __init__(self, path: str, descriptor: int, most: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._most = most

    async def next(self) -> bytes | None:
        """Return the next bytes, None at the end of the file."""
        with _said(self._path):
            return await anyio.to_thread.run_sync(os.read, self._descriptor, self._most) or None

    async def aclose(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


@contextmanager
def _said(path: str) -> Iterator[None]:
    """Raise the error for a failure of the system."""
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        raise OtherIoError(
            f"{path}: {error.strerror}",
            code=_CODES.get(number, Code.FILE_FAILED),
            retryable=number in _TRANSIENT,
            details={"path": path, "errno": errno.errorcode.get(number, "unknown")},
        ) from error


async def _content(path: str, most: int) -> dict[str, Any]:
    if os.stat(path).st_size <= _INLINE:  # faster than the switch to a thread
        data = _read(path, most)
    else:
        data = await anyio.to_thread.run_sync(_read, path, most)
    return {"path": path, "data": pack(data)}


def _opened(path: str) -> int:
    """Return the descriptor of a regular file."""
    # O_NONBLOCK: opening a FIFO without a writer would wait for ever
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise not_regular(path)
    return descriptor


def _read(path: str, most: int) -> bytes:
    descriptor = _opened(path)
    try:
        found = os.fstat(descriptor)
        if found.st_size > most:
            raise _too_large(path, most)
        # the size is a hint only: files of /proc say 0, and a file may grow while it is read
        data = bytearray(os.read(descriptor, found.st_size + 1))
        while len(data) <= most and (chunk := os.read(descriptor, min(_INLINE, most + 1 - len(data)))):
            data += chunk
    finally:
        os.close(descriptor)
    if len(data) > most:
        raise _too_large(path, most)
    return bytes(data)


def _too_large(path: str, most: int) -> OtherIoError:
    return OtherIoError(
        f"{path} holds more than {most} bytes",
        code=Code.FILE_TOO_LARGE,
        details={"path": path, "max_bytes": most},
    )
