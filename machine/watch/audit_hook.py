"""The guard: an audit hook (PEP 578) that detects acts of a handler on the outside world without `io`.

The hook is installed at the first use and stays, as Python has no way to remove one; it acts on events only while
somebody watches. It sees only events that the interpreter announces. It misses acts of C extensions, writes to a
file or a database that was open before, and code that no path leads to from a handler (a thread started before, a
task with an empty context). Nothing here may reach the outside world itself.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable
from enum import Enum
from pathlib import PurePath
from types import FrameType
from typing import Any, Final

import attrs

from machine.watch.code_origin import Origin, is_harmless, leading_origin
from machine.watch.entry_point_hooks import hook_imports, hook_loaded
from machine.watch.package_files import came_with_a_package
from machine.watch.recorded_clients import client_of, has_client
from machine.watch.safe_inspection import is_a, never_raises, static_name
from machine.watch.temporary_files import is_temporary
from machine.watch.threads_and_programs import (
    FORK_EXEC,
    PIDFD_SIGNAL,
    SEND,
    announce_unannounced,
    follow_callers,
)
from machine.watch.watch import STEP, Watch, watching


class By(Enum):
    """The code that must commit an act for it to count."""

    ANYONE = "anyone"
    """Any code in the handler's context: the act reaches or changes the outside world."""
    OWN = "own code"
    """The user's own code, at most through the standard library: libraries read files of their own."""


@attrs.frozen
class Act:
    """The meaning of an audit event.

    `does` describes the act in words, `target` is the index of the event's argument that names its object,
    `instead` is the `io` call to make, None when there is none. `paths` are the arguments that are paths of changed
    or inspected files.
    """

    does: str
    instead: str | None
    target: int | None = 0
    by: By = By.ANYONE
    paths: tuple[int, ...] = ()

    @property
    def effect(self) -> bool:
        """True when the act reaches or changes the outside world; otherwise it only reads it."""
        return self.by is By.ANYONE


_HTTP: Final = "io.http(method, url)"
_EXEC: Final = "io.exec([program, ...])"
_WRITE: Final = "io.write_file(path, data)"
_READ: Final = "io.read_file(path)"
_ASKS: Final = Act("asks for the process", None, by=By.OWN)
_READS: Final = Act("reads the file", _READ, by=By.OWN, paths=(0,))
_SECOND: Final = 1  # of a method: the first argument is the object

