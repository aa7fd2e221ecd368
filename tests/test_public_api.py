"""The public face and the shape of the house: what can be imported, what it costs, and which way imports run."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import machine
from machine import errors, results

HOUSE = Path(machine.__file__).parent
MODULES = sorted(path for path in HOUSE.rglob("*.py") if "__pycache__" not in path.parts)
MOST_LINES = 400

RANKS = {
    # what a rank holds may import what stands in it or before it
    **dict.fromkeys(
        (
            *(
                "canonical",
                "envelope",
                "error_codes",
                "build_provenance",
                "did_you_mean",
                "errors",
                "fsync_directory",
                "ids",
                "lazy_loading",
                "importable_names",
                "limits",
                "model_prices",
                "policy",
                "policy_file",
                "retry_policy",
            ),
            *("process_identity", "unstorable_values", "termination"),
        ),
        0,
    ),
    **dict.fromkeys(
        (
            *(
                "callee",
                "config",
                "ignore",
                "recorded_clients",
                "plan",
                "plan_checks",
                "plan_shape",
                "state",
                "graph_order",
                "events",
                "waits",
                "codec",
                "event_bytes",
                "catalogue",
                "labels",
                "plan_input",
                "input_schema",
                "secrets",
            ),
            *(
                "exception_causes",
                "exception_to_error_info",
                "failed_attempt_info",
                "retry_after",
                "strict_converter",
            ),
            *("typed_converter", "typed_values"),
        ),
        1,
    ),
    "watch": 0,
    **dict.fromkeys(("kernel", "target"), 2),
    **dict.fromkeys(("stores", "io", "clients", "agents", "cron", "default_store"), 3),
    "engine": 4,
    "recordings": 5,
    **dict.fromkeys(("sync", "aio", "results", "torture", "doctor", "testing", "cli"), 6),
    **dict.fromkeys(("machine", "__main__"), 7),
}
APART = {("stores", "io"), ("io", "stores"), ("testing", "cli")}  # the command line has tests replay goldens


def name_of(path: Path) -> str:
    """Return the dotted name of a module's file."""
    parts = path.relative_to(HOUSE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(name: str) -> str:
    """Return which part of the house a module belongs to."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


NAMES = {name_of(path) for path in MODULES}
every_module = pytest.mark.parametrize("path", MODULES, ids=name_of)


def face_for_type_checkers(file: str = "__init__.py") -> dict[str, str]:
    """Return what the TYPE_CHECKING block of a lazy module imports: the home of each name."""
    tree = ast.parse((HOUSE / file).read_text(encoding="utf-8"))
    (block,) = (
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    found: dict[str, str] = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, f"{alias.name} is not re-exported explicitly"
            assert alias.name not in found, f"{alias.name} is there twice"
            submodule = f"{node.module}.{alias.name}"
            found[alias.name] = (
                submodule if submodule in NAMES and node.module == "machine" else str(node.module)
            )
    return found


# -- the face ------------------------------------------------------------------------------------------------


def test_a_type_checker_sees_the_names_that_are_there():
    modules = {"config", "errors", "results", "stores", "testing"}
    assert sorted({*face_for_type_checkers()} - modules) == machine.__all__
    assert all(isinstance(getattr(machine, name), ModuleType) for name in modules)
    assert sorted(face_for_type_checkers("results.py")) == results.__all__


@pytest.mark.parametrize("name", results.__all__)
def test_a_result_is_what_a_type_checker_sees(name):
    assert getattr(results, name) is getattr(
        importlib.import_module(face_for_type_checkers("results.py")[name]), name
    )


MOVED = {
    "config": """
        BuildProvenance Durability EventProfile FanOutJoin IoMode RunManifest UndeclaredIo
    """,
    "errors": """
        BundleError CanonicalError Code CodecError ConfigError ContextError ErrorCategory ErrorInfo IdError
        LogError PlanError RunError SealError SecretKeyError StateError StoreError UsageError
    """,
    "results": """
        Blame Bundle CompareResult ComparedState Divergence DryEffect DryRun DryState EffectWait ExecResult
        FileContent ForkResult ForkedFact Graph IoResult Leak PlanWait Race RunDiff SchedulesResult
        Undeclared VerifyResult
    """,
}
OLD_NAMES = {
    **{name: home for home, names in MOVED.items() for name in names.split()},
    "Concurrency": "errors.ConcurrencyError",
    "Corruption": "errors.CorruptionError",
    "IoOther": "errors.OtherIoError",
    "MissingFact": "errors.MissingFactError",
    "MissingFactKey": "errors.MissingFactKeyError",
    "NotFound": "errors.NotFoundError",
    "RateLimited": "errors.RateLimitedError",
    "StoreOther": "errors.OtherStoreError",
}


@pytest.mark.parametrize("old", OLD_NAMES)
def test_an_old_name_works_and_warns(old):
    home, _, name = OLD_NAMES[old].partition(".")
    new = f"machine.{home}.{name or old}"
    with pytest.warns(DeprecationWarning, match=rf"machine\.{old} has moved: use {new};") as warned:
        found = getattr(machine, old)
    assert found is getattr(importlib.import_module(f"machine.{home}"), name or old)
    assert warned[0].filename == __file__


def test_the_former_home_of_base_transport_still_has_it():
    module = importlib.import_module("machine.io.base_transport")
    with pytest.warns(DeprecationWarning, match="use machine.io.transport.BaseTransport"):
        assert module.BaseTransport is machine.BaseTransport


def test_the_face_is_small_and_every_error_says_that_it_is_one():
    assert len(machine.__all__) <= 61
    every = [
        thing for thing in vars(errors).values() if isinstance(thing, type) and issubclass(thing, Exception)
    ]
    assert [kind.__name__ for kind in every if not kind.__name__.endswith("Error")] == ["Failure"]


@pytest.mark.parametrize("name", machine.__all__)
def test_a_name_is_the_object_that_a_type_checker_sees(name):
    home = importlib.import_module(face_for_type_checkers()[name])
    public = getattr(machine, name)
    assert public is (
        home if home.__name__ == f"machine.{name}" and isinstance(public, ModuleType) else vars(home)[name]
    )


def test_every_public_name_is_listed_and_no_other_is_there():
    assert set(machine.__all__) <= set(dir(machine))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = machine.nothing


FOR_USERS = {
    "machine",
    "machine.agents.langgraph",
    "machine.agents.pydantic_ai",
    "machine.aio",
    "machine.catalogue",
    "machine.clients",
    "machine.config",
    "machine.cron",
    "machine.errors",
    "machine.results",
    "machine.stores",
    "machine.testing",
}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_what_a_module_says_it_exports_is_there(name):
    if name == "machine.__main__":
        return
    module = importlib.import_module(name)
    # one of them makes its list when it is asked for
    exported = getattr(module, "__all__", None) if name in FOR_USERS else vars(module).get("__all__")
    assert (exported is not None) == (name in FOR_USERS), "only what users import lists its names"
    if exported is not None:
        assert len(exported) == len(set(exported))
        assert [missing for missing in exported if not hasattr(module, missing)] == []


# -- what is said about it -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", machine.__all__)
def test_a_public_name_has_a_docstring(name):
    thing = getattr(machine, name)
    text = vars(thing).get("__doc__") if isinstance(thing, type) else inspect.getdoc(thing)
    assert text
    assert text.strip()


@pytest.mark.parametrize(
    "name", [name for name in machine.__all__ if isinstance(getattr(machine, name), type)]
)
def test_the_methods_of_a_public_class_have_docstrings(name):
    missing = []
    for cls in getattr(machine, name).__mro__:
        if not cls.__module__.startswith("machine"):
            continue
        for attribute, value in vars(cls).items():
            function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
            said = inspect.isfunction(function) or isinstance(function, property)
            if said and not attribute.startswith("_") and not (function.__doc__ or "").strip():
                missing.append(f"{cls.__name__}.{attribute}")
    assert missing == []


@every_module
def test_a_module_says_what_it_is_for(path):
    assert (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").strip()


def test_every_error_code_is_used():
    used = "".join(path.read_text(encoding="utf-8") for path in MODULES)
    assert [code.name for code in machine.errors.Code if not re.search(rf"\bCode\.{code.name}\b", used)] == []


# -- what it costs -------------------------------------------------------------------------------------------


def importing(statement: str) -> dict[str, object]:
    """Return which modules a statement loads in a fresh interpreter, and in how many seconds."""
    script = (
        "import json, sys, time\n"
        "before = set(sys.modules); began = time.perf_counter()\n"
        f"{statement}\n"
        "took = time.perf_counter() - began\n"
        "print(json.dumps({'took': took, 'loaded': sorted(set(sys.modules) - before)}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=HOUSE.parent
    )
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_importing_the_package_loads_nothing_that_it_may_not_need():
    clients = {"httpx", "httpcore", "http", "urllib", "ssl", "socket", "email", "openai"}
    command_line = {"rich", "cyclopts", "click", "argparse", "docstring_parser"}
    tests = {"pytest", "_pytest", "hypothesis", "unittest", "doctest", "pdb"}
    engine = {
        "asyncio",
        "anyio",
        "concurrent",
        "multiprocessing",
        "subprocess",
        "threading",
        "logging",
        "sqlite3",
    }
    values = {"attr", "attrs", "cattrs", "orjson", "blake3", "rfc8785", "json", "inspect", "dataclasses"}
    heavy = clients | command_line | tests | engine | values
    loaded = importing("import machine")["loaded"]
    assert isinstance(loaded, list)
    assert sorted(heavy & {name.split(".")[0] for name in loaded}) == []
    assert [name for name in loaded if name.startswith("machine.")] == ["machine.lazy_loading"]


def test_defining_a_plan_and_opening_a_store_loads_no_http_library_and_no_command_line():
    loaded = importing(
        "from machine import Plan, open_store, run\n"
        "plan = Plan('op')\n"
        "@plan.state('a.b')\n"
        "async def state(ctx, io, rec):\n"
        "    ctx['now'] = await io.now()\n"
        "assert run(plan, store=open_store('memory://')).status == 'completed'"
    )["loaded"]
    assert isinstance(loaded, list)
    needless = {
        "httpx",
        "rich",
        "cyclopts",
        "argparse",
        "hypothesis",
        "pytest",
        "unittest",
        "multiprocessing",
    }
    assert sorted(needless & {name.split(".")[0] for name in loaded}) == []
    assert [name for name in loaded if name.startswith(("machine.cli.", "machine.testing"))] == []


# -- which way imports run -----------------------------------------------------------------------------------


def imports_of(path: Path, *, at_the_top: bool = False) -> Iterator[str]:
    """Yield the modules of this package that a module imports, in functions and for type checkers too.

    `at_the_top` leaves out both: what remains is imported when the module is.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if at_the_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in NAMES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                if submodule in NAMES:
                    yield submodule
                elif node.module in NAMES:
                    yield str(node.module)


@every_module
def test_imports_run_one_way(path):
    here = room_of(name_of(path))
    if here == "machine":
        return  # the face itself: it imports what is asked of it, when it is asked
    wrong = set()
    for name in imports_of(path):
        there = room_of(name)
        if there == "machine" and here in {"cli", "testing", "__main__"}:
            continue  # they use the package as a user does
        if RANKS[there] > RANKS[here] or (here, there) in APART:
            wrong.add(name)
    assert sorted(wrong) == []


def test_every_part_of_the_house_has_its_rank():
    assert {room_of(name) for name in NAMES} <= set(RANKS)


def test_the_watch_needs_nothing_else_of_the_package():
    watch = [path for path in MODULES if room_of(name_of(path)) == "watch"]
    assert {room_of(name) for path in watch for name in imports_of(path)} == {"watch"}


def test_every_module_can_be_imported_by_its_dotted_name():
    for name in sorted(NAMES - {"machine.__main__"}):
        exec(f"import {name} as found", space := {})
        assert isinstance(space["found"], ModuleType), name


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return one circle of a graph, empty when it has none."""
    left = {node: set(others) & set(graph) - {node} for node, others in graph.items()}
    while free := [node for node, others in left.items() if not others & set(left)]:
        for node in free:
            del left[node]
    if not left:
        return []
    path = [min(left)]
    while path.count(path[-1]) == 1:
        path.append(min(left[path[-1]] & set(left)))
    return path[path.index(path[-1]) :]


def test_no_module_imports_itself_in_a_circle():
    assert circle({name_of(path): set(imports_of(path, at_the_top=True)) for path in MODULES}) == []


def test_no_module_needs_itself_even_in_functions_and_for_type_checkers():
    lazy = {
        name_of(path) for path in MODULES if path.name == "__init__.py"
    }  # a package loads what is asked of it
    graph = {name_of(path): set(imports_of(path)) - lazy for path in MODULES}
    assert circle({name: needs for name, needs in graph.items() if name not in lazy}) == []


def test_no_two_parts_of_the_house_import_each_other():
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        here = room_of(name_of(path))
        if here != "machine":
            graph.setdefault(here, set()).update(room_of(name) for name in imports_of(path))
    assert circle(graph) == []


@every_module
def test_a_module_is_not_asking_to_be_two(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
