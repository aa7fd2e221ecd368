"""How many files a fact, and a value of the context, go through on their way to the store.

A file counts when one of its functions is given the value, or gives it back, between the handler's call and the
`append` of the store: alone, in bytes or text, or in lists and dictionaries. What runs without having the value in
its hands (who checks leases, numbers events, decides) does not count, and neither does the standard library.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import machine
from machine import Plan, RunConfig
from machine.stores import MemoryStore

HOUSE = str(Path(machine.__file__).parent) + os.sep
MARK = "a value that is easy to find again"


def holds(value):
    match value:
        case str():
            return MARK in value
        case bytes() | bytearray():
            return MARK.encode() in value
        case dict():
            return any(holds(each) for pair in value.items() for each in pair)
        case list() | tuple() | set() | frozenset():
            return any(map(holds, value))
    return False


class Trip:
    """The files that a value goes through from `begin` to the next append, in order."""

    def __init__(self):
        self.files = {}
        self.going = False

    def begin(self):
        self.going = True

    def see(self, frame, event, returned):
        code = frame.f_code
        if not self.going or event not in {"call", "return"} or not code.co_filename.startswith(HOUSE):
            return
        self.going = False  # what is called in here is no part of it
        name = Path(code.co_filename[len(HOUSE) :]).as_posix()
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        given = [frame.f_locals.get(each) for each in names] if event == "call" else [returned]
        if holds(given):
            self.files[name] = None
        self.going = not (code.co_name == "append" and name.startswith("stores/"))

    @contextmanager
    def followed(self):
        before = sys.getprofile()
        threading.setprofile(self.see)
        sys.setprofile(self.see)
        try:
            yield
        finally:
            sys.setprofile(before)
            threading.setprofile(None)


def trip_of(handle):
    """Return the files that the value goes through in a run of one state."""
    plan, trip = Plan("op"), Trip()

    @plan.state("step.state")
    async def state(ctx, io):
        await handle(ctx, io, trip.begin)

    with trip.followed():
        result = machine.run(
            plan, store=MemoryStore(), config=RunConfig(undeclared_io="allow", durability="facts")
        )
    assert result.status == "completed"
    files = list(trip.files)
    print(f"{len(files)} files:", *files, sep="\n  ")
    assert files[-1] == "stores/memory.py"
    return files


def outside_secrets(files):
    """Return all but the files that look for secrets in whatever is stored: one for each kind of text."""
    return [each for each in files if not each.startswith("secrets/")]


def test_a_fact_goes_through_few_files(monkeypatch):
    monkeypatch.setenv("TRIP", MARK)

    async def handle(ctx, io, begin):
        begin()
        await io.env("TRIP")

    files = trip_of(handle)
    assert len(outside_secrets(files)) <= 7
    assert len(files) <= 9


def test_a_value_of_the_context_goes_through_few_files():
    async def handle(ctx, io, begin):
        begin()
        ctx["note"] = MARK

    files = trip_of(handle)
    assert len(outside_secrets(files)) <= 5
    assert len(files) <= 6
