"""The key of a store, its file and its environment variable: a run of that store may use none of them."""

# Paths exactly as they are given, and few system calls, are the point: not pathlib.
# ruff: noqa: PTH114, PTH116, PTH119, PTH121

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from machine import canonical
from machine.errors import Code, OtherIoError, SecretKeyError
from machine.secrets.bundle_key import PASSPHRASE_VARIABLE
from machine.secrets.encodings import base64_forms, forms_of
from machine.secrets.placeholder import text_of
from machine.secrets.redact import texts_in
from machine.secrets.rules import KEY_CHARACTERS, KEY_LENGTH
from machine.secrets.sealing import StoreKey
from machine.secrets.store_key import KEY_VARIABLE, is_key_file_name, key_in, key_of

RESERVED_NAMES: Final = frozenset({KEY_VARIABLE, PASSPHRASE_VARIABLE})
"""Environment variables that no run may read and no program of a run is given."""

_PART: Final = 8
RUNS: Final = bytes(
    ord("a") if re.fullmatch(f"[{KEY_CHARACTERS}]", chr(code)) else ord(" ") for code in range(256)
)
"""The table with which `bytes.translate` writes `a` for each character that a form of a key may have."""
RUN: Final = b"a" * KEY_LENGTH
"""Every form of a key has this run of characters, and few other texts have it."""


def key_inside(what: str) -> OtherIoError:
    """Return the refusal of a request or an answer that holds the key of the store."""
    return OtherIoError(
        f"{what} holds the key that the secrets of the store are under",
        code=Code.SECRET_RESERVED,
        hint="it opens all that the store has sealed, so no run may hold it",
    )


class Reserved:
    """The keys that a store's runs were driven under, in all forms in which they could be written.

    They are in the key file and in `MACHINE_SECRET_KEY`, and are read when a text could hold one, and again
    when they change. `file` is the key file, None for a store without one.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file: Final = file
        self._path: Final = None if file is None else str(file)
        self._seen: object = None
        self._needles: tuple[bytes, ...] = ()
        self._parts: frozenset[bytes] = frozenset()

    def holds(self, data: bytes) -> bool:
        """Tell whether encoded JSON or another text holds a key."""
        return len(data) >= KEY_LENGTH and self.holds_in(data.translate(RUNS), data)

    def holds_in(self, runs: bytes, data: bytes) -> bool:
        """Tell the same, given `runs`, the data written with the table `RUNS`."""
        begin = runs.find(RUN)
        if begin < 0:
            return False
        self._look()
        if not self._needles:
            return False
        while begin >= 0:
            end = runs.find(b" ", begin)
            end = len(runs) if end < 0 else end
            run = data[begin:end]
            # wherever a form stands in a run, one of these parts is a part of it
            parts = [run[at : at + _PART] for at in range(0, len(run), KEY_LENGTH - _PART + 1)]
            if not self._parts.isdisjoint(parts) and any(needle in run for needle in self._needles):
                return True
            begin = runs.find(RUN, end)
        return False

    def without(self, value: Any) -> Any:
        """Return a JSON value with a placeholder for each key in it."""
        if not any(len(text) >= KEY_LENGTH and self.holds(_encoded(text)) for text in texts_in(value)):
            return value
        return canonical.decode(self.removed(canonical.encode(value)))

    def removed(self, data: bytes) -> bytes:
        """Return encoded JSON with a placeholder for each key in it."""
        for needle in self._needles:
            data = data.replace(needle, text_of(KEY_VARIABLE).encode())
        return canonical.encode(canonical.decode(data))  # keys have their order by what they are now

    def is_file(self, path: str) -> bool:
        """Tell whether a path leads to the key file, or to a file that a change of the key leaves next to it."""
        if self._file is None:
            return False
        try:
            own = self._file.name.lower()
            if os.path.islink(path) or os.path.basename(path).lower().startswith(own):
                found = Path(os.path.realpath(path))
                if found.parent == self._file.parent and is_key_file_name(self._file, found.name):
                    return True
            return os.path.samefile(path, self._file)
        except (OSError, ValueError):
            return False

    def _look(self) -> None:
        given, written = os.environ.get(KEY_VARIABLE), _version_of(self._path)
        if (given, written) == self._seen:
            return
        self._seen = given, written
        found: dict[bytes, None] = dict.fromkeys(self._needles)  # one that was replaced is still on copies
        if given:
            found |= dict.fromkeys(_forms_of_text(given))
        if self._file is not None and written is not None:
            try:
                key = key_in(self._file)
            except SecretKeyError:  # whoever needs it says so
                key = None
            if key is not None:
                found |= dict.fromkeys(_forms(key))
        self._needles = tuple(sorted(found, key=len, reverse=True))
        self._parts = frozenset(
            needle[at : at + _PART] for needle in found for at in range(len(needle) - _PART + 1)
        )


def _version_of(path: str | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _forms_of_text(text: str) -> Iterator[bytes]:
    """Yield the forms of a key that is given as text."""
    try:
        yield from _forms(key_of(text, KEY_VARIABLE))
    except SecretKeyError:
        return
    yield from map(_encoded, forms_of(text.strip()).all())


def _forms(key: StoreKey) -> Iterator[bytes]:
    written = key.key.hex()
    texts = (*forms_of(written).all(), written.upper(), *base64_forms(key.key))
    return map(_encoded, texts)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