ACTS: Final[dict[str, Act]] = {
    # the network
    "socket.connect": Act("connects to", _HTTP, _SECOND),
    "socket.bind": Act("binds to", None, _SECOND),
    SEND: Act("sends on a connection (open before)", _HTTP, None),
    "socket.sendto": Act("sends to", None, _SECOND),
    "socket.sendmsg": Act("sends to", None, _SECOND),
    "socket.getaddrinfo": Act("looks up", _HTTP),
    "socket.gethostbyname": Act("looks up", _HTTP),
    "socket.gethostbyaddr": Act("looks up", None),
    "socket.getnameinfo": Act("looks up", None),
    "socket.gethostname": Act("asks for the name of this machine", None, None, By.OWN),
    "http.client.connect": Act("connects to", _HTTP, _SECOND),
    "http.client.send": Act("sends a request of HTTP", _HTTP, None),
    "smtplib.connect": Act("connects to", None, _SECOND),
    "ftplib.connect": Act("connects to", None, _SECOND),
    "imaplib.open": Act("connects to", None, _SECOND),
    "poplib.connect": Act("connects to", None, _SECOND),
    "smtplib.send": Act("sends to a server of mail", None, None),
    "ftplib.sendcmd": Act("sends the command of FTP", None, _SECOND),
    "imaplib.send": Act("sends to a server of mail", None, None),
    "poplib.putline": Act("sends to a server of mail", None, None),
    "nntplib.connect": Act("connects to", None, _SECOND),
    "telnetlib.Telnet.open": Act("connects to", None, _SECOND),
    "urllib.Request": Act("requests", _HTTP),
    "webbrowser.open": Act("opens in a browser", None),
    # programs
    "subprocess.Popen": Act("starts the program", _EXEC),
    FORK_EXEC: Act("starts the program", _EXEC),
    "pty.spawn": Act("starts the program", _EXEC),
    "os.system": Act("starts the command", _EXEC),
    "os.exec": Act("becomes the program", _EXEC),
    "os.posix_spawn": Act("starts the program", _EXEC),
    "os.spawn": Act("starts the program", _EXEC, _SECOND),
    "os.fork": Act("forks", None, None),
    "os.forkpty": Act("forks", None, None),
    "os.kill": Act("sends a signal to", None),
    "os.killpg": Act("sends a signal to", None),
    PIDFD_SIGNAL: Act("sends a signal to the process of descriptor", None),
    # files and databases
    "open": Act("opens for writing", _WRITE, paths=(0,)),
    "sqlite3.connect": Act("opens the database", None, paths=(0,)),
    "os.remove": Act("removes", None, paths=(0,)),
    "os.rename": Act("renames", None, paths=(0, 1)),
    "os.rmdir": Act("removes", None, paths=(0,)),
    "os.mkdir": Act("makes", None, paths=(0,)),
    "os.mkfifo": Act("makes", None, paths=(0,)),
    "os.mknod": Act("makes", None, paths=(0,)),
    "os.link": Act("links to", None, paths=(0, 1)),
    "os.symlink": Act("links to", None, paths=(1,)),
    "os.truncate": Act("truncates", _WRITE, paths=(0,)),
    "os.chmod": Act("changes", None, paths=(0,)),
    "os.chown": Act("changes", None, paths=(0,)),
    "os.chflags": Act("changes", None, paths=(0,)),
    "os.utime": Act("changes", None, paths=(0,)),
    "os.setxattr": Act("changes", None, paths=(0,)),
    "os.removexattr": Act("changes", None, paths=(0,)),
    "shutil.copyfile": Act("copies", None, paths=(1,)),
    "shutil.copymode": Act("copies", None, paths=(1,)),
    "shutil.copystat": Act("copies", None, paths=(1,)),
    "shutil.copytree": Act("copies", None, paths=(1,)),
    "shutil.move": Act("moves", None, paths=(0, 1)),
    "shutil.rmtree": Act("removes", None, paths=(0,)),
    "shutil.chown": Act("changes", None, paths=(0,)),
    "shutil.make_archive": Act("writes", None, paths=(0,)),
    "shutil.unpack_archive": Act("unpacks", None, paths=(1,)),
    "tempfile.mkstemp": Act("writes", None, paths=(0,)),
    "tempfile.mkdtemp": Act("makes", None, paths=(0,)),
    "os.listdir": Act("lists", None, by=By.OWN, paths=(0,)),
    "os.scandir": Act("lists", None, by=By.OWN, paths=(0,)),
    "glob.glob": Act("lists", None, by=By.OWN, paths=(0,)),
    # this process
    "os.chdir": Act("changes to the directory", None, by=By.OWN),
    "os.putenv": Act("sets the environment variable", None, by=By.OWN),
    "os.unsetenv": Act("deletes the environment variable", None, by=By.OWN),
    "builtins.input": Act("asks on the terminal", None, None, By.OWN),
}
"""The acts that reach the outside world or change it, by audit event."""

_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_LONGEST: Final = 200
_CALLS_OF_CLIENTS: Final = frozenset(
    {"socket.connect", "socket.getaddrinfo", "http.client.connect", "http.client.send", SEND}
)
_CLIENT: Final = "make the call on a client of httpx that has io.httpx_transport()"

_installing: Final = threading.Lock()


def install(*, following: bool) -> None:
    """Install the hooks at the first call, and the hooks for threads if some watch will be `following` them.

    At each call the libraries that were loaded since get their hooks.
    """
    with _installing:
        _install_once()
        if following:
            follow_callers()
        hook_loaded()


@functools.cache
def _install_once() -> None:
    announce_unannounced()
    hook_imports()
    sys.addaudithook(_hook)


CLAIMED: Final[dict[str, Callable[[tuple[Any, ...]], bool]]] = {}
"""Functions that judge an event where calls of its library are recorded, by its name; True: no watch sees it."""


