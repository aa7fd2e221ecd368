"""The choice of the `io` that records a client's call, and the changes to libraries that lead there.

A library is changed while a run is driven whose plan records it, for the whole process; a call is recorded only
if a handler of such a plan makes it.
"""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeAlias

import attrs

from machine.errors import Code, StateError
from machine.io.client_calls import ClientCalls
from machine.recorded_clients import Clients, module_of
from machine.watch.code_owner import CALLER, ENGINE, RunningStep
from machine.watch.threads_and_programs import follow_callers

Patch: TypeAlias = Callable[[], Callable[[], None]]

_lock: Final = threading.Lock()
_users: Final[Counter[Patch]] = Counter()
"""The number of runs for which each change is in place: two names may stand for one."""
_replays: Final[list[_Replay]] = []
_kept: Final[set[str]] = set()
_undo: Final[dict[Patch, Callable[[], None]]] = {}


_explicit: Final[ContextVar[ClientCalls | None]] = ContextVar("machine_recorded_by", default=None)


def recorder(*names: str) -> ClientCalls | None:
    """Return the `io` that records the clients of a library, by any of these names, for the code that runs here.

    None outside of handlers, behind `io`, in a step, while another client performs its call, and where the plan
    does not record the library.
    """
    io = CALLER.get()
    if isinstance(io, RunningStep) or io is ENGINE:
        return None
    if (explicit := _explicit.get()) is not None:
        return explicit
    if not isinstance(io, ClientCalls):
        for replay in tuple(_replays):
            replay.refuse(names)
        return None
    return None if io.clients.keys().isdisjoint(names) else io


@contextmanager
def recorded_by(io: ClientCalls) -> Iterator[None]:
    """Record the clients of all libraries meanwhile with this `io`, whatever the plan says."""
    token = _explicit.set(io)
    try:
        yield
    finally:
        _explicit.reset(token)


def keep_recording(name: str) -> None:
    """Change a library for the rest of the process, for a client that was made for one `io`."""
    with _lock:
        if name not in _kept:
            _kept.add(name)
            _begin(name)


@attrs.frozen(eq=False)
class _Replay:
    """A replay whose handlers use recorded clients; `others` are the threads that cannot belong to it."""

    clients: Clients
    loop: int
    others: frozenset[int | None]

    def refuse(self, names: Iterable[str]) -> None:
        """Refuse a call that no attempt is behind, if it may come from a handler: nothing may leave a replay."""
        here = threading.get_ident()
        if (here == self.loop or here not in self.others) and not self.clients.keys().isdisjoint(names):
            raise StateError(
                f"a client of {next(name for name in names if name in self.clients)} is used while a run is "
                "replayed, by code of which no handler is known",
                code=Code.CLIENT_WITHOUT_ATTEMPT,
                hint="start threads and tasks in the handler, without a context of their own",
            )


@contextmanager
def recording(clients: Clients, *, live: bool = True) -> Iterator[None]:
    """Record the clients of libraries in handlers meanwhile. Raises `UsageError` for one that is not installed.

    Unless the run is `live`, a call of such a client that comes from nowhere is refused.
    """
    begun: list[Patch] = []
    replay: _Replay | None = None
    if clients:
        follow_callers()  # a library may make its calls in threads of its own
    try:
        if clients and not live:
            others = frozenset(thread.ident for thread in threading.enumerate())
            replay = _Replay(clients, threading.get_ident(), others)
            _replays.append(replay)
        for name in clients:
            with _lock:
                begun.append(_begin(name))
        yield
    finally:
        if replay is not None:
            _replays.remove(replay)
        for patch in begun:
            with _lock:
                _users[patch] -= 1
                if not _users[patch]:
                    _undo.pop(patch)()


def _begin(name: str) -> Patch:
    """Change a library, unless it is changed, and return what changes it."""
    patch: Patch = module_of(name).patch
    if not _users[patch]:
        _undo[patch] = patch()
    _users[patch] += 1
    return patch


def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Callable[[], None]:
    """Replace an attribute of a class or module by what `make` returns for it; return the function that undoes it.

    An attribute that somebody else has replaced since stays.
    """
    own = vars(owner).get(name)
    before = getattr(owner, name)
    after = make(before)
    if callable(before) and not isinstance(before, type):
        after = functools.wraps(before)(after)
    setattr(owner, name, after)

    def undo() -> None:
        if vars(owner).get(name) is not after:
            return
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)

    return undo


def all_of(undoing: Iterable[Callable[[], None]]) -> Callable[[], None]:
    """Return one function that undoes several changes, the last one first."""
    steps = list(undoing)[::-1]

    def undo() -> None:
        for step in steps:
            step()

    return undo
