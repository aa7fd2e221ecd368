"""Clients of aiohttp, unmodified: each request is a call of `http`, live and replayed alike."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from clients.kit import proven, serving

pytest.importorskip("aiohttp")


def test_a_program_is_recorded_killed_resumed_and_replayed_without_its_server(tmp_path):
    with serving() as server, socket.create_server(("127.0.0.1", 0)) as unused:
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        unused.close()
        context = proven(
            Path(__file__).with_name("aiohttp_plan.py"),
            tmp_path,
            {"url": server.url, "closed": closed},
            kills=[{"FactRecorded": 20}, {"EffectIntended": 2}],
            arrivals=server.asked.copy,
            stop=server.stop,
        )
    assert sum(context["chunks"]) == 9000 - 10 * 0
    print(context)
