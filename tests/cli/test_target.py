"""From TARGET to a plan, and what is said when there is none."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest

from machine.errors import PlanError
from machine.target import load

TWO = (
    'from machine import Plan\n\nplan = Plan("op")\n\n\n@plan.state("a.b")\nasync def b(ctx, io, rec): ...\n'
)


def test_a_module_is_found_in_the_current_directory(write):
    write("pack/__init__.py", "")
    write("pack/things.py", TWO)
    loaded = load("pack.things:plan")
    assert loaded.plan.op_id == "op"
    assert loaded.target.spec == "pack.things:plan"
    assert loaded.target.directory == str(Path.cwd())


def test_a_file_is_recorded_with_its_whole_path(write):
    path = write("sub/things.py", TWO)
    assert load("sub/things.py:plan").target.spec == f"{path}:plan"


def test_the_name_may_be_left_out_when_there_is_one_plan(write):
    write("things.py", TWO)
    assert load("things.py").target.spec.endswith("things.py:plan")
    assert load("things").target.spec == "things:plan"


def test_an_attribute_path_reaches_into_objects(write):
    write("things.py", TWO + "class Space:\n    inner = plan\n")
    assert load("things.py:Space.inner").plan.op_id == "op"


def test_a_file_finds_its_siblings_and_is_not_main(write):
    write("near/sibling_of_things.py", "NAME = 'a.b'\n")
    write("near/things.py", "from sibling_of_things import NAME\nassert __name__ != '__main__'\n" + TWO)
    assert load("near/things.py").plan.op_id == "op"


def test_a_file_is_a_proper_module_so_that_inspect_and_attrs_work(write):
    write(
        "things.py",
        "from __future__ import annotations\nimport attrs, typing\n"
        + TWO
        + "@attrs.define\nclass Row:\n    n: int\ntyping.get_type_hints(Row)\nattrs.resolve_types(Row)\n",
    )
    plan = load("things.py").plan
    state = plan.graph.states["op.a.b"]
    assert "async def b" in inspect.getsource(state.handler)
    assert sys.modules[state.handler.__module__].Row(1).n == 1


def test_a_file_has_the_same_module_name_in_another_checkout(write):
    write("one/things.py", TWO)
    write("two/things.py", TWO)
    name = load("one/things.py").plan.graph.states["op.a.b"].handler.__module__
    del sys.modules[name]
    assert load("two/things.py").plan.graph.states["op.a.b"].handler.__module__ == name
    assert load("one/things.py").plan.graph.states["op.a.b"].handler.__module__ != name


def test_an_edit_within_the_same_second_is_seen(write):
    write("things.py", TWO)
    load("things.py")
    write("things.py", TWO.replace('"op"', '"ap"'))
    assert load("things.py").plan.op_id == "ap"


@pytest.mark.parametrize(
    ("spec", "code", "words"),
    [
        ("missing.py:plan", "target_not_found", "missing.py does not exist"),
        ("no.such:plan", "target_not_found", "there is no module 'no'"),
        ("things.py:nope", "target_not_found", "things.py has no 'nope'"),
        ("things.py:b", "target_not_a_plan", "is not a Plan but an object of type PlanState"),
        ("things.py:Plan", "target_not_a_plan", "is not a Plan but the class Plan"),
        ("things.py:plan.nope", "target_not_found", "has no 'plan.nope'"),
        ("empty.py", "target_not_a_plan", "empty.py has no plan"),
        ("two.py", "target_not_a_plan", "two.py has 2 plans"),
        (":plan", "target_not_found", "names no module and no file"),
        ("a b:plan", "target_not_found", "neither a module nor a Python file"),
        ("sub/", "target_not_found", "is a directory"),
        (
            "importer.py",
            "target_import_failed",
            "ModuleNotFoundError: No module named 'nothere' (importer.py:1)",
        ),
        ("syntax.py", "target_import_failed", "SyntaxError: invalid syntax (syntax.py:2)"),
        ("leaver.py", "target_import_failed", "SystemExit: 3 (leaver.py:2)"),
        ("outer.py", "target_import_failed", "ZeroDivisionError: division by zero (inner_of_outer.py:2)"),
        ("badid.py", "invalid_id", "OpId 'Bad Name' is invalid"),
        ("cycle.py", "circular_dependency", "op.a.c -> op.a.b -> op.a.c"),
        ("hollow.py", "empty_plan", "has no states"),
    ],
)
def test_a_target_that_gives_no_plan_says_what_and_where(machine, write, spec, code, words):
    write("things.py", TWO)
    write("empty.py", "")
    write("two.py", TWO + 'other = Plan("other")\n')
    write("sub/x.py", "")
    write("importer.py", "import nothere\n")
    write("syntax.py", "x = 1\ndef f(:\n")
    write("leaver.py", "import sys\nsys.exit(3)\n")
    write("outer.py", "import inner_of_outer\n")
    write("inner_of_outer.py", "def f():\n    1 / 0\nf()\n")
    write("badid.py", 'from machine import Plan\nPlan("Bad Name")\n')
    write(
        "cycle.py",
        TWO.replace('"a.b"', '"a.b", after=["a.c"]')
        + '@plan.state("a.c", after=["a.b"])\nasync def c(ctx, io, rec): ...\n',
    )
    write("hollow.py", 'from machine import Plan\nplan = Plan("hollow")\n')
    said = machine("run", spec)
    assert said.code == 2
    assert said.out == ""
    assert said.err.startswith(f"error[{code}]: ")
    assert words in said.err
    assert "Traceback" not in said.err
    assert not Path(".machine").exists()


def test_a_module_that_failed_is_not_left_half_imported(write):
    write("importer.py", "1 / 0\n")
    with pytest.raises(PlanError):
        load("importer.py")
    assert "machine_target_importer" not in sys.modules


def test_debug_shows_the_traceback_besides(machine, write):
    write("importer.py", "1 / 0\n")
    said = machine("run", "importer.py", "--debug")
    assert said.code == 2
    assert "Traceback (most recent call last)" in said.err
    assert "error[target_import_failed]" in said.err


def test_the_plan_of_a_run_is_found_again_from_another_directory(machine, recorded, here, monkeypatch):
    store = f"sqlite:///{here}/.machine/runs.db"
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert machine("replay", "@last", "--store", store).code == 0
    assert machine("resume", "@last", "--store", store).code == 0


def test_a_module_is_found_again_from_another_directory(process, write, here, environment):
    write("pack/__init__.py", "")
    write("pack/things.py", TWO)
    assert process("run", "pack.things:plan", env=environment).code == 0
    (here / "elsewhere").mkdir()
    store = f"sqlite:///{here}/.machine/runs.db"
    said = process("replay", "@last", "--store", store, cwd=here / "elsewhere", env=environment)
    assert said.code == 0, said.err


def test_a_plan_that_was_moved_is_named_with_an_option(machine, recorded, here):
    (here / "prices.py").rename(here / "moved.py")
    said = machine("replay", "@last")
    assert said.code == 2
    assert said.err.startswith("error[target_not_found]: ")
    assert "--target" in said.err
    assert machine("replay", "@last", "--target", "moved.py").code == 0
