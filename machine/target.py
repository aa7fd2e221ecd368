"""Loading of the plan that a user names: `package.module:plan` or `path/file.py:plan`.

This is the only code of this library that runs the user's module. It never runs a handler.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.machinery
import importlib.util
import linecache
import os
import re
import sys
import sysconfig
import traceback
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

import attrs

from machine.config import Target
from machine.errors import Code, MachineError, PlanError
from machine.plan import Plan

_LOADED: Final = "machine_target_"
"""The beginning of the names of modules that are loaded from files."""

_WRITE_IT: Final = "write package.module:plan or path/file.py:plan"
_FIX_IT: Final = "fix the module and try again; --debug shows the whole traceback"


@attrs.frozen
class Loaded:
    """A validated plan and its origin, in a form that finds it again from any directory."""

    plan: Plan
    target: Target


def load(spec: str, directory: str | os.PathLike[str] | None = None) -> Loaded:
    """Return the plan that `spec` names, validated.

    A relative path is taken from `directory` (the current one by default), which also goes to the front of
    the search path for a module; a file's own directory does for a file. `:plan` may be left out of a
    module that has exactly one. Raises `PlanError`: `target_not_found`, `target_import_failed`,
    `target_not_a_plan`, or the rule that the plan breaks.
    """
    here = os.path.abspath(directory if directory is not None else os.getcwd())  # noqa: PTH100, PTH109 - links stay
    place, name = _split(spec)
    path = os.path.normpath(os.path.join(here, place))  # noqa: PTH118 - the same
    if place.endswith(".py") or "/" in place or os.sep in place:
        module = _guarded(place, path, lambda: _file_module(spec, path))
        kept = path
    else:
        module = _guarded(place, None, lambda: _named_module(spec, place, here))
        kept = place
    name, plan = _plan_in(module, name, place, spec)
    plan.graph  # noqa: B018 - validates it
    return Loaded(plan, Target(f"{kept}:{name}", here))


def target_near(plan: Plan, target: Target) -> Target | None:
    """Return the target of a plan that is in the module of another target, or in that of one of its handlers.

    The modules are those that are loaded. None where no global name of them is the plan.
    """
    place = target.spec.rpartition(":")[0] or target.spec
    path = os.path.normpath(os.path.join(os.path.abspath(target.directory), place))  # noqa: PTH100, PTH118 - as in `load`
    own = sys.modules.get(_module_name(path) if place.endswith(".py") or os.sep in place else place)
    found = [] if own is None else [(place, own)]
    for state in plan.graph.states.values():
        name = getattr(state.handler, "__module__", None) or "__main__"
        if name != "__main__" and not name.startswith(_LOADED) and name in sys.modules:
            found.append((name, sys.modules[name]))
    for where, module in found:
        for name, value in vars(module).items():
            if value is plan:
                return Target(f"{where}:{name}", target.directory)
    return None


def place_of(target: Target) -> str:
    """Return the directory from which a target's modules are imported."""
    module = target.spec.rpartition(":")[0] or target.spec
    here = os.path.abspath(target.directory)  # noqa: PTH100 - links stay
    if module.endswith(".py") or os.sep in module:
        return str(Path(here, module).parent)
    return here


def _split(spec: str) -> tuple[str, str]:
    place, colon, name = spec.rpartition(":")
    if not colon or name.endswith(".py") or "/" in name:
        place, name = spec, ""
    if not place:
        raise _not_found(f"{spec!r} names no module and no file", spec, _WRITE_IT)
    return place, name


def _not_found(message: str, spec: str, hint: str | None) -> PlanError:
    return PlanError(message, code=Code.TARGET_NOT_FOUND, details={"target": spec}, hint=hint)


def _to_front(directory: str) -> None:
    if not sys.path or sys.path[0] != directory:
        sys.path.insert(0, directory)
    importlib.invalidate_caches()