def _hook(event: str, args: tuple[Any, ...]) -> None:
    # called for every audit event of the process: the table lookup settles nearly all of them
    act = ACTS.get(event)
    if act is None:
        if event == "import" and (importing := watching()) is not None:
            importing.imports(args[0])
        return
    if (judge := CLAIMED.get(event)) is not None and judge(args):
        return
    watch = watching()
    if watch is not None:
        frame = sys._getframe(1)  # noqa: SLF001 - the way to the code that did it
        if (act := _that_counts(event, act, args, frame, watch)) is not None:
            does, remedy = _in_words(event, act, args, frame, watch)
            watch.note(event, does, act.instead, frame, remedy=remedy, effect=act.effect)
        watch.opened.add(event, args)


@never_raises(None)
def _that_counts(event: str, act: Act, args: tuple[Any, ...], frame: FrameType, watch: Watch) -> Act | None:
    """Return the act that is about to happen, or None when it need not be reported."""
    if event == "open":
        if is_a(args[0], int) or (type(args[0]) is str and args[0] == os.devnull):
            return None  # a number is a descriptor, which was opened before
        if not (is_a(args[2], int) and args[2] & _WRITING):
            act = _READS
            if _is_of_time_zones(args[0]):
                return None
    elif event == SEND:
        if watch.opened.has_connection(args[0]):
            return None
    elif event == "sqlite3.connect":
        if _is_in_memory(args[0]):
            return None
    elif event in {"os.kill", "os.killpg", PIDFD_SIGNAL} and args[1] == 0:
        act = _ASKS  # no signal is sent
    if is_harmless(frame, effect=act.effect) or (
        act.paths and is_temporary(event, args, act.paths, frame, watch)
    ):
        return None
    if act.by is By.ANYONE:
        return act
    if leading_origin(frame, watch.own) is not Origin.OWN or (act is _READS and came_with_a_package(args[0])):
        return None
    return act


@never_raises(("goes outside", None))
def _in_words(
    event: str, act: Act, args: tuple[Any, ...], frame: FrameType, watch: Watch
) -> tuple[str, str | None]:
    """Return a description of the act, and the remedy where that is no call of `io`."""
    target = args[act.target] if act.target is not None and act.target < len(args) else None
    does = act.does if target is None else f"{act.does} {_shown(target)}"
    if event == "sqlite3.connect" and has_client("sqlite3"):
        library = client_of(frame, watch.own) or "sqlite3"
        return does, f'record the client: Plan(clients=["{library}"]), or use "{watch.call_of_io(STEP)}"'
    if event not in _CALLS_OF_CLIENTS or leading_origin(frame, watch.own) is not Origin.LIBRARY:
        return does, None
    client = client_of(frame, watch.own)
    first = _CLIENT if client is None else f'record the client: Plan(clients=["{client}"])'
    return does, f'{first}, or do it in a step: "{watch.call_of_io(STEP)}": see docs/clients.md'


@never_raises(False)  # noqa: FBT003 - whether it is one
def _is_of_time_zones(path: Any) -> bool:
    """Say whether a file is one of those that `zoneinfo`, which is written in C, reads by itself."""
    places = static_name("zoneinfo._tzpath", "TZPATH")
    return isinstance(path, str) and is_a(places, tuple) and path.startswith(places)


def _is_in_memory(database: Any) -> bool:
    """Say whether an SQLite database belongs to this connection alone and so is not visible outside."""
    text = os.fsdecode(database) if isinstance(database, bytes | os.PathLike) else database
    if not isinstance(text, str):
        return False
    name, _, options = text.partition("?")
    return text in {"", ":memory:"} or (
        name.startswith("file:") and (name == "file::memory:" or "mode=memory" in options.split("&"))
    )


def _shown(target: Any) -> str:
    """Return a description of a target, without running its own code."""
    if is_a(target, PurePath, bytes):
        target = os.fsdecode(target)
    if is_a(target, list) and target:
        target = target[0]
    text = repr(target) if type(target) in {str, int, tuple} else f"a {type(target).__name__}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
