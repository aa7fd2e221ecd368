"""What build a run was made by, read once when it starts. It explains a divergence and never causes one."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import inspect
import os
import platform
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import CodeType
from typing import Any, Final

from machine import canonical
from machine.config import BuildProvenance, Target
from machine.plan import Graph

__all__ = ["code_fingerprint", "code_fingerprints", "provenance"]

ENV_NAMES: Final = (
    "CI",
    "LANG",
    "LC_ALL",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONHASHSEED",
    "PYTHONUTF8",
    "TZ",
    "VIRTUAL_ENV",
)
LOCKFILES: Final = ("uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "requirements.txt")
PACKAGES: Final = ("anyio", "attrs", "blake3", "cattrs", "httpx", "orjson", "replay-machine", "rfc8785")


def provenance(graph: Graph, target: Target | None = None) -> BuildProvenance:
    """Return the provenance of a run of `graph` that starts now, in the current directory."""
    here = Path.cwd()
    return BuildProvenance(
        python_version=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        packages=_packages(),
        code=code_fingerprints(graph),
        env_names=tuple(name for name in ENV_NAMES if name in os.environ),
        git_commit=_git_commit(here),
        lockfile_hash=_lockfile_hash(here),
        target=target,
    )


@functools.lru_cache(maxsize=16)
def code_fingerprints(graph: Graph) -> Mapping[str, str]:
    """Return the code fingerprint of every state of a plan, by state id."""
    known: dict[Any, str] = {}
    for state in graph.states.values():
        code = _code_of(state.source)
        if code not in known:
            known[code] = code_fingerprint(state.source)
    return {state.id: known[_code_of(state.source)] for state in graph.states.values()}


def code_fingerprint(source: Any) -> str:
    """Return a fingerprint of a handler's code: 16 hex digits.

    It covers the function or class and the functions and classes of the same module that it names, and those that
    they name. It is taken over syntax trees without docstrings, so comments and layout do not move it; where no
    source can be found, over the compiled code.
    """
    first = inspect.unwrap(source) if callable(source) else source
    module = getattr(first, "__module__", None)
    parts: dict[Any, str] = {}
    pending = [first]
    while pending:
        item = pending.pop()
        if item in parts:
            continue
        parts[item], names = _own_code(_code_of(item))
        world = getattr(item, "__globals__", None) or getattr(sys.modules.get(str(module)), "__dict__", {})
        for name in names:
            helper = world.get(name)
            if inspect.isfunction(helper) or inspect.isclass(helper):
                helper = inspect.unwrap(helper)
                if helper.__module__ == module:
                    pending.append(helper)
    helpers = sorted(text for item, text in parts.items() if item is not first)
    return canonical.artifact_id("\0".join([parts[first], *helpers]).encode())[:16]


def _code_of(source: Any) -> Any:
    """Return what the functions that one `def` makes have in common."""
    return getattr(source, "__code__", source)


@functools.lru_cache(maxsize=4096)
def _own_code(source: Any) -> tuple[str, frozenset[str]]:
    """Return a canonical text of the code of a function (its code object) or class, and the names it uses."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(source)))
    except (OSError, TypeError, SyntaxError):
        return _code_text(source if isinstance(source, CodeType) else None), frozenset()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
            node.decorator_list = []
            node.name = ""
    names = frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    return ast.dump(tree), names


def _code_text(code: CodeType | None) -> str:
    if code is None:
        return ""
    parts = [code.co_code.hex(), repr(code.co_names)]
    parts += [_code_text(item) if isinstance(item, CodeType) else repr(item) for item in code.co_consts]
    return "\0".join(parts)


@functools.cache
def _packages() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.lru_cache(maxsize=8)
def _repository(here: Path) -> Path | None:
    for folder in (here, *here.parents):
        if (folder / ".git").exists():
            return folder
    return None


def _git_commit(here: Path) -> str | None:
    """Return the commit checked out, read from the files of the repository: starting git would cost more."""
    repository = _repository(here)
    if repository is None:
        return None
    try:
        git = repository / ".git"
        if git.is_file():  # a worktree: "gitdir: <path>"
            git = (repository / git.read_text().split(":", 1)[1].strip()).resolve()
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        common = git / "commondir"
        shared = (git / common.read_text().strip()).resolve() if common.exists() else git
        for place in (git, shared):
            if (place / name).exists():
                return (place / name).read_text().strip()
        for line in (shared / "packed-refs").read_text().splitlines():
            if line.endswith(f" {name}"):
                return line.split(" ", 1)[0]
    except (OSError, UnicodeDecodeError, IndexError):
        pass
    return None


def _lockfile_hash(here: Path) -> str | None:
    repository = _repository(here) or here
    for folder in (here, *here.parents):
        for name in LOCKFILES:
            try:
                return hashlib.sha256((folder / name).read_bytes()).hexdigest()
            except OSError:
                continue
        if folder == repository:
            break
    return None
