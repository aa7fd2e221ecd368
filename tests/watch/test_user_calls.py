"""Own calls: clocks, randomness and the environment are seen however a program comes by them, and nobody else's."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from machine import Plan, Reporter, RunConfig, aio, open_store, run
from machine.kernel.context import Context
from machine.watch.nondeterministic_calls import AMBIENT, resolved

ARGUMENTS = {
    "time.clock_gettime": "time.CLOCK_REALTIME",
    "time.clock_gettime_ns": "time.CLOCK_REALTIME",
    "time.strftime": "'%Y'",
    "time.sleep": "0",
    "random.uniform": "1, 2",
    "random.randint": "1, 2",
    "random.choice": "[1]",
    "random.randrange": "3",
    "random.sample": "[1, 2], 1",
    "random.shuffle": "[1]",
    "random.choices": "[1]",
    "random.lognormvariate": "1, 1",
    "random.expovariate": "1",
    "random.vonmisesvariate": "1, 1",
    "random.gammavariate": "1, 1",
    "random.betavariate": "1, 1",
    "random.paretovariate": "1",
    "random.weibullvariate": "1, 1",
    "random.setstate": "STATE",
    "random.getrandbits": "3",
    "random.randbytes": "3",
    "os.urandom": "3",
    "os.getrandom": "3",
    "secrets.randbelow": "3",
    "secrets.choice": "[1]",
    "secrets.randbits": "3",
    "os.getenv": "'HOME'",
    "os.getenvb": "b'HOME'",
    "os.stat": "PATH",
    "os.lstat": "PATH",
    "os.access": "PATH, 0",
    "os.readlink": "PATH",
    "os.statvfs": "PATH",
    "os.path.samefile": "PATH, PATH",
    "_thread.start_new_thread": "int, ()",
    "_thread.start_joinable_thread": "int",
}
ARGUMENTS |= {
    ambient.name: "PATH"
    for ambient in AMBIENT
    if ambient.name.startswith("os.path.") and ambient.name != "os.path.samefile"
}
WRITTEN = {
    # what is no function that is called by its dotted name
    "random.Random.__init__": ("random.Random", "{}()"),
    "random.SystemRandom.random": ("random.SystemRandom", "{}().random()"),
    "random.SystemRandom.getrandbits": ("random.SystemRandom", "{}().getrandbits(3)"),
    "random.SystemRandom.randbytes": ("random.SystemRandom", "{}().randbytes(3)"),
    "os._Environ.__getitem__": ("os.environ", "{}['PATH']"),
    "os._Environ.__iter__": ("os.environ", "dict({})"),
    "os._Environ.__len__": ("os.environ", "len({})"),
    "os._Environ.copy": ("os.environ", "{}.copy()"),
    "os._Environ.__repr__": ("os.environ", "repr({})"),
    "threading.Thread.start": ("threading.Thread", "{}(target=int).start()"),
    "concurrent.futures.ThreadPoolExecutor.submit": (
        "concurrent.futures.ThreadPoolExecutor",
        "POOL.submit({})",
    ),
    "concurrent.futures.ThreadPoolExecutor.map": (
        "concurrent.futures.ThreadPoolExecutor",
        "POOL.map({}, [])",
    ),
    **{
        ambient.name: ("pathlib.Path", f"{{}}(PATH).{ambient.name.rpartition('.')[2]}()")
        for ambient in AMBIENT
        if ambient.name.startswith("pathlib.Path.") and ambient.name.rpartition(".")[2] not in {"cwd", "home"}
    },
    "pathlib.Path.samefile": ("pathlib.Path", "{}(PATH).samefile(PATH)"),
}
HERE = [
    ambient.name
    for ambient in AMBIENT
    if ambient in {*resolved().builtins.values(), *resolved().codes.values()}
    or ambient.name in {found.name for found in resolved().builtins.values()}
]
"""What this interpreter has got."""


def spelled(name):
    """Return the thing a program names, and what it does with it."""
    if name in WRITTEN:
        return WRITTEN[name]
    return name, "{}(" + ARGUMENTS.get(name, "") + ")"


def got(thing):
    """Return the attribute that a thing is of another."""
    owner, _, last = thing.rpartition(".")
    return f"getattr({owner}, {last!r})"


def imported(thing):
    """Return a statement that imports a thing, or what it belongs to, and an expression for it."""
    parts = thing.split(".")
    if thing.startswith(("os.path.", "concurrent.futures.")):
        parts = [".".join(parts[:2]), *parts[2:]]
    return f"from {parts[0]} import {parts[1]} as alias", ".".join(["alias", *parts[2:]])


STYLES = {
    # how a program may come by a thing: what stands in the module, and what in the function
    "by its name": lambda thing: ("", "", thing),
    "under another name": lambda thing: ("{alias} = " + thing, "", "{alias}"),
    "imported from its module": lambda thing: (
        imported(thing)[0].replace("alias", "{alias}"),
        "",
        imported(thing)[1].replace("alias", "{alias}"),
    ),
    "imported in the function": lambda thing: ("", imported(thing)[0], imported(thing)[1]),
    "kept in a variable": lambda thing: ("", f"kept = {thing}", "kept"),
    "asked for by name": lambda thing: ("", "", got(thing)),
}
HEAD = """
import concurrent.futures, contextlib, datetime, getpass, os, os.path, pathlib, platform, random, secrets, socket
import sys, threading, time, uuid, _thread

