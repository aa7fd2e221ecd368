"""Files, sockets and databases that were open before a handler ran, and what it opens itself."""

# The plain calls, not pathlib, are what is tested; the files are closed by their fixture.
# ruff: noqa: PTH102, PTH116, PTH123, SIM115, PLW0108

from __future__ import annotations

import io as io_module
import json
import os
import socket
import sqlite3
import sys
import tempfile
import types

import pytest

from machine import Plan, Reporter, RunConfig, open_store, replay, run
from machine.watch import watch as watch_module
from machine.watch.open_handles import open_handles


class Told(Reporter):
    def __init__(self):
        self.all = []

    def undeclared(self, state_id, what):
        self.all.append(what)


def drive(act, mode="error", told=None, *, store=None):
    plan = Plan("op", version="1")

    async def handle(ctx, io, rec):
        act()

    plan.state("step.state", side_effects="apply_side_effect", idempotency="k")(handle)
    with open_store("memory://") as own:
        return plan, run(plan, store=store or own, config=RunConfig(undeclared_io=mode), reporter=told)


@pytest.fixture
def before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open("there", "w") as made:
        made.write("1\n2\n")
    tempfile.gettempdir()
    ends = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(ends.getsockname())
    server = ends.accept()[0]
    server.sendall(b"xxxx")
    database = sqlite3.connect("there.db", check_same_thread=False)
    database.execute("create table t (a)")
    found = {
        "text": open("there", "r+"),
        "buffered": open("there", "r+b"),
        "raw": open("there", "r+b", buffering=0),
        "socket": client,
        "database": database,
        "cursor": database.cursor(),
    }
    yield types.SimpleNamespace(**found)
    database.rollback()
    for each in (found.pop("cursor"), *found.values(), server, ends):
        each.close()


USES = {
    "TextIOWrapper.write": lambda text: text.write("x"),
    "TextIOWrapper.read": lambda text: text.read(),
    "TextIOWrapper.readline": lambda text: text.readline(),
    "TextIOWrapper.truncate": lambda text: text.truncate(0),
    "IOBase.writelines": lambda text: text.writelines(["x"]),
    "IOBase.readlines": lambda text: text.readlines(),
    "BufferedRandom.write": lambda buffered: buffered.write(b"x"),
    "BufferedRandom.read": lambda buffered: buffered.read(),
    "FileIO.write": lambda raw: raw.write(b"x"),
    "FileIO.readall": lambda raw: raw.readall(),
    "socket.recv": lambda socket: socket.recv(1),
    "socket.recv_into": lambda socket: socket.recv_into(bytearray(1)),
    "socket.send": lambda socket: socket.send(b"x"),
    "sqlite3.Connection.execute": lambda database: database.execute("insert into t values (1)"),
    "sqlite3.Connection.executemany": lambda database: database.executemany(
        "insert into t values (?)", [(1,)]
    ),
    "sqlite3.Connection.executescript": lambda database: database.executescript("delete from t"),
    "sqlite3.Connection.commit": lambda database: database.commit(),
    "sqlite3.Cursor.execute": lambda cursor: cursor.execute("insert into t values (1)"),
}


@pytest.mark.parametrize("event", USES)
def test_what_was_open_before_is_refused(before, event):
    use = USES[event]
    of = getattr(before, use.__code__.co_varnames[0])
    size = os.stat("there").st_size
    error = drive(lambda: use(of))[1].error
    assert error is not None, "it was done"
    assert (error.code, error.details["event"]) == ("undeclared_io", event)
    assert "open before" in error.message
    before.text.flush()
    assert os.stat("there").st_size == size
    assert before.database.execute("select count(*) from t").fetchone() == (0,)


