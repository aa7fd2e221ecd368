"""The temporary files of an attempt: files made with `tempfile` are its own, and no other code sees them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import FrameType
from typing import Any, Final

from machine.watch.code_origin import above, name_of
from machine.watch.safe_inspection import is_a, static_name
from machine.watch.watch import Watch

_MAKES: Final = frozenset({"tempfile.mkstemp", "tempfile.mkdtemp"})


def is_temporary(
    event: str, args: Sequence[Any], paths: Sequence[int], frame: FrameType, watch: Watch
) -> bool:
    """Say whether an act concerns only temporary files that the watched code has made itself."""
    caller = name_of(frame.f_globals)
    if caller == "tempfile" and _makes(event, args[0], frame, watch):
        return True
    if not watch.temporary:
        return False
    if caller == "shutil" and (removed := _removed(frame)) is not None:
        return _is_in(removed, watch)  # below it, names are relative to open directories
    return all(number < len(args) and _is_in(args[number], watch) for number in paths)


def _makes(event: str, path: Any, frame: FrameType, watch: Watch) -> bool:
    """Say whether `tempfile` is about to make something in a temporary folder, and record its path."""
    if frame.f_code.co_name == "_get_default_tempdir":
        return True  # it looks where it can write
    home = static_name("tempfile", "tempdir")
    real = _real(path)
    if real is None or not is_a(home, str, bytes):
        return False
    within = os.path.realpath(os.fsdecode(home))
    if event in _MAKES and os.path.dirname(real) == within:  # noqa: PTH120 - as the rest, on text
        watch.temporary.add(real)
        return True
    return event == "open" and real == within  # for a file without a name, the directory is opened


def _removed(frame: FrameType) -> Any:
    """Return the directory that is being removed with all its contents, or None."""
    for at in above(frame):
        if name_of(at.f_globals) != "shutil":
            return None
        if at.f_code.co_name == "rmtree":
            return at.f_locals.get("path")
    return None


def _is_in(path: Any, watch: Watch) -> bool:
    real = _real(path)
    return real is not None and any(real == made or _is_below(real, made) for made in watch.temporary)


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(f"{folder}{os.sep}")


def _real(path: Any) -> str | None:
    """Return the real path, with links followed; None for anything that is not a path."""
    if not isinstance(path, str | bytes | os.PathLike):
        return None
    return os.path.realpath(os.fsdecode(path))