PATH = os.path.abspath(__file__)
STATE = random.getstate()
POOL = concurrent.futures.ThreadPoolExecutor(1)
"""


def program(style):
    """Return a module with one function for each thing, `call_0` and so on, that does it."""
    above, functions = [HEAD], []
    for number, name in enumerate(HERE):
        thing, does = spelled(name)
        in_module, in_function, expression = (
            part.format(alias=f"alias_{number}") for part in STYLES[style](thing)
        )
        above.append(in_module)
        functions.append(
            f"def call_{number}():\n"
            "    with contextlib.suppress(OSError, KeyError):\n"
            f"        {in_function or 'pass'}\n"
            f"        {does.format(expression)}\n"
        )
    calls = "\n".join(f"    call_{number}()" for number in range(len(HERE)))
    return "\n".join([*above, *functions, f"def call_all():\n{calls}"])


class Told(Reporter):
    """Keeps what it is told of."""

    def __init__(self):
        self.told = []

    def undeclared(self, state_id, what):
        self.told.append(what)


def found_in(handler, undeclared_io="warn"):
    """Run one handler and return what it was found to do by itself."""
    plan, told = Plan("op"), Told()
    plan.state("step.state")(handler)
    with open_store("memory://") as store:
        result = run(plan, store=store, config=RunConfig(undeclared_io=undeclared_io), reporter=told)
    assert (result.status, result.error) == ("completed", None)
    return told.told


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a module and import it."""
    names = []

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        importlib.invalidate_caches()
        names.append(name)
        return importlib.import_module(name)

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    yield write
    for name in names:
        sys.modules.pop(name, None)


def test_every_call_of_the_table_is_tried_or_not_there():
    assert {ambient.name for ambient in AMBIENT} - set(HERE) <= {
        *("uuid.uuid6", "uuid.uuid7", "uuid.uuid8"),  # from Python 3.14
        *("os.process_cpu_count", "_thread.start_joinable_thread"),  # from Python 3.13
        "random.binomialvariate",  # from Python 3.12
        *("secrets.choice", "secrets.randbits"),  # the same functions as others of the table
        *("os.path.isfile", "os.path.isdir", "os.path.islink", "os.path.lexists", "os.path.exists"),
    }


