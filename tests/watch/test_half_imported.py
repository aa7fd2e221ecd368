"""The guard never breaks what it watches: it touches no module or object, and raises nothing of its own."""

# ruff: noqa: ASYNC240

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import textwrap
import types
import zoneinfo
from pathlib import Path

import pytest

from machine import Plan, Reporter, RunConfig, open_store, replay, run
from machine.watch import audit_hook
from machine.watch.safe_inspection import never_raises

TOUCHED: list[str] = []
"""What somebody looked at who must not."""


class TouchedError(Exception):
    """Raised by what must not be looked at."""


def touched(what):
    TOUCHED.append(what)
    raise TouchedError(what)


class Shy:
    """An object that cannot be asked for anything, as one that stands for a request that is not there."""

    def __getattribute__(self, name):
        touched(f"Shy.{name}")

    def __eq__(self, other):
        touched("Shy ==")

    __hash__ = None

    def __repr__(self):
        touched("Shy repr")


class Pretends:
    """An object that asks something else of which class it is."""

    @property
    def __class__(self):
        touched("Pretends.__class__")


class ShyMeta(type):
    """The class of classes that cannot be asked for anything."""

    def __getattribute__(cls, name):
        touched(f"ShyMeta.{name}")

    def __instancecheck__(cls, instance):
        touched("ShyMeta isinstance")

    def __subclasscheck__(cls, subclass):
        touched("ShyMeta issubclass")


class WithShyMeta(metaclass=ShyMeta):
    pass


class Nowhere:
    __module__ = property(lambda self: "x")


class Lying(types.ModuleType):
    """A module that loads what is in it when its names are listed."""

    @property
    def __dict__(self):
        touched("Lying.__dict__")

    def __getattr__(self, name):
        touched(f"Lying.{name}")


class Closed(types.ModuleType):
    """A module that loads itself at the first touch."""

    def __getattribute__(self, name):
        touched(f"Closed.{name}")


def nameless():
    module = types.ModuleType("nameless")
    module.__dict__.clear()
    return module


def initializing():
    module = types.ModuleType("initializing")
    module.__spec__ = importlib.util.spec_from_loader("initializing", None)
    module.__spec__._initializing = True
    module.__getattr__ = lambda name: touched(f"initializing.{name}")
    return module


def lazy(folder):
    (folder / "lazy_module.py").write_text("raise RuntimeError('the guard has loaded it')")
    spec = importlib.util.spec_from_file_location("lazy_module", folder / "lazy_module.py")
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def odd_globals():
    exec_globals = {"__name__": Shy(), "__file__": Shy()}
    exec("def odd():\n    return len(str(1))", exec_globals)
    return exec_globals["odd"]


def oddly_named():
    def function():
        return 1

    function.__module__ = ["no", "name"]
    function.__wrapped__ = Pretends()
    return function


HOLDS = {
    "shy": lambda folder: Shy(),
    "pretends": lambda folder: Pretends(),
    "with_shy_meta": lambda folder: WithShyMeta,
    "one_with_shy_meta": lambda folder: type.__call__(WithShyMeta),
    "nowhere": lambda folder: Nowhere,
    "lying": lambda folder: Lying("lying"),
    "closed": lambda folder: Closed("closed"),
    "nameless": lambda folder: nameless(),
    "initializing": lambda folder: initializing(),
    "lazy_module": lazy,
    "odd": lambda folder: odd_globals(),
    "oddly_named": lambda folder: oddly_named(),
}

