"""The context of one attempt: its base snapshot, overlaid with the attempt's own writes.

Writes become visible to other states only when the attempt completes. Reads return a copy, and writes store the
value as it is at that moment. A value that is changed in place later and not written again is an error when the
attempt ends, never a silent loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, Final, NamedTuple, TypeVar

from machine import canonical, codec
from machine.did_you_mean import did_you_mean
from machine.errors import CanonicalError, Code, ContextError
from machine.ids import ContextKey
from machine.kernel.io_in_step import refuse_in_step
from machine.kernel.snapshot import Snapshot
from machine.watch.unprofiled import unprofiled

MAX_VALUE_BYTES: Final = 128 * 1024 * 1024
"""The largest value a context key may hold, in canonical bytes."""

T = TypeVar("T")

_IMMUTABLE: Final = frozenset({str, int, float, bool, type(None), bytes})
"""Immutable types, whose values cannot change after they were written."""


class _Written(NamedTuple):
    """A written value: the object from the handler, its bytes at that time, and a function to encode it again."""

    value: Any
    data: bytes
    encode: Callable[[Any], bytes]
    remedy: str


class Context(MutableMapping[str, Any]):
    """The key-value data of a run as one attempt sees it.

    Keys are strings, values are JSON, and iteration is in key order.
    """

    def __init__(self, base: Snapshot) -> None:
        self._base = base
        self._staged: dict[str, bytes | None] = {}
        self._copies: dict[str, tuple[Any, bytes]] = {}
        self._written: dict[str, _Written] = {}
        self.read: set[str] = set()
        """The keys whose value, or whose absence, was read from the base."""

    def __repr__(self) -> str:
        return f"<Context of {len(self)} keys, {len(self._staged)} staged>"

    def __getitem__(self, key: str) -> Any:
        held = self._copies.get(key)
        if held is not None:
            return held[0]
        data = self._data(key)
        if data is None:
            raise self._missing(key)
        value = canonical.decode(data)
        if type(value) in {dict, list}:
            self._copies[key] = value, data
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        unprofiled(self._write, key, value, canonical.encode, canonical.encode, "ctx[{!r}] = value")

    def _write(
        self,
        key: str,
        value: Any,
        encode: Callable[[Any], bytes],
        encode_again: Callable[[Any], bytes],
        remedy: str,
    ) -> None:
        """Stage the encoded value; `encode_again` encodes it later, to see whether the handler has changed it."""
        refuse_in_step("the ctx")
        if type(key) is not str or not 1 <= len(key) <= ContextKey.longest or not key.isprintable():
            key = str(ContextKey(key))
        try:
            data = encode(value)
        except CanonicalError as exc:
            raise CanonicalError(canonical.path_of(key) + exc.path.removeprefix("$"), exc.problem) from None
        if len(data) > MAX_VALUE_BYTES:
            raise ContextError(
                f"the value of context key {key!r} has {len(data)} bytes, more than {MAX_VALUE_BYTES}",
                code=Code.CONTEXT_VALUE_TOO_LARGE,
            )
        self._copies.pop(key, None)
        if type(value) in _IMMUTABLE:
            self._written.pop(key, None)
        else:
            self._written[key] = _Written(value, data, encode_again, remedy)
        self._staged[key] = data

    def __delitem__(self, key: str) -> None:
        refuse_in_step("the ctx")
        if key not in self:
            raise self._missing(key)
        self._copies.pop(key, None)
        self._written.pop(key, None)
        self._staged[key] = None

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str) or not key.isprintable():
            return False
        if key in self._staged:
            return self._staged[key] is not None
        self.read.add(key)
        return self._base.value(key) is not None

    def __iter__(self) -> Iterator[str]:
        keys = self._base.keys()
        removed = {key for key, data in self._staged.items() if data is None and key in keys}
        added = [key for key, data in self._staged.items() if data is not None and key not in keys]
        if removed or added:
            return iter(sorted([*(key for key in keys if key not in removed), *added]))
        return iter(keys)

    def __len__(self) -> int:
        count = len(self._base)
        for key, data in self._staged.items():
            count += (data is not None) - (self._base.value(key) is not None)
        return count

    def get(self, key: str, default: Any = None) -> Any:
        """Return a key's value, or `default` when the key is missing."""
        return self[key] if key in self else default  # noqa: SIM401 - this is that method

    def pop(self, key: str, *default: Any) -> Any:
        """Remove a key and return its value, or `default` when the key is missing."""
        if default and key not in self:
            return default[0]
        value = self[key]
        del self[key]
        return value

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return a key's value, first writing `default` when the key is missing."""
        if key not in self:
            self[key] = default
        return self[key]

    def write_typed(self, key: str, value: Any, kind: Any = None) -> None:
        """Write a typed value: an attrs, dataclass or pydantic instance, a datetime, Decimal or tuple.

        Values may be nested. `kind` is the type to encode the value as, by default its own; a container needs it,
        with the types of its items, unless it is plain JSON. `read_typed` with the same type returns an equal value
        with equal types at every level. Raises `CanonicalError` for a value that would not survive this.
        """
        self._write(
            key,
            value,
            lambda value: codec.typed_bytes(value, kind),
            lambda value: canonical.encode(codec.unstructure_typed(value, kind)),
            "ctx.write_typed({!r}, value)" if kind is None else "ctx.write_typed({!r}, value, kind)",
        )

    def read_typed(self, key: str, kind: type[T]) -> T:
        """Return a key's value as an instance of `kind`. Raises `CodecError` when it does not fit the type."""
        data = self._data(key)
        if data is None:
            raise self._missing(key)
        value: T = codec.structure_typed(canonical.decode(data), kind)
        return value

    @property
    def staged(self) -> dict[str, bytes | None]:
        """The writes so far: canonical bytes by key, None for a removed key."""
        return self._staged

    def check_copies(self) -> None:
        """Raise `ContextError` (`context_value_mutated`) when a value was changed after it was read or written."""
        for key, (value, data) in self._copies.items():
            if _changed(value, data, canonical.encode):
                raise ContextError(
                    f"the value of context key {key!r} was changed in place and not written back",
                    code=Code.CONTEXT_VALUE_MUTATED,
                    hint=f"end with ctx[{key!r}] = value",
                )
        for key, written in self._written.items():
            if _changed(written.value, written.data, written.encode):
                again = written.remedy.format(key)
                raise ContextError(
                    f"the value of context key {key!r} was changed in place after it was written",
                    code=Code.CONTEXT_VALUE_MUTATED,
                    hint=f"write it again when it is complete, {again}, or change a copy of it",
                )

    def _data(self, key: object) -> bytes | None:
        # a key that no write accepts cannot exist, so the base need not be searched for it
        if not isinstance(key, str) or not key.isprintable():
            return None
        if key in self._staged:
            return self._staged[key]
        self.read.add(key)
        return self._base.get(key)

    def _missing(self, key: object) -> ContextError:
        return ContextError(
            f"the context has no key {key!r}",
            code=Code.CONTEXT_KEY_MISSING,
            details={"key": str(key)},
            hint=did_you_mean(str(key), self, show=repr),
        )


def _changed(value: Any, data: bytes, encode: Callable[[Any], bytes]) -> bool:
    try:
        return encode(value) != data
    except Exception:  # noqa: BLE001 - it could be encoded before, whatever a class of the user's raises now
        return True
