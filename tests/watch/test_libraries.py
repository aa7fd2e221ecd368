"""Libraries that do their IO in C: each entry point of the table is refused, or reported, and never silent."""

from __future__ import annotations

import asyncio
import importlib
import importlib.machinery
import inspect
import os
import subprocess
import sys
import tempfile
import types
import warnings
from pathlib import Path

import pytest
from kills import loaded

from machine import Plan, Reporter, RunConfig, open_store, replay, run
from machine.watch import entry_point_hooks
from machine.watch.entry_point_hooks import CLASSES, hook_loaded
from machine.watch.entry_points import ENTRY_POINTS
from machine.watch.safe_inspection import module_dict

CALLS = loaded(Path(__file__).parent / "library_calls.py")
LIBRARIES = CALLS.LIBRARIES
NAMES = {point.name: point.library for point in ENTRY_POINTS}
OF_CLASSES = {"pyarrow.OSFile", "lxml.etree.xmlfile", "lmdb.open", "safetensors.safe_open", "apsw.Connection"}
"""What is a class, so that its calls are seen from Python 3.12 on."""

_made: dict[str, dict] = {}


class Told(Reporter):
    def __init__(self):
        self.all = []

    def undeclared(self, state_id, what):
        self.all.append(what)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    before = Path.cwd()
    place = tmp_path_factory.mktemp("libraries")
    os.chdir(place)
    for name in ("there", "readable.csv"):
        Path(name).write_text("a\n1\n")
    tempfile.gettempdir()  # looks where it can write, once
    yield place
    os.chdir(before)
    _made.clear()
    while CALLS.CLOSING:
        CALLS.CLOSING.pop(0)()


def calls_of(library):
    """Return the calls of a library by entry point; skip the test where it is not installed."""
    module, make = LIBRARIES[library]
    imported = pytest.importorskip(module, exc_type=ImportError)
    if library not in _made:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _made[library] = make(imported)
    return _made[library]


def drive(act, mode="error", told=None, *, store=None):
    plan = Plan("op", version="1")
    if inspect.iscoroutinefunction(act):

        async def handle(ctx, io, rec):
            await act()
    else:

        async def handle(ctx, io, rec):
            act()

    plan.state("step.state", side_effects="apply_side_effect", idempotency="k")(handle)
    with open_store("memory://") as own:
        return plan, run(plan, store=store or own, config=RunConfig(undeclared_io=mode), reporter=told)


def listing(place):
    return sorted((str(path), path.stat().st_size) for path in place.rglob("*"))


def test_every_entry_point_has_a_call():
    assert set(NAMES.values()) == set(LIBRARIES)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", LIBRARIES)
def test_the_table_has_what_the_installed_library_has(home, library):
    calls = calls_of(library)
    assert set(calls) == {name for name, of in NAMES.items() if of == library}
    hook_loaded()
    for point in ENTRY_POINTS:
        if point.library == library:
            thing = importlib.import_module(point.module)
            for part in point.path.split("."):
                thing = getattr(thing, part)
            hooked = getattr(thing, "__machine_entry_point__", None) == point.name
            assert hooked or (thing in CLASSES and point.name in OF_CLASSES), point


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_each_entry_point_is_refused_before_it_does_anything(home, name):
    act = calls_of(NAMES[name])[name]
    if name in OF_CLASSES and sys.version_info < (3, 12):
        pytest.skip("a class is called, and nothing shows it")
    before = listing(home)
    error = drive(act)[1].error
    assert error is not None, "it was done"
    assert (error.code, error.details["event"]) == ("undeclared_io", name), error.message
    assert error.details["place"].startswith("library_calls.py:")
    assert "io.step(function, ...)" in error.details["remedy"]
    assert listing(home) == before


def csv_in_pandas(pandas, at):
    return pandas.read_csv(at).a.tolist()


READERS = {
    "pandas": csv_in_pandas,
    "polars": lambda polars, at: polars.read_csv(at)["a"].to_list(),
    "pyarrow.csv": lambda csv, at: csv.read_csv(at)["a"].to_pylist(),
    "duckdb": lambda duckdb, at: [row[0] for row in duckdb.sql(f"select a from '{at}'").fetchall()],
    "numpy": lambda numpy, at: [int(numpy.loadtxt(at, skiprows=1))],
}


