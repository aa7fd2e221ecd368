"""Provenance: the build that a run was made by, read once at its start. It explains divergences and causes none."""

# A run is begun often, and pathlib takes longer than the disk.
# ruff: noqa: PTH110, PTH113, PTH118, PTH123, PTH208

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Final

import attrs

from machine import canonical
from machine.config import BuildProvenance, Target
from machine.engine.masked_source import kept_source
from machine.engine.source_text import has_code, module_name, names_seen_by, source_text, unwrapped
from machine.plan import Graph
from machine.watch.safe_inspection import is_a

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
MAX_SOURCE: Final = 256 * 1024
"""The largest number of characters of source recorded with one run; further states have only their fingerprint."""

PACKAGES: Final = ("anyio", "attrs", "blake3", "cattrs", "httpx", "orjson", "replay-machine", "rfc8785")


MAX_KNOWN: Final = 4096
"""The largest number of functions and classes whose code is remembered."""


@attrs.frozen
class HandlerCode:
    """The code of a handler: its fingerprint (16 hex digits), its source, and the recorded masked source."""

    fingerprint: str
    source: str
    kept: str


def provenance(graph: Graph, target: Target | None = None) -> BuildProvenance:
    """Return the provenance of a run of `graph` that starts now, in the current directory."""
    here = Path.cwd()
    code = code_of_states(graph)
    return BuildProvenance(
        python_version=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        packages=_packages(),
        code={state_id: item.fingerprint for state_id, item in code.items()},
        source=_kept(code),
        env_names=tuple(name for name in ENV_NAMES if name in os.environ),
        git_commit=_git_commit(here),
        lockfile_hash=_lockfile_hash(here),
        target=target,
    )


def _kept(code: Mapping[str, HandlerCode]) -> dict[str, str]:
    kept: dict[str, str] = {}
    left = MAX_SOURCE
    for item in code.values():
        if item.fingerprint not in kept and 0 < len(item.kept) <= left:
            kept[item.fingerprint] = item.kept
            left -= len(item.kept)
    return kept


@functools.lru_cache(maxsize=16)
def code_of_states(graph: Graph) -> Mapping[str, HandlerCode]:
    """Return the code of every state of a plan, by state id."""
    known: dict[int, HandlerCode] = {}
    codes: dict[str, HandlerCode] = {}
    for state in graph.states.values():
        key = id(_code_of(state.source))
        if key not in known:
            known[key] = code_of(state.source)
        codes[state.id] = known[key]
    return codes


def code_of(source: Any) -> HandlerCode:
    """Return a handler's code.

    It consists of the function or class and of the functions and classes of the same module that it names, directly
    or indirectly. The fingerprint is taken over syntax trees without docstrings, so comments and layout do not
    change it; where no source can be found, it is taken over the compiled code.
    """
    first = unwrapped(source)
    module = module_name(first)
    parts: dict[int, _Part] = {}
    pending = [first]
    while pending:
        item = pending.pop()
        if id(item) in parts:
            continue
        parts[id(item)] = part = _own_code(item)
        world = names_seen_by(item)
        for name in part.names:
            helper = world.get(name)
            if has_code(helper) and module_name(helper := unwrapped(helper)) == module:
                pending.append(helper)
    own = parts.pop(id(first))
    helpers = sorted(parts.values(), key=lambda part: part.tree)
    joined = "\0".join([own.tree, *(part.tree for part in helpers)])
    text = "\n".join(part.text for part in (own, *helpers) if part.text)
    return HandlerCode(canonical.artifact_id(joined.encode())[:16], text, kept_source(text))


def _code_of(source: Any) -> Any:
    """Return the code object of a function, which all functions made by one `def` share; of a class, itself."""
    return source.__code__ if is_a(source, FunctionType) else source


@attrs.frozen
class _Part:
    """The code of one function or class: a canonical text of it, the names it uses, its source."""

    tree: str
    names: frozenset[str]
    text: str


_known: Final[dict[int, tuple[Any, _Part]]] = {}
"""Code that was read before, by its identity: the class of a class may refuse to compare it."""


def _own_code(item: Any) -> _Part:
    """Return the code of a function or class, which is read once."""
    code = _code_of(item)
    if id(code) not in _known:
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        _known[id(code)] = code, _read_code(item)
    return _known[id(code)][1]


def _read_code(item: Any) -> _Part:
    try:
        text = textwrap.dedent(source_text(item))
        tree = ast.parse(text)
    except (OSError, SyntaxError):
        code = _code_of(item)
        return _Part(_code_text(code if isinstance(code, CodeType) else None), frozenset(), "")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
            node.decorator_list = []
            node.name = ""
    names = frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    return _Part(ast.dump(tree), names, text)


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
    """Return the checked-out commit, read from the files of the repository because starting git would be slower."""
    repository = _repository(here)
    if repository is None:
        return None
    try:
        git = os.path.join(repository, ".git")
        if os.path.isfile(git):  # a worktree: "gitdir: <path>"
            git = os.path.join(repository, _text(git).split(":", 1)[1].strip())
        head = _text(git, "HEAD")
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        shared = git
        if os.path.exists(os.path.join(git, "commondir")):
            shared = os.path.join(git, _text(git, "commondir"))
        for place in (git, shared):
            if os.path.exists(os.path.join(place, name)):
                return _text(place, name)
        for line in _text(shared, "packed-refs").splitlines():
            if line.endswith(f" {name}"):
                return line.split(" ", 1)[0]
    except (OSError, UnicodeDecodeError, IndexError):
        pass
    return None


def _text(*path: str) -> str:
    with open(os.path.join(*path), "rb", buffering=0) as file:
        return file.readall().decode().strip()


def _lockfile_hash(here: Path) -> str | None:
    repository = _repository(here) or here
    for folder in (here, *here.parents):
        try:
            names = frozenset(os.listdir(folder))
        except OSError:
            continue
        for name in LOCKFILES:
            if name in names:
                with contextlib.suppress(OSError):
                    return hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if folder == repository:
            break
    return None
