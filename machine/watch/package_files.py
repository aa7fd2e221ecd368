"""The files that come with loaded packages, which change only together with the code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from machine.watch.safe_inspection import is_a, module_dict, never_raises


@never_raises(False)  # noqa: FBT003 - whether it did
def came_with_a_package(path: Any) -> bool:
    """Say whether a file is in the folder of a loaded package, such as a resource of `importlib.resources`.

    Those files change only together with the code.
    """
    text = os.fsdecode(path)
    folders = tuple(f"{folder}{os.sep}" for folder in _package_folders())
    return text.startswith(folders) or os.path.realpath(text).startswith(folders)


def _package_folders() -> Iterator[str]:
    """Yield the folders of the loaded packages, except namespace packages."""
    for module in list(sys.modules.values()):
        inside = module_dict(module) if is_a(module, ModuleType) else {}
        if is_a(inside.get("__file__"), str) and is_a(paths := inside.get("__path__"), list):
            yield from (folder for folder in paths or () if is_a(folder, str))