def load(name, path):
    return READERS[name](importlib.import_module(name), path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_a_reader_is_done_with_warn_and_in_a_step(home, name):
    pytest.importorskip(name)
    plan, told = Plan("op"), Told()

    @plan.state("step.warned")
    async def warned(ctx, io, rec):
        ctx["read"] = load(name, "readable.csv")

    @plan.state("step.stepped", after=["step.warned"])
    async def stepped(ctx, io, rec):
        ctx["stepped"] = await io.step(load, name, "readable.csv")

    done = {"read": [1], "stepped": [1]}
    with open_store("memory://") as store:
        result = run(plan, store=store, config=RunConfig(undeclared_io="warn"), reporter=told)
        assert (result.error, result.context) == (None, done)
        assert len(told.all) == 1, told.all
        assert told.all[0].place.startswith("test_libraries.py:")
        assert "'readable.csv'" in told.all[0].does or "reads files" in told.all[0].does
        assert replay(result.run_id, plan=plan, store=store).identical


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["polars.DataFrame.write_csv", "pyarrow.parquet.write_table", "lmdb.Environment.begin"]
)
def test_a_replay_refuses_what_writes_whatever_the_run_allowed(home, name):
    act, told = calls_of(NAMES[name])[name], Told()
    with open_store("memory://") as store:
        plan, result = drive(act, "warn", told, store=store)
        assert result.error is None
        assert [what.event for what in told.all] == [name]
        for path in home.glob("new*"):
            path.unlink()
        before = listing(home)
        again = replay(result.run_id, plan=plan, store=store)
        assert again.divergence.kind == "undeclared_io"
        assert again.divergence.now["event"] == name
        assert listing(home) == before


@pytest.mark.filterwarnings("ignore")
def test_what_stays_in_the_process_or_in_the_attempts_own_folder_is_let_through(home):
    pandas, told = pytest.importorskip("pandas"), Told()
    import io as files

    def act():
        frame = pandas.read_csv(files.StringIO("a\n1\n"))
        assert frame.to_csv() == ",a\n0,1\n"
        assert isinstance(frame.to_parquet(), bytes)
        with tempfile.TemporaryDirectory() as folder:
            frame.to_parquet(f"{folder}/new.parquet")
            assert pandas.read_parquet(f"{folder}/new.parquet").a.tolist() == [1]
            assert pandas.read_csv(os.devnull, header=None, names=["a"]).empty

    for mode in ("error", "warn"):
        assert drive(act, mode, told)[1].error is None
    assert told.all == []


@pytest.mark.filterwarnings("ignore")
def test_a_database_in_memory_is_let_through_and_sees_the_variables_of_its_caller(home):
    duckdb, told = pytest.importorskip("duckdb"), Told()
    pandas = pytest.importorskip("pandas")
    memory = duckdb.connect()
    memory.execute("create table mine as select 2 as a, 'x' as load")

    def act():
        frame = pandas.DataFrame({"a": [1]})
        assert memory.execute("select a from frame").fetchall() == [(1,)]
        assert memory.sql("select a from frame").fetchall() == [(1,)]
        assert duckdb.sql("select a from frame").fetchall() == [(1,)]
        assert memory.execute("select a from mine where load = ?", ["x"]).fetchall() == [(2,)]
        assert duckdb.connect(":memory:").execute("select 1").fetchall() == [(1,)]
        del frame

    for mode in ("error", "warn"):
        assert drive(act, mode, told)[1].error is None
    assert told.all == []
    act()  # and outside of a handler


@pytest.mark.filterwarnings("ignore")
def test_a_service_by_its_address_is_an_effect(home):
    polars, told = pytest.importorskip("polars"), Told()
    drive(lambda: polars.scan_parquet("s3://nowhere/there"), "warn", told)
    assert [(what.event, what.effect) for what in told.all[:1]] == [("polars.scan_parquet", True)]


@pytest.mark.filterwarnings("ignore")
def test_a_name_of_ones_own_for_a_function_is_found_too(home, monkeypatch):
    numpy = pytest.importorskip("numpy")
    script = types.ModuleType("own_script")
    monkeypatch.setitem(sys.modules, "own_script", script)
    script.load = inspect.unwrap(numpy.load)
    monkeypatch.setattr(numpy, "load", script.load)  # as before the first run
    monkeypatch.delitem(entry_point_hooks._hooked, "numpy", raising=False)
    assert drive(lambda: script.load("there.npy"))[1].error.details["event"] == "numpy.load"
    assert script.load is numpy.load


@pytest.mark.filterwarnings("ignore")
def test_a_reader_in_a_thread_is_found(home):
    numpy = pytest.importorskip("numpy")

    async def act():
        await asyncio.to_thread(numpy.loadtxt, "readable.csv", skiprows=1)

    assert drive(act)[1].error.details["event"] == "numpy.loadtxt"


