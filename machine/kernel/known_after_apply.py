"""Values of a dry run that only applying it would tell, and the context of an attempt that may hold them.

The outcome of an effect that nobody has previewed is such a value. A handler may pass it on and write it to the
context. One that needs it ends there, without having failed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn, TypeVar

from machine import canonical
from machine.config import IoMode, RunConfig
from machine.errors import Code, ErrorInfo, StateError
from machine.kernel.context import Context
from machine.kernel.history import History
from machine.kernel.snapshot import Snapshot
from machine.kernel.state_history import KNOWN_LATER

MARK: Final = "machine:known_after_apply"
"""The member of the JSON object that is recorded for such a value; it holds the id of the state it is from."""

_MEMBERS: Final = frozenset({MARK, "at_ms"})
"""All members of such an object: the answer to a wait has its time."""

_MARK_BYTES: Final = MARK.encode()

T = TypeVar("T")


class KnownAfterApplyError(BaseException):
    """The end of a handler that needs what is known after apply; no `Exception`, so that handlers do not catch it.

    `key` is the context key that it read, None for the answer to a call; `writer` is the state that it is from.
    """

    def __init__(self, key: str | None, writer: str) -> None:
        what = "an answer" if key is None else f"the context key {key!r}"
        super().__init__(f"{what} of {writer} is known after apply")
        self.key = key
        self.writer = writer

    def info(self, state_id: str) -> ErrorInfo:
        """Return the error of the attempt of a state that it has ended."""
        what = "an answer" if self.key is None else f"{self.key!r} of {self.writer}"
        return StateError(
            f"{state_id} needs {what}, which is known after apply",
            code=Code.KNOWN_AFTER_APPLY,
            details={"key": self.key, "writer": self.writer},
        ).info


class KnownAfterApply:
    """A substitute for a value that is not known yet.

    Its attributes, its items and the results of its methods are such substitutes too. Everything else needs the
    value, and ends the attempt.
    """

    __slots__ = ("_need", "_writer")

    def __init__(self, writer: str, need: Callable[[], NoReturn]) -> None:
        object.__setattr__(self, "_writer", writer)
        object.__setattr__(self, "_need", need)

    def __repr__(self) -> str:
        return f"<known after apply: an answer to {writer_of(self)}>"

    def __getattr__(self, name: str) -> KnownAfterApply:
        if name.startswith("__"):  # a question of Python about its type
            raise AttributeError(name)
        return self

    def __getitem__(self, key: Any) -> KnownAfterApply:
        return self

    def __call__(self, *_: Any, **__: Any) -> KnownAfterApply:  # noqa: D102 - what it is for, the class says
        return self

    def _needed(self, *_: Any) -> NoReturn:
        need_of(self)

    __hash__ = __bool__ = __str__ = __bytes__ = __format__ = __len__ = __int__ = __float__ = __index__ = (
        _needed
    )
    __iter__ = __contains__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __reduce_ex__ = _needed
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __mod__ = __rmod__ = __neg__ = _needed
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __round__ = __abs__ = __fspath__ = _needed
    __and__ = __rand__ = __or__ = __ror__ = __setattr__ = __setitem__ = __delitem__ = __machine_needed__ = (
        _needed
    )


def need_of(value: KnownAfterApply) -> NoReturn:
    """End the attempt, because it needs a value that is known after apply."""
    object.__getattribute__(value, "_need")()
    raise AssertionError("the attempt has ended")


def writer_of(value: KnownAfterApply) -> str:
    """Return the id of the state that a value is from."""
    found: str = object.__getattribute__(value, "_writer")
    return found


def is_known_later(value: Any) -> bool:
    """Say whether a value is a substitute for one that is known after apply."""
    return type(value) is KnownAfterApply


def given(value: T) -> T:
    """Return a value that is needed now. Ends the attempt if it is known after apply."""
    if isinstance(value, KnownAfterApply):
        need_of(value)
    return value


def marked_by(value: Any) -> str | None:
    """Return the state that a recorded value is from if it stands for one that is known after apply, else None."""
    if type(value) is dict and MARK in value and value.keys() <= _MEMBERS:
        writer = value[MARK]
        return writer if isinstance(writer, str) else None
    return None


def mark_of(writer: str) -> dict[str, str]:
    """Return the recorded form of a value that is known after apply."""
    return {MARK: writer}


def _marks(value: Any) -> Iterator[str]:
    """Yield the states that the marks in a JSON value name."""
    if (writer := marked_by(value)) is not None:
        yield writer
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _marks(item)
    elif isinstance(value, list):
        for item in value:
            yield from _marks(item)


def _marked(value: Any) -> Any:
    """Return a value with marks for what is known after apply, the same object if there is nothing to mark."""
    if type(value) is KnownAfterApply:
        return mark_of(writer_of(value))
    if type(value) is dict:
        changed = {key: _marked(item) for key, item in value.items()}
        return changed if any(changed[key] is not item for key, item in value.items()) else value
    if type(value) in {list, tuple}:
        items = [_marked(item) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


class DryContext(Context):
    """The context of an attempt of a dry run.

    `unfinished` are the states before it that needed what is known after apply: what they would have written is
    not known either.
    """

    def __init__(self, base: Snapshot, unfinished: Sequence[str]) -> None:
        super().__init__(base)
        self._unfinished = unfinished
        self.needed: KnownAfterApplyError | None = None
        """The first need of the attempt, None as long as it needs nothing."""
        self.preview: Callable[[Any], Any] = lambda _: NotImplemented
        """Calls the `preview` function of its state for a request."""

    def need(self, key: str | None, writer: str) -> NoReturn:
        """End the attempt. The first need counts, even if the handler suppresses it."""
        self.needed = self.needed or KnownAfterApplyError(key, writer)
        raise self.needed

    def _write(self, key: str, value: Any, encode: Any, encode_again: Any, remedy: str) -> None:
        marked = _marked(value)
        if marked is not value:
            encode = encode_again = canonical.encode
        super()._write(key, marked, encode, encode_again, remedy)

    def _data(self, key: object) -> bytes | None:
        data = super()._data(key)
        if data is None:
            self._refuse_unfinished(key)
        elif _MARK_BYTES in data:
            for writer in _marks(canonical.decode(data)):
                self.need(str(key), writer)
        return data

    def __contains__(self, key: object) -> bool:
        found = super().__contains__(key)
        if not found and key not in self._staged:
            self._refuse_unfinished(key)
        return found

    def __iter__(self) -> Iterator[str]:
        self._refuse_unfinished(None)
        return super().__iter__()

    def __len__(self) -> int:
        self._refuse_unfinished(None)
        return super().__len__()

    def _refuse_unfinished(self, key: object) -> None:
        """End the attempt if a state that has not come to its end may write a key that is missing."""
        if self._unfinished and key not in self._staged:
            self.need(None if key is None else str(key), self._unfinished[-1])


def substitute(writer: str, ctx: Context | None) -> KnownAfterApply:
    """Return the substitute for an answer to a state that has a context in a dry run."""
    assert isinstance(ctx, DryContext)
    return KnownAfterApply(writer, functools.partial(ctx.need, None, writer))


def needed_by(ctx: Context | None) -> KnownAfterApplyError | None:
    """Return the need that ends an attempt with a context, None if it has none."""
    return ctx.needed if type(ctx) is DryContext else None


def context_on(
    base: Snapshot,
    config: RunConfig,
    history: History,
    state_id: str,
    followed: Callable[[str, Collection[str]], list[str]] | None,
) -> Context:
    """Return the context of an attempt of a state; in a dry run, one that knows what is not known yet.

    `followed` returns, in a run with concurrent states, those that a state follows.
    """
    if config.io_mode is not IoMode.DRY_RUN:
        return Context(base)
    unfinished = unfinished_states(history)
    return DryContext(base, unfinished if followed is None else followed(state_id, unfinished))


def unfinished_states(history: History) -> list[str]:
    """Return the states of a dry run that needed what is known after apply, in the order in which they ended."""
    return [state_id for state_id in history.settled if history.states[state_id].reason == KNOWN_LATER]
