"""Environment variables: a value, its absence, and what JSON cannot hold."""

from __future__ import annotations

import os

import pytest

from machine.errors import Code, OtherIoError
from machine.io.env import EnvTransport, env_request
from machine.io.transport import Transport

pytestmark = pytest.mark.anyio


async def test_a_variable_that_is_set_is_given_as_it_is(monkeypatch):
    monkeypatch.setenv("MACHINE_TEST", "grün \U0001f331")
    assert await EnvTransport().perform("env", env_request("MACHINE_TEST")) == {"value": "grün \U0001f331"}


async def test_an_empty_variable_is_not_an_absent_one(monkeypatch):
    monkeypatch.setenv("MACHINE_TEST", "")
    assert await EnvTransport().perform("env", env_request("MACHINE_TEST")) == {"value": ""}
    monkeypatch.delenv("MACHINE_TEST")
    assert await EnvTransport().perform("env", env_request("MACHINE_TEST")) == {"value": None}


async def test_a_value_that_is_not_utf8_is_an_error_and_not_a_guess(monkeypatch):
    monkeypatch.setitem(os.environ, "MACHINE_TEST", "caf\udce9")
    with pytest.raises(OtherIoError) as caught:
        await EnvTransport().perform("env", env_request("MACHINE_TEST"))
    assert caught.value.code == Code.IO_TRANSPORT_FAILED
    assert caught.value.info.details == {"name": "MACHINE_TEST"}


@pytest.mark.parametrize("name", ["", "A=B", "A\0B", "\ud800", 7, None, b"PATH"])
def test_a_name_no_variable_can_have_is_refused(name):
    with pytest.raises(OtherIoError) as caught:
        env_request(name)
    assert caught.value.code == Code.IO_INVALID_REQUEST


async def test_a_foreign_request_is_refused_when_performed():
    for request in ({}, {"name": "A=B"}, "PATH"):
        with pytest.raises(OtherIoError) as caught:
            await EnvTransport().perform("env", request)
        assert caught.value.code == Code.IO_INVALID_REQUEST


async def test_another_namespace_is_not_served():
    with pytest.raises(OtherIoError) as caught:
        await EnvTransport().perform("env.all", {})
    assert caught.value.code == Code.IO_UNKNOWN_NAMESPACE


async def test_the_environment_is_a_transport_without_effects():
    assert isinstance(EnvTransport(), Transport)
    assert not EnvTransport().is_effect("env", env_request("PATH"))