@pytest.mark.filterwarnings("ignore:.*utcnow.*:DeprecationWarning")
@pytest.mark.parametrize("kind", ["async", "plain", "task"])
@pytest.mark.parametrize("style", STYLES)
def test_every_call_of_the_table_is_seen_however_the_program_came_by_it(written, style, kind):
    module = written("own_calls_program", program(style))

    async def coroutine(ctx, io, rec):
        if kind == "task":
            import asyncio

            async def task():
                await asyncio.sleep(0)
                module.call_all()

            await asyncio.gather(task(), asyncio.sleep(0))
        else:
            module.call_all()

    def plain(ctx, io, rec):
        module.call_all()

    found = found_in(plain if kind == "plain" else coroutine)
    lines = {
        number: code.co_firstlineno
        for number in range(len(HERE))
        for code in [getattr(module, f"call_{number}").__code__]
    }
    seen = {what.line for what in found if what.file == module.__file__}
    missed = [name for number, name in enumerate(HERE) if lines[number] + 3 not in seen]
    module.POOL.shutdown()
    assert missed == []
    assert seen == {line + 3 for line in lines.values()}


def test_what_comes_of_what_is_given_is_let_through(written):
    module = written(
        "own_calls_given",
        """
        import datetime, os, pathlib, random, time, uuid

        def call_all():
            time.gmtime(0), time.localtime(0), time.ctime(0), time.strftime("%Y", time.gmtime(0))
            datetime.datetime.fromtimestamp(0, datetime.UTC), datetime.date.fromisoformat("2026-01-01")
            mine = random.Random(4)
            mine.random(), mine.choice([1]), mine.shuffle([1]), mine.getrandbits(3), random.Random(x=3).random()
            uuid.uuid5(uuid.NAMESPACE_DNS, "name"), uuid.UUID(int=3)
            pathlib.Path("a") / "b", os.path.join("a", "b"), os.fspath("a"), pathlib.PurePath("a").name
            sorted([3, 1], key=lambda item: -item)
        """,
    )
    assert found_in(lambda ctx, io, rec: module.call_all()) == []


def test_the_functions_and_classes_of_other_modules_of_the_users_are_seen(written):
    written(
        "own_calls_far",
        """
        import time, functools

        class Base:
            def told(self):
                return self.ask()

        class Clock(Base):
            zero = 0

            @property
            def now(self):
                return time.time()

            @classmethod
            def made(cls):
                return time.monotonic()

            @staticmethod
            def still():
                return time.perf_counter()

            @functools.cached_property
            def kept(self):
                return time.time_ns()

            def ask(self):
                return time.monotonic_ns()

            def __enter__(self):
                return time.process_time()

            def __exit__(self, *exc):
                return None

        @functools.lru_cache
        def remembered():
            return time.thread_time()

        async def asked():
            return time.perf_counter_ns()
        """,
    )
    module = written(
        "own_calls_near",
        """
        import own_calls_far as far

        CLOCK = far.Clock()

        async def handle(ctx, io, rec):
            CLOCK.now, far.Clock.made(), far.Clock.still(), CLOCK.kept, CLOCK.told(), far.remembered()
            with CLOCK:
                await far.asked()
        """,
    )
    assert {what.event for what in found_in(module.handle)} == {
        *("time.time", "time.monotonic", "time.perf_counter", "time.time_ns", "time.monotonic_ns"),
        *("time.process_time", "time.thread_time", "time.perf_counter_ns"),
    }


def test_a_module_that_the_handler_imports_is_seen_at_its_first_call(written, tmp_path):
    (tmp_path / "own_calls_late.py").write_text(
        "import time\nloaded = time.time()\ndef ask():\n    return time.time()\n"
    )

    async def handle(ctx, io, rec):
        import own_calls_late

        own_calls_late.ask()

    try:
        assert [what.place for what in found_in(handle)] == ["own_calls_late.py:4"]
    finally:
        del sys.modules["own_calls_late"]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="sys.monitoring is new in Python 3.12")