class _FreshSource(importlib.machinery.SourceFileLoader):
    """A loader that compiles the source every time: a cache with whole seconds would miss an edit within one."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _file_module(spec: str, path: str) -> ModuleType:
    if not Path(path).is_file():
        what = "is a directory" if Path(path).is_dir() else "does not exist"
        raise _not_found(
            f"{path} {what}", spec, "check the path; replay and resume take another with --target"
        )
    name = _module_name(path)
    _to_front(str(Path(path).parent))
    linecache.checkcache(path)
    found = importlib.util.spec_from_file_location(name, path, loader=_FreshSource(name, path))
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # before it runs, because inspect, typing and attrs look there
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _module_name(path: str) -> str:
    # made of the file's name alone where that is enough: the module of an exception is recorded with it, so a
    # checkout in another directory must come to the same name
    name = f"{_LOADED}{re.sub(r'[^0-9A-Za-z_]', '_', Path(path).stem)}"
    other = sys.modules.get(name)
    if other is not None and other.__file__ != path:
        name = f"{name}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:12]}"
    return name


def _named_module(spec: str, place: str, directory: str) -> ModuleType:
    if not all(part.isidentifier() for part in place.split(".")):
        raise _not_found(f"{place!r} is neither a module nor a Python file", spec, _WRITE_IT)
    _to_front(directory)
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{place}.".startswith(f"{exc.name}."):
            raise
        hint = f"for a file, write {place}.py" if (Path(directory) / f"{place}.py").is_file() else None
        message = f"there is no module {exc.name!r} in {directory} or where Python looks"
        raise _not_found(
            message, spec, hint or "check the name, or change to the directory it is in"
        ) from exc


def _guarded(place: str, path: str | None, load_it: Any) -> ModuleType:
    """Run an import; any exception of the module becomes one error with the message and the place in its source."""
    try:
        module: ModuleType = load_it()
    except PlanError as exc:
        if exc.code == Code.TARGET_NOT_FOUND:
            raise
        raise _own(exc, path) from exc
    except MachineError as exc:
        raise _own(exc, path) from exc
    except KeyboardInterrupt:
        raise
    except BaseException as exc:
        where = _location(exc, path)
        text = f"{type(exc).__qualname__}: {exc.msg if isinstance(exc, SyntaxError) else exc}".rstrip(": ")
        raise PlanError(
            f"importing {place} failed: {text}{f' ({where})' if where else ''}",
            code=Code.TARGET_IMPORT_FAILED,
            details={"exception": type(exc).__qualname__, "message": str(exc), "location": where},
            hint=_FIX_IT,
        ) from exc
    return module


def _own(exc: MachineError, path: str | None) -> PlanError:
    """Return the error for an exception of this library that a module raised at import, with its `file:line`."""
    where = _location(exc, path)
    return PlanError(
        f"{exc.message} ({where})" if where else exc.message,
        code=exc.code,
        details={**(exc.info.details or {}), "location": where},
        hint=exc.hint,
    )


def _location(exc: BaseException, path: str | None) -> str | None:
    """Return `file:line` of the user's innermost frame or of the syntax error, or None."""
    if isinstance(exc, SyntaxError) and exc.filename:
        return f"{_shown(exc.filename)}:{exc.lineno}"
    frames = [
        frame for frame in traceback.extract_tb(exc.__traceback__) if not frame.filename.startswith("<")
    ]
    not_theirs = (
        *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
        str(Path(__file__).parent),
    )
    theirs = [
        frame
        for frame in frames
        if frame.filename == path or not any(frame.filename.startswith(f"{at}{os.sep}") for at in not_theirs)
    ]
    return f"{_shown(theirs[-1].filename)}:{theirs[-1].lineno}" if theirs else None


def _shown(filename: str) -> str:
    try:
        return str(Path(filename).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return filename


def _plan_in(module: ModuleType, name: str, place: str, spec: str) -> tuple[str, Plan]:
    plans = {key: value for key, value in vars(module).items() if isinstance(value, Plan)}
    if not name:
        names = list({id(value): key for key, value in reversed(plans.items())}.values())
        if len(names) == 1:
            return names[0], plans[names[0]]
        raise PlanError(
            f"{place} has {f'{len(names)} plans' if names else 'no plan'}",
            code=Code.TARGET_NOT_A_PLAN,
            details={"target": spec, "plans": sorted(names)},
            hint=f"name one: {', '.join(f'{place}:{key}' for key in sorted(names))}" if names else _WRITE_IT,
        )
    value: Any = module
    for part in name.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            near = sorted(plans) or difflib.get_close_matches(part, vars(module), 1)
            hint = f"did you mean {' or '.join(f'{place}:{key}' for key in near)}?" if near else None
            raise _not_found(f"{place} has no {name!r}", spec, hint) from None
    if not isinstance(value, Plan):
        raise PlanError(
            f"{spec} is not a Plan but {_described(value)}",
            code=Code.TARGET_NOT_A_PLAN,
            details={"target": spec, "type": type(value).__qualname__, "plans": sorted(plans)},
            hint=f"did you mean {' or '.join(f'{place}:{key}' for key in sorted(plans))}?" if plans else None,
        )
    return name, value


def _described(value: Any) -> str:
    return (
        f"the class {value.__qualname__}"
        if isinstance(value, type)
        else f"an object of type {type(value).__qualname__}"
    )