def test_a_module_that_is_still_loading_is_left_alone_until_it_has_loaded(home, monkeypatch, tmp_path):
    name, base = "zmq.sugar.socket", types.ModuleType

    class Untouchable(base):
        def __getattribute__(self, name):
            raise AssertionError(name)

    class Socket:
        def connect(self, address):
            return address

    module = Untouchable(name)
    inside = module_dict(module)
    inside["Socket"], inside["__spec__"] = Socket, importlib.machinery.ModuleSpec(name, None)
    inside["__spec__"]._initializing = True
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(entry_point_hooks._hooked, name, None)
    plain = Socket.connect
    assert drive(lambda: None)[1].error is None
    assert Socket.connect is plain
    inside["__spec__"]._initializing = False
    assert drive(lambda: Socket().connect("x"))[1].error.details["event"] == "zmq.Socket.connect"


def test_a_client_that_records_a_function_gets_no_hook_and_leaves_one(home, monkeypatch):
    lmdb = types.ModuleType("lmdb")
    plain, recording = (
        types.FunctionType(compile("0", "x", "eval"), {"__name__": "lmdb"}),
        "machine.clients.lmdb",
    )
    client = types.FunctionType(compile("1", "x", "eval"), {"__name__": recording})
    monkeypatch.setitem(sys.modules, "lmdb", lmdb)
    monkeypatch.setattr(entry_point_hooks, "_hooked", dict(entry_point_hooks._hooked))
    monkeypatch.setattr(entry_point_hooks, "_recorded", set())
    lmdb.open = client
    hook_loaded()
    assert lmdb.open is client
    lmdb.open = plain
    hook_loaded()
    assert lmdb.open.__machine_entry_point__ == "lmdb.open"


def test_a_library_may_read_files_of_its_own(home, monkeypatch, tmp_path):
    pytest.importorskip("pandas")
    place = tmp_path / "lib" / "site-packages"
    place.mkdir(parents=True)
    (place / "reading_library.py").write_text(
        "import pandas\ndef read(path):\n    return pandas.read_csv(path)\n"
    )
    monkeypatch.syspath_prepend(place)
    library = importlib.import_module("reading_library")
    try:
        assert drive(lambda: library.read("there") is None)[1].error is None
    finally:
        del sys.modules["reading_library"]


@pytest.mark.filterwarnings("ignore")
def test_a_hook_changes_nothing_else(home):
    pandas = pytest.importorskip("pandas")
    drive(lambda: None)
    assert pandas.read_csv is pandas.io.parsers.read_csv is pandas.io.api.read_csv
    assert "filepath_or_buffer" in inspect.signature(pandas.read_csv).parameters
    assert pandas.read_csv.__module__.startswith("pandas")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frame = pandas.read_csv(
            "there", sep="(a)"
        )  # warns that it takes another parser, to the line that calls it
    assert not frame.empty
    assert [Path(warning.filename).name for warning in caught] == [Path(__file__).name]
    with pytest.raises(FileNotFoundError):
        pandas.read_csv("nowhere")
    psycopg = pytest.importorskip("psycopg")
    assert inspect.iscoroutinefunction(psycopg.AsyncConnection.wait)


FIRST = """
import sys
from machine import Plan, RunConfig, open_store, run
name, call = sys.argv[1:]
plan = Plan("op")

@plan.state("step.state")
async def state(ctx, io, rec):
    library = __import__(name, fromlist=["x"])
    exec(call)

assert name not in sys.modules
with open_store("memory://") as store:
    result = run(plan, store=store, config=RunConfig(undeclared_io="error"))
print(result.error.details["event"])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "call", "event"),
    [
        ("pandas", "library.read_csv('x')", "pandas.read_csv"),
        ("lxml.etree", "library.parse('x')", "lxml.etree.parse"),
        ("psycopg", "library.connect('host=127.0.0.1 port=9')", "psycopg.connect"),
        (
            "grpc",
            "library.insecure_channel('127.0.0.1:9').unary_unary('/a/b')(b'')",
            "grpc.UnaryUnaryMultiCallable",
        ),
    ],
)
def test_a_library_that_a_handler_is_the_first_to_import_has_its_hooks(name, call, event, tmp_path):
    pytest.importorskip(name)
    found = subprocess.run(
        [sys.executable, "-c", FIRST, name, call],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
    )
    assert found.stdout.strip() == event, found.stderr