def test_a_part_of_a_library_that_the_handler_imports_does_not_slow_it_down(written, tmp_path):
    (tmp_path / "own_calls_package").mkdir()
    (tmp_path / "own_calls_package" / "__init__.py").write_text("")
    (tmp_path / "own_calls_package" / "part.py").write_text("")
    module = written(
        "own_calls_lazy",
        """
        import sys
        profilers = []

        async def handle(ctx, io, rec):
            import email.mime.audio
            profilers.append(sys.getprofile())
            import own_calls_package.part
            profilers.append(sys.getprofile())
        """,
    )
    for name in ("email.mime.audio", "own_calls_package", "own_calls_package.part"):
        sys.modules.pop(name, None)
    try:
        found_in(module.handle)
    finally:
        sys.modules.pop("own_calls_package", None)
        sys.modules.pop("own_calls_package.part", None)
    library, own = module.profilers
    assert library is None
    assert own is not None


def test_a_module_that_the_handler_imports_is_still_seen_after_others_have_had_their_turn(written):
    module = written(
        "own_calls_waits",
        """
        from asyncio import sleep

        async def handle(ctx, io, rec):
            import own_calls_after

            await sleep(0.01)
            own_calls_after.ask()
        """,
    )
    busy = written(
        "own_calls_busy",
        """
        import asyncio, time

        async def handle(ctx, io, rec):
            for _ in range(50):
                await asyncio.sleep(0.001)
        """,
    )
    later = Path(module.__file__).with_name("own_calls_after.py")
    later.write_text("import time\ndef ask():\n    return time.time()\n")
    told = Told()

    async def both():
        runs = []
        for number, handler in enumerate([module.handle, busy.handle]):
            plan = Plan(f"op{number}")
            plan.state("step.state")(handler)
            runs.append(aio.run(plan, store=store, reporter=told))
        await asyncio.gather(*runs)

    try:
        with open_store("memory://") as store:
            asyncio.run(both())
        assert [what.place for what in told.told] == ["own_calls_after.py:3"]
        assert sys.getprofile() is None
    finally:
        sys.modules.pop("own_calls_after", None)


def test_what_holds_a_function_is_seen_through(written):
    module = written(
        "own_calls_held",
        """
        import dataclasses, functools, time, uuid
        import attrs

        @attrs.define
        class Order:
            id: object = attrs.field(factory=uuid.uuid4)

        @dataclasses.dataclass
        class Parcel:
            id: object = dataclasses.field(default_factory=uuid.uuid4)

        class Clock:
            def __init__(self, ask=time.time):
                self.ask = ask

        def closing_over(ask):
            return lambda: ask()

        closed = closing_over(time.monotonic)

        def by_default(ask=time.perf_counter):
            return ask()

        def handle(ctx, io, rec):
            Order()
            Parcel()
            Clock().ask()
            closed()
            by_default()
            sorted([1, 2], key=lambda _: time.time())
        """,
    )
    found = found_in(module.handle)
    assert [what.event for what in found] == [
        *("uuid.uuid4", "uuid.uuid4", "time.time", "time.monotonic", "time.perf_counter", "time.time")
    ]
    first = module.handle.__code__.co_firstlineno
    assert [what.line for what in found[:3]] == [first + 1, first + 2, first + 3]


FACTORIES = {
    "uuid.uuid4": "uuid.uuid4",
    "time.time": "time.time",
    "datetime.datetime.now": "datetime.datetime.now",
    "secrets.token_hex": "secrets.token_hex",
    "time.monotonic": "lambda: time.monotonic()",
}
CLASSES = {
    "attrs": "@attrs.define\nclass Order:\n    id: object = attrs.field(factory={})",
    "attrs, frozen": "@attrs.frozen\nclass Order:\n    id: object = attrs.Factory({})",
    "dataclass": "@dataclasses.dataclass\nclass Order:\n    id: object = dataclasses.field(default_factory={})",
    "dataclass with slots": (
        "@dataclasses.dataclass(slots=True, kw_only=True)\n"
        "class Order:\n    id: object = dataclasses.field(default_factory={})"
    ),
}


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
@pytest.mark.parametrize("cls", CLASSES.values(), ids=CLASSES)
@pytest.mark.parametrize("event", FACTORIES)
def test_a_default_factory_is_seen_that_nothing_else_names(written, event, cls, plain):
    # the module names the function nowhere but in the class: not in any code of its own
    module = written(
        f"own_calls_factory_{event.replace('.', '_')}_{plain}",
        "import dataclasses, datetime, functools, os, secrets, time, uuid\nimport attrs\n\n"
        f"{cls.format(FACTORIES[event])}\n\n"
        f"{'' if plain else 'async '}def handle(ctx, io, rec):\n    Order()\n",
    )
    found = found_in(module.handle)
    assert [what.event for what in found] == [event]
    if "lambda" not in FACTORIES[event]:  # which has a line of its own
        assert found[0].line == module.handle.__code__.co_firstlineno + 1


