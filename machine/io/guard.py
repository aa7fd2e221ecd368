"""The guard: an audit hook (PEP 578) that finds what a handler does to the outside without `io`.

The hook is installed at the first use and stays, as Python has no way to take one out; it minds events only where
somebody watches. It sees what the interpreter announces: not what a C extension does by itself, not a write to a
file or a connection that was open before, and not a thread that runs in a context of its own. Nothing here may
reach the outside itself.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from enum import Enum
from types import FrameType
from typing import Any, Final

import attrs

from machine.io.places import Origin, above, is_harmless, origin_of
from machine.io.undeclared import WATCHING, Watch

__all__ = ["ACTS", "Act", "By", "install"]


class By(Enum):
    """Whose doing it must be."""

    ANYONE = "anyone"
    """Done in the handler's context by whatever code: it reaches or changes the outside."""
    OWN = "own code"
    """Done by the user's own code, by way of the standard library at most: libraries read files of their own."""


@attrs.frozen
class Act:
    """What an audit event says is about to be done.

    `does` says it in words, `target` is which argument of the event says to what, `instead` is the call of `io` to
    make, None when there is none.
    """

    does: str
    instead: str | None
    target: int | None = 0
    by: By = By.ANYONE


_HTTP: Final = "io.http(method, url)"
_EXEC: Final = "io.exec([program, ...])"
_WRITE: Final = "io.write_file(path, data)"
_READ: Final = "io.read_file(path)"
_READS: Final = Act("reads the file", _READ, by=By.OWN)
_SECOND: Final = 1  # of a method: the first argument is the object

ACTS: Final[dict[str, Act]] = {
    # the network
    "socket.connect": Act("connects to", _HTTP, _SECOND),
    "socket.bind": Act("binds to", None, _SECOND),
    "socket.sendto": Act("sends to", None, _SECOND),
    "socket.sendmsg": Act("sends to", None, _SECOND),
    "socket.getaddrinfo": Act("looks up", _HTTP),
    "socket.gethostbyname": Act("looks up", _HTTP),
    "socket.gethostbyaddr": Act("looks up", None),
    "socket.getnameinfo": Act("looks up", None),
    "socket.gethostname": Act("asks for the name of this machine", None, None, By.OWN),
    "http.client.connect": Act("connects to", _HTTP, _SECOND),
    "smtplib.connect": Act("connects to", None, _SECOND),
    "ftplib.connect": Act("connects to", None, _SECOND),
    "imaplib.open": Act("connects to", None, _SECOND),
    "poplib.connect": Act("connects to", None, _SECOND),
    "nntplib.connect": Act("connects to", None, _SECOND),
    "telnetlib.Telnet.open": Act("connects to", None, _SECOND),
    "urllib.Request": Act("requests", _HTTP),
    "webbrowser.open": Act("opens in a browser", None),
    # programs
    "subprocess.Popen": Act("starts the program", _EXEC),
    "os.system": Act("starts the command", _EXEC),
    "os.exec": Act("becomes the program", _EXEC),
    "os.posix_spawn": Act("starts the program", _EXEC),
    "os.spawn": Act("starts the program", _EXEC, _SECOND),
    "os.fork": Act("forks", None, None),
    "os.forkpty": Act("forks", None, None),
    "os.kill": Act("sends a signal to", None),
    "os.killpg": Act("sends a signal to", None),
    # files and databases
    "open": Act("opens for writing", _WRITE),
    "sqlite3.connect": Act("opens the database", None),
    "os.remove": Act("removes", None),
    "os.rename": Act("renames", None),
    "os.rmdir": Act("removes", None),
    "os.mkdir": Act("makes", None),
    "os.link": Act("links to", None),
    "os.symlink": Act("links to", None),
    "os.truncate": Act("truncates", _WRITE),
    "os.chmod": Act("changes", None),
    "os.chown": Act("changes", None),
    "os.chflags": Act("changes", None),
    "os.utime": Act("changes", None),
    "os.setxattr": Act("changes", None),
    "os.removexattr": Act("changes", None),
    "shutil.copyfile": Act("copies", None),
    "shutil.copymode": Act("copies", None),
    "shutil.copystat": Act("copies", None),
    "shutil.copytree": Act("copies", None),
    "shutil.move": Act("moves", None),
    "shutil.rmtree": Act("removes", None),
    "shutil.chown": Act("changes", None),
    "shutil.make_archive": Act("writes", None),
    "shutil.unpack_archive": Act("unpacks", None),
    "tempfile.mkstemp": Act("writes", None),
    "tempfile.mkdtemp": Act("makes", None),
    "os.listdir": Act("lists", None, by=By.OWN),
    "os.scandir": Act("lists", None, by=By.OWN),
    "glob.glob": Act("lists", None, by=By.OWN),
    # this process
    "os.chdir": Act("changes to the directory", None, by=By.OWN),
    "os.putenv": Act("sets the environment variable", None, by=By.OWN),
    "os.unsetenv": Act("deletes the environment variable", None, by=By.OWN),
    "builtins.input": Act("asks on the terminal", None, None, By.OWN),
}
"""What reaches the outside or changes it, by audit event."""

_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_LONGEST: Final = 200

_installing: Final = threading.Lock()


def install() -> None:
    """Install the hook, the first time."""
    with _installing:
        _install_once()


@functools.cache
def _install_once() -> None:
    sys.addaudithook(_hook)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    # called for every audit event of the process: the look into the table decides nearly all of them
    act = ACTS.get(event)
    if act is None:
        if event == "import" and (importing := WATCHING.get()) is not None:
            importing.imports()
        return
    watch = WATCHING.get()
    if watch is None:
        return
    target = args[act.target] if act.target is not None and act.target < len(args) else None
    if event == "open":
        if (
            isinstance(target, int) or target == os.devnull
        ):  # a number is a descriptor, which was opened before
            return
        if not (isinstance(args[2], int) and args[2] & _WRITING):
            act = _READS
            if _is_of_time_zones(target):
                return
    elif event == "sqlite3.connect" and _is_in_memory(target):
        return
    frame = sys._getframe(1)  # noqa: SLF001 - the way to the code that did it
    if _counts(act, frame, watch):
        watch.note(event, act.does if target is None else f"{act.does} {_shown(target)}", act.instead, frame)


def _counts(act: Act, frame: FrameType, watch: Watch) -> bool:
    if is_harmless(frame):
        return False
    if act.by is By.ANYONE:
        return True
    through = (origin_of(at, watch.own) for at in above(frame))
    first = next((origin for origin in through if origin not in {Origin.STANDARD, Origin.MADE}), None)
    return first is Origin.OWN


def _is_of_time_zones(path: Any) -> bool:
    """Say whether a file is one of those that `zoneinfo`, which is written in C, reads for itself."""
    module = sys.modules.get("zoneinfo")
    return module is not None and isinstance(path, str) and path.startswith(tuple(module.TZPATH))


def _is_in_memory(database: Any) -> bool:
    """Say whether a database of sqlite is this connection's alone: nothing outside knows of it."""
    text = os.fsdecode(database) if isinstance(database, bytes | os.PathLike) else database
    if not isinstance(text, str):
        return False
    return text in {"", ":memory:"} or text.startswith("file::memory:") or "mode=memory" in text


def _shown(target: Any) -> str:
    text = repr(os.fsdecode(target) if isinstance(target, bytes | os.PathLike) else target)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