def test_it_is_told_where_it_is_and_what_to_do_with_warn_and_refused_by_a_replay(before):
    file, told = before.text, Told()

    def act():
        file.write("x")

    line = act.__code__.co_firstlineno + 1
    with open_store("memory://") as store:
        plan, result = drive(act, "warn", told, store=store)
        assert result.error is None
        what = f"writes to the file 'there' (open before) without io at test_open_before.py:{line}"
        assert [str(each) for each in told.all] == [f'{what}; use "await io.step(function, ...)"']
        again = replay(result.run_id, plan=plan, store=store)
    assert again.divergence.now["event"] == "TextIOWrapper.write"


def test_a_method_that_was_taken_before_is_found_too(before):
    file = before.text

    def act():
        write = file.write
        write("x")

    assert drive(act)[1].error.details["event"] == "TextIOWrapper.write"


def opens_them_itself():
    with open("new", "w") as file:
        file.write("x")
    database = sqlite3.connect("new.db")
    database.execute("create table t (a)")
    database.close()


def calls(address):
    def act():
        with socket.create_connection(address) as one:
            one.sendall(b"x")

    return act


def test_what_the_attempt_opened_itself_is_told_once(before):
    told = Told()
    assert drive(opens_them_itself, "warn", told)[1].error is None
    assert [what.event for what in told.all] == ["open", "sqlite3.connect"]
    told.all.clear()
    assert drive(calls(before.socket.getpeername()), "warn", told)[1].error is None
    assert {what.event for what in told.all} <= {"socket.getaddrinfo", "socket.connect"}


MEMORY = io_module.StringIO()
SCRATCH = sqlite3.connect(":memory:", check_same_thread=False)


def stays_in_the_process():
    MEMORY.write("x")
    io_module.BytesIO(b"x").read()
    SCRATCH.execute("select 1")
    sys.stdout.write("")
    print("said", file=sys.stderr)
    with tempfile.TemporaryFile("w+") as file, tempfile.NamedTemporaryFile("w+") as named:
        for each in (file, named):
            each.write("1")
            each.seek(0)
            assert each.read() == "1"
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/x", "w") as file:
            json.dump([1], file)
            file.write(" ")
        database = sqlite3.connect(f"{folder}/x.db")
        database.execute("create table t (a)")
        database.close()
    with open(os.devnull, "w") as nowhere:
        nowhere.write("x")
    reading, writing = socket.socketpair()
    with reading, writing:
        writing.send(b"x")


def test_what_stays_in_the_process_is_let_through(before):
    told = Told()
    for mode in ("error", "warn"):
        assert drive(stays_in_the_process, mode, told)[1].error is None
    assert told.all == []


def test_a_stream_of_the_process_that_goes_to_a_file_is_let_through(before, monkeypatch):
    file = before.text
    monkeypatch.setattr(sys, "stdout", file)
    assert drive(lambda: file.write("x"))[1].error is None


def test_a_database_that_has_attached_a_file_counts(before):
    scratch = sqlite3.connect(":memory:", check_same_thread=False)
    scratch.execute("attach 'there.db' as file")
    assert (
        drive(lambda: scratch.execute("select 1"))[1].error.details["event"] == "sqlite3.Connection.execute"
    )
    scratch.close()


def test_looking_asks_nothing_of_the_users_own(before):
    def never(*_):
        raise AssertionError

    database = before.database
    database.row_factory = never
    assert drive(lambda: database.commit())[1].error.details["event"] == "sqlite3.Connection.commit"
    database.row_factory = None


def test_every_method_of_the_table_is_one_of_its_class():
    for method, handle in open_handles().items():
        assert method.__name__ == handle.name.rpartition(".")[2]


def test_a_refusal_replays_in_the_words_of_the_version_that_recorded_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_store("memory://") as store:
        with monkeypatch.context() as older:
            older.setattr(watch_module, "STEP", "a transport of the run's own")
            plan, result = drive(lambda: os.mkdir("new"), store=store)
        assert "a transport of the run's own" in result.error.message
        assert replay(result.run_id, plan=plan, store=store).identical
        plan, result = drive(lambda: os.mkdir("new"), store=store)
        assert "a transport of the run's own" not in result.error.message
        assert replay(result.run_id, plan=plan, store=store).identical