def test_a_handler_that_is_an_object_or_a_method_is_seen(written):
    module = written(
        "own_calls_object",
        """
        import functools, time

        class Handler:
            async def __call__(self, ctx, io, rec):
                time.time()

            def method(self, ctx, io, rec):
                time.monotonic()

        def partly(more, ctx, io, rec):
            time.perf_counter()

        partial = functools.partial(partly, 1)
        """,
    )
    handlers = [module.Handler(), module.Handler().method, module.partial]
    assert [[what.event for what in found_in(handler)] for handler in handlers] == [
        ["time.time"],
        ["time.monotonic"],
        ["time.perf_counter"],
    ]


def test_calls_before_between_and_after_those_of_io_are_seen(written):
    module = written(
        "own_calls_between",
        """
        import asyncio, time

        async def handle(ctx, io, rec):
            time.time()
            await io.now()
            time.monotonic()
            first, second = asyncio.create_task(ask(io)), asyncio.create_task(ask(io))
            await first
            time.perf_counter()
            await second
            time.time_ns()

        async def ask(io):
            await io.sleep(0.001)
            time.process_time()

        def plain(ctx, io, rec):
            time.time()
            io.now()
            time.monotonic()
        """,
    )
    events = [what.event for what in found_in(module.handle)]
    assert set(events) == {
        *("time.time", "time.monotonic", "time.perf_counter", "time.time_ns", "time.process_time")
    }
    assert [what.event for what in found_in(module.plain)] == ["time.time", "time.monotonic"]


def test_code_outside_of_handlers_is_not_looked_at(written):
    module = written(
        "own_calls_outside",
        """
        import time

        def ask():
            return time.time()

        async def handle(ctx, io, rec):
            ctx["n"] = 1
        """,
    )
    plan, told = Plan("op"), Told()
    plan.state("step.state")(module.handle)
    told.entry = lambda entry: module.ask()
    with open_store("memory://") as store:
        module.ask()
        assert run(plan, store=store, reporter=told).status == "completed"
        module.ask()
    assert told.told == []


def test_a_profiler_that_is_there_is_left_alone(written):
    module = written(
        "own_calls_profiled",
        """
        import sys, time

        def profiler(frame, event, arg):
            pass

        async def handle(ctx, io, rec):
            assert sys.getprofile() is profiler
            time.time()
            await io.now()
            assert sys.getprofile() is profiler
        """,
    )
    sys.setprofile(module.profiler)
    try:
        found_in(module.handle)
        assert sys.getprofile() is module.profiler
    finally:
        sys.setprofile(None)