SOURCE = """
    import os, time, uuid
    from pathlib import Path

    def helper(path):
        with open(path) as file:
            return file.read()

    def handle(ctx, io, rec, held=(), kept=None):
        import late_module  # with a first import, the hooks look at what there is
        assert late_module.value == 1
        ctx["text"] = helper("there")
        time.time(), uuid.uuid4(), os.environ.get("HOME"), os.listdir(".")
        Path("there").exists()
        ctx["at"] = io.now()

    async def coroutine(ctx, io, rec, held=(), kept=None):
        import late_module
        assert late_module.value == 1
        ctx["text"] = helper("there")
        time.time(), uuid.uuid4(), os.environ.get("HOME"), os.listdir(".")
        Path("there").exists()
        ctx["at"] = await io.now()
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    TOUCHED.clear()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "there").write_text("there")
    (tmp_path / "late_module.py").write_text("import os\nvalue = len(os.listdir('.')) and 1")
    (tmp_path / "shy_handlers.py").write_text(textwrap.dedent(SOURCE))
    before = set(sys.modules)
    yield tmp_path
    for name in {name for name in set(sys.modules) - before if isinstance(name, str)}:
        sys.modules.pop(name, None)


class Deaf(Reporter):
    def undeclared(self, state_id, what):
        str(what)


@pytest.mark.parametrize("where", ["globals", "modules", "defaults", "closure"])
@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
@pytest.mark.parametrize("held", HOLDS)
def test_what_a_program_holds_is_not_touched(place, monkeypatch, held, plain, where):
    thing = HOLDS[held](place)
    module = importlib.import_module("shy_handlers")
    handler = module.handle if plain else module.coroutine
    if where == "globals":
        setattr(module, held, thing)
    elif where == "modules":
        monkeypatch.setitem(sys.modules, held, thing)
        monkeypatch.setitem(sys.modules, "late", thing)
    elif where == "defaults":
        handler.__defaults__ = (thing, thing)
    else:
        inner = handler

        def handle(ctx, io, rec):
            return inner(ctx, io, rec, kept=thing)

        async def coroutine(ctx, io, rec):
            return await inner(ctx, io, rec, kept=thing)

        handler = handle if plain else coroutine
    plan = Plan("op", version="1")
    plan.state("step.state")(handler)
    for mode in ("warn", "allow"):
        sys.modules.pop("late_module", None)
        with open_store("memory://") as store:
            result = run(plan, store=store, config=RunConfig(undeclared_io=mode), reporter=Deaf())
            assert (result.status, result.error) == ("completed", None)
            sys.modules.pop("late_module", None)
            assert replay(result.run_id, plan=plan, store=store, reporter=Deaf()).identical
    assert TOUCHED == []


class ShyPath(os.PathLike):
    """A path that can be used once, and not be shown."""

    def __init__(self, path):
        self.path, self.used = path, 0

    def __fspath__(self):
        self.used += 1
        return self.path

    def __repr__(self):
        touched("ShyPath repr")

    def __eq__(self, other):
        touched("ShyPath ==")

    __hash__ = None


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
def test_a_target_is_told_without_asking_it(place, plain):
    told = []

    class Told(Reporter):
        def undeclared(self, state_id, what):
            told.append(what.does)

    def act():
        os.mkdir(ShyPath("made"))  # noqa: PTH102 - the plain call is what is tested
        os.rmdir(ShyPath("made"))  # noqa: PTH106
        os.close(os.open(ShyPath("new"), os.O_CREAT | os.O_WRONLY))

    async def coroutine(ctx, io, rec):
        act()

    plan = Plan("op", version="1")
    plan.state("step.state")((lambda ctx, io, rec: act()) if plain else coroutine)
    with open_store("memory://") as store:
        assert run(plan, store=store, reporter=Told()).error is None
    assert len(told) == 3
    assert TOUCHED == []


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
@pytest.mark.parametrize("mode", ["warn", "error"])
def test_zoneinfo_may_be_half_imported(place, monkeypatch, mode, plain):
    def act():
        for name in [name for name in sys.modules if name.partition(".")[0] == "zoneinfo"]:
            monkeypatch.delitem(sys.modules, name)
        import zoneinfo as anew

        assert str(anew.ZoneInfo("UTC")) == "UTC"
        monkeypatch.setitem(sys.modules, "zoneinfo", types.ModuleType("zoneinfo"))
        monkeypatch.delitem(sys.modules, "zoneinfo._tzpath", raising=False)
        with open(os.devnull):  # noqa: PTH123 - the plain call is what is tested
            pass
        importlib.import_module("late_module")

    async def coroutine(ctx, io, rec):
        act()

    plan = Plan("op", version="1")
    plan.state("step.state")((lambda ctx, io, rec: act()) if plain else coroutine)
    with open_store("memory://") as store:
        assert run(plan, store=store, config=RunConfig(undeclared_io=mode), reporter=Deaf()).error is None
    assert zoneinfo is not None


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
def test_a_handler_may_be_any_object_that_is_called(place, plain):
    class Handles:
        def __getattr__(self, name):
            touched(f"Handles.{name}")

        if plain:

            def __call__(self, ctx, io, rec):
                assert Path("there").read_text() == "there"

        else:

            async def __call__(self, ctx, io, rec):
                assert Path("there").read_text() == "there"

    one = Handles()

    async def coroutine(ctx, io, rec):
        await one(ctx, io, rec)

    def handle(ctx, io, rec):
        one(ctx, io, rec)

    plan = Plan("op", version="1")
    plan.state("step.state")(handle if plain else coroutine)
    with open_store("memory://") as store:
        assert run(plan, store=store, reporter=Deaf()).error is None
    assert TOUCHED == []


def test_deep_in_a_recursion_a_hook_is_no_further_error(place):
    def deep(depth):
        try:
            return deep(depth + 1)
        except RecursionError:
            with open(os.devnull):  # noqa: PTH123 - it needs less of the stack than a path
                return depth

    plan = Plan("op", version="1")
    plan.state("step.state")(lambda ctx, io, rec: deep(0) and None)
    with open_store("memory://") as store:
        assert run(plan, store=store, reporter=Deaf()).error is None


def test_what_goes_wrong_in_a_hook_is_nobodys_affair(place, monkeypatch):
    def broken(*args):
        raise TouchedError

    for name in ("is_harmless", "is_temporary"):
        monkeypatch.setattr(audit_hook, name, broken)
    plan = Plan("op", version="1")
    plan.state("step.state")(lambda ctx, io, rec: Path("new").write_text("x") and None)
    with open_store("memory://") as store:
        assert run(plan, store=store, reporter=Deaf()).error is None
    assert never_raises("other")(broken)() == "other"
