"""Clients of requests, unmodified."""

from __future__ import annotations

from pathlib import Path

import pytest
from clients.kit import proven, serving

pytest.importorskip("requests")


def test_requests_is_recorded_killed_resumed_and_replayed_without_its_server(tmp_path):
    with serving() as server:
        context = proven(
            Path(__file__).with_name("requests_plan.py"),
            tmp_path,
            {"url": server.url},
            kills=[{"FactRecorded": 5}, {"EffectIntended": 1}],
            arrivals=server.asked.copy,
            stop=server.stop,
        )
    assert context["chunks"] == context["streamed"]
    assert context["moved"][1:] == [302]
    assert context["cookie"] == "visit=1; theme=dark"
    assert context["busy"] == 200
    assert context["hangup"] == ["ConnectionError", True]
    assert context["refused"] == ["ConnectionError", True]
    assert set(server.keys) == {"page"}