def test_nothing_is_left_behind(written):
    module = written("own_calls_left", "import time\nasync def handle(ctx, io, rec):\n    time.time()\n")
    assert len(found_in(module.handle)) == 1
    assert sys.getprofile() is None


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring is new in Python 3.12")
def test_tools_that_monitor_already_are_left_alone():
    script = (
        "import sys, time\n"
        "for number in range(5):\n"
        "    sys.monitoring.use_tool_id(number, 'theirs')\n"
        "from machine import Plan, open_store, run\n"
        "plan = Plan('op')\n"
        "@plan.state('a.b')\n"
        "async def state(ctx, io, rec):\n"
        "    time.time()\n"
        "with open_store('memory://') as store:\n"
        "    assert run(plan, store=store).status == 'completed'\n"
        "assert {sys.monitoring.get_tool(number) for number in range(5)} == {'theirs'}\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


CLOCK_OF_OTHERS = """
    import asyncio, functools, operator, sys, time
    from types import SimpleNamespace

    profilers = []

    def since(begun=0):
        return time.time() - begun

    def main():
        print(since())
    """
REACHED = {
    "by its name": ("", "since()"),
    "through another function": ("def through(): return since()", "through()"),
    "by a name made when it runs": ("", "getattr(sys.modules[__name__], 'sin' + 'ce')()"),
    "by a name in a text": ("", "eval('since()')"),
    "among the names of the module": ("", "globals()['since']()"),
    "by a getter": ("", "operator.attrgetter('since')(sys.modules[__name__])()"),
    "in a container": ("CALLED = [since]", "CALLED[0]()"),
    "under another name": ("other = since", "other()"),
    "through a partial": ("early = functools.partial(since, 1)", "early()"),
    "as a method": ("class Clock:\n    def read(self): return since()", "Clock().read()"),
    "as what a library calls": (
        "KEY = SimpleNamespace(since=since)",
        "sorted([1], key=KEY.__dict__['since'])",
    ),
    "as a default": ("def through(ask=since): return ask()", "through()"),
    "decorated": ("decorated = functools.lru_cache(since)", "decorated()"),
}


@pytest.mark.parametrize("way", REACHED)
def test_a_helper_with_a_clock_is_seen_however_the_handler_reaches_it(written, way):
    above, call = REACHED[way]
    name = f"own_calls_reached_{[*REACHED].index(way)}"
    handler = f"async def handle(ctx, io, rec):\n    {call}\n"
    module = written(name, f"{textwrap.dedent(CLOCK_OF_OTHERS)}\n{above}\n\n{handler}")
    assert [what.event for what in found_in(module.handle)] == ["time.time"]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="sys.monitoring is new in Python 3.12")
def test_a_clock_that_no_handler_reaches_costs_none_of_them_anything(written):
    handler = "async def handle(ctx, io, rec):\n    profilers.append(sys.getprofile())\n"
    module = written("own_calls_unreached", f"{textwrap.dedent(CLOCK_OF_OTHERS)}\n{handler}")
    assert found_in(module.handle) == []
    assert module.profilers == [None]


def test_a_helper_that_is_handed_out_between_two_runs_is_seen_in_the_second(written):
    handler = "CALLED = []\nasync def handle(ctx, io, rec):\n    [call() for call in CALLED]\n"
    module = written("own_calls_later", f"{textwrap.dedent(CLOCK_OF_OTHERS)}\n{handler}")
    assert found_in(module.handle) == []
    module.CALLED.append(module.since)
    assert [what.event for what in found_in(module.handle)] == ["time.time"]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="sys.monitoring is new in Python 3.12")
def test_a_write_to_the_context_is_not_profiled_and_what_follows_it_is(written, monkeypatch):
    module = written(
        "own_calls_writes",
        """
        import time

        async def handle(ctx, io, rec):
            ctx["a"] = 1
            time.time()
        """,
    )
    profilers, write = [], Context._write

    def noted(*args):
        profilers.append(sys.getprofile())
        write(*args)

    monkeypatch.setattr(Context, "_write", noted)
    assert [what.event for what in found_in(module.handle)] == ["time.time"]
    assert profilers == [None]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="nothing is profiled from Python 3.12 on")
@pytest.mark.parametrize("installed", [False, True], ids=["own", "installed"])
def test_the_first_import_of_a_library_is_no_reason_to_profile(tmp_path, monkeypatch, installed):
    place = tmp_path / "lib" / "site-packages" if installed else tmp_path
    place.mkdir(parents=True, exist_ok=True)
    name = f"first_imported_{'library' if installed else 'module'}"
    (place / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(place)
    plan, found = Plan("op"), []

    @plan.state("a.b")
    async def handle(ctx, io, rec):
        __import__(name)
        found.append(sys.getprofile() is None)

    with open_store("memory://") as store:
        assert run(plan, store=store).status == "completed"
    assert found == [installed]
    del sys.modules[name]
