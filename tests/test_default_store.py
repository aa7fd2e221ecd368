"""The store of a call that names none: that of the command line."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path

import pytest

import machine
from machine import MachineError, Plan, aio
from machine.default_store import DEFAULT_STORE

FUNCTIONS = sorted(name for name in machine.__all__ if inspect.isfunction(getattr(machine, name)))


def counting() -> Plan:
    plan = Plan("op")

    @plan.state
    async def count(ctx, io):
        ctx["at"] = await io.now()

    return plan


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MACHINE_STORE", raising=False)
    return tmp_path


def test_a_run_without_a_store_is_found_without_one(folder):
    result = machine.run(counting())

    assert (folder / ".machine" / "runs.db").is_file()
    assert machine.replay(result.run_id, plan=counting()).identical
    assert machine.verify(result.run_id).problems == ()
    assert machine.resume(result.run_id, plan=counting()).digest == result.digest
    assert machine.blame(result.run_id, "/at").steps
    machine.export_run(result.run_id, folder / "one.run")
    assert machine.import_bundle(folder / "one.run") == result.run_id


def test_coroutines_have_it_too(folder):
    async def both():
        result = await aio.run(counting())
        return (await aio.replay(result.run_id, plan=counting())).identical

    assert asyncio.run(both())


def test_the_environment_names_another(folder, monkeypatch):
    monkeypatch.setenv("MACHINE_STORE", "sqlite:///other.db")
    machine.run(counting())

    assert Path("other.db").is_file()
    assert not Path(".machine").exists()


@pytest.mark.parametrize("name", ["resume", "replay"])
def test_what_reads_makes_no_store(folder, name):
    with pytest.raises(MachineError) as caught:
        getattr(machine, name)(str(machine.new_run_id()), plan=counting())

    assert caught.value.code == "store_not_found"
    assert list(folder.iterdir()) == []


def test_every_function_of_a_store_has_it():
    defaults = {
        name: inspect.signature(getattr(machine, name)).parameters["store"].default
        for name in FUNCTIONS
        if "store" in inspect.signature(getattr(machine, name)).parameters
    }

    assert len(defaults) > 10
    assert set(defaults.values()) == {DEFAULT_STORE}, defaults
