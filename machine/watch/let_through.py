"""Uses of files that are let through: temporary files of the attempt, and files that came with a package."""

from __future__ import annotations

from types import FrameType

from machine.watch.code_origin import is_harmless
from machine.watch.library_uses import Use
from machine.watch.package_files import came_with_a_package
from machine.watch.temporary_files import is_temporary
from machine.watch.watch import Watch


def is_let_through(name: str, use: Use, frame: FrameType, watch: Watch) -> bool:
    """Say whether a use by a function of this name, which the code of a frame calls, need not be reported."""
    if is_harmless(frame, effect=use.effect):
        return True
    if not use.paths:
        return False
    every = tuple(range(len(use.paths)))
    if is_temporary(name, use.paths, every, frame, watch):
        return True
    return not use.effect and all(map(came_with_a_package, use.paths))
