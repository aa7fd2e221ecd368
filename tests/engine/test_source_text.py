"""The source of a handler is read from its own file: nothing else that is imported is touched."""

from __future__ import annotations

import functools
import importlib
import inspect
import linecache
import sys
import textwrap
import types
import zipfile

import pytest

from machine import Plan, open_store, run
from machine.engine.provenance import code_of
from machine.engine.source_text import source_text

SOURCE = '''
import functools

def decorated(function):
    @functools.wraps(function)
    def inner(ctx):
        return function(ctx)
    return inner

class Outer:
    """Hold a class."""

    class Inner:
        def __call__(self, ctx):
            return helper()

    def bound(self, ctx):
        return helper()

def helper():
    return 5

@decorated
def plain(ctx):
    return helper()

@decorated
async def asynchronous(ctx):
    return Outer.Inner()

def factory():
    class Local(Outer):
        def __call__(self, ctx):
            return helper()
    return Local

short = lambda ctx: helper()
Inner, Local, method = Outer.Inner, factory(), decorated(Outer().bound)
'''
NAMES = (
    "decorated",
    "Outer",
    "helper",
    "plain",
    "asynchronous",
    "factory",
    "short",
    "Inner",
    "Local",
    "method",
)


class Refuses(types.ModuleType):
    """A module that cannot be asked for anything."""

    def __getattribute__(self, name):
        raise RuntimeError(f"somebody asked for {name}")


class Proxy:
    """An object that stands for another, which is not there yet."""

    @property
    def __class__(self):
        raise RuntimeError("there is no request")


class Meta(type):
    """The class of classes that cannot be compared or asked for anything."""

    __hash__ = None

    def __eq__(cls, other):
        raise RuntimeError("not comparable")

    def __getattribute__(cls, name):
        raise RuntimeError(f"somebody asked for {name}")


class Incomparable(metaclass=Meta):
    """A class of such a class."""


ABSENT = Proxy()


@pytest.fixture
def no_walk(monkeypatch):
    """Let whoever goes through all modules fail."""
    monkeypatch.setitem(sys.modules, "refuses", Refuses("refuses"))
    monkeypatch.setattr(inspect, "modulesbyfile", {})
    monkeypatch.setattr(inspect, "_filesbymodname", {})


def as_file(tmp_path, monkeypatch):
    (tmp_path / "as_file.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    return vars(importlib.import_module("as_file"))


def as_zip(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.writestr("as_zip.py", SOURCE)
    monkeypatch.syspath_prepend(tmp_path / "packed.zip")
    return vars(importlib.import_module("as_zip"))


@pytest.mark.parametrize("load", [as_file, as_zip])
@pytest.mark.parametrize("name", NAMES)
def test_the_source_is_what_inspect_finds(tmp_path, monkeypatch, load, name):
    try:
        item = inspect.unwrap(load(tmp_path, monkeypatch)[name])
        item = getattr(item, "__func__", item)
        assert source_text(item) == inspect.getsource(item)
        assert code_of(item).source.startswith(textwrap.dedent(inspect.getsource(item)))
    finally:
        sys.modules.pop(load.__name__, None)


@pytest.mark.parametrize("name", NAMES)
def test_no_other_module_is_touched(tmp_path, monkeypatch, no_walk, name):
    try:
        assert code_of(as_file(tmp_path, monkeypatch)[name]).source
    finally:
        sys.modules.pop("as_file", None)


def test_a_cell_of_a_notebook_has_its_source(monkeypatch, no_walk):
    lines = SOURCE.splitlines(keepends=True)
    monkeypatch.setitem(linecache.cache, "<ipython-input-1>", (len(SOURCE), None, lines, "<ipython-input-1>"))
    names = {"__name__": "__main__"}
    exec(compile(SOURCE, "<ipython-input-1>", "exec"), names)
    assert source_text(names["helper"]) == "def helper():\n    return 5\n"
    assert "def plain" in code_of(names["plain"]).source


@pytest.mark.parametrize("file", ["<string>", "<generated>", "/nowhere/at/all.py"])
def test_code_without_a_file_is_told_apart_by_what_it_does(no_walk, file):
    def made(text):
        names = {"__name__": "made"}
        exec(compile(text, file, "exec"), names)
        return code_of(names["handle"])

    assert made("def handle(ctx): return 1") == made("def handle(ctx): return 1")
    assert made("def handle(ctx): return 1") != made("def handle(ctx): return 2")


def test_a_file_that_became_shorter_is_no_source(tmp_path, monkeypatch, no_walk):
    try:
        names = as_file(tmp_path, monkeypatch)
        (tmp_path / "as_file.py").write_text("x = 1\n")
        assert [code_of(names[name]).source for name in ("helper", "short")] == ["", ""]
    finally:
        sys.modules.pop("as_file", None)


def names_a_proxy(ctx):
    return ABSENT


def names_a_class_that_cannot_be_compared(ctx):
    return Incomparable


@pytest.mark.parametrize("handler", [names_a_proxy, names_a_class_that_cannot_be_compared])
def test_what_a_handler_names_is_not_asked(no_walk, handler):
    plan = Plan("op", version="1")
    plan.state("step.state")(handler)
    with open_store("memory://") as store:
        run(plan, store=store)
    assert "def names_a" in code_of(handler).source


def test_a_handler_may_wrap_what_has_no_source(no_walk):
    assert code_of(functools.wraps(print)(lambda ctx: None)).source == ""


def test_a_file_that_is_not_the_one_that_was_loaded_has_no_source(tmp_path):
    changed = tmp_path / "changed.py"
    changed.write_text("def handler():\n    return 1\n")
    names = {}
    exec(compile(changed.read_text(), str(changed), "exec"), names)
    changed.write_text('x = f("""never ended\n')
    with pytest.raises(OSError, match="not the one that was loaded"):
        source_text(names["handler"])
