"""Clients of urllib3, unmodified."""

from __future__ import annotations

from pathlib import Path

import pytest
from clients.kit import proven, serving

pytest.importorskip("urllib3", "2.2")


def test_urllib3_is_recorded_killed_resumed_and_replayed_without_its_server(tmp_path):
    with serving() as server:
        context = proven(
            Path(__file__).with_name("urllib3_plan.py"),
            tmp_path,
            {"url": server.url},
            kills=[{"FactRecorded": 5}, {"EffectIntended": 1}],
            arrivals=server.asked.copy,
            stop=server.stop,
        )
    assert context["bytes"] == "1f8b", "the bytes of the resource itself were asked for"
    assert context["gzip"] == 5000
    assert context["moved"] == "/echo"
    assert context["busy"] == 200
    assert context["hangup"] == "RemoteDisconnected"
    assert context["cutoff"] == "ProtocolError"
    assert set(server.keys) == {"page"}
