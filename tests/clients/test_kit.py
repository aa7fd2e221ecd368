"""The test of clients itself, with the client that has its own transport."""

from __future__ import annotations

from pathlib import Path

from clients.kit import proven, serving


def test_a_recorded_client_is_killed_resumed_and_replayed_without_its_server(tmp_path):
    with serving() as server:
        context = proven(
            Path(__file__).with_name("httpx_plan.py"),
            tmp_path,
            {"url": server.url},
            kills=[{"FactRecorded": 4}, {"EffectIntended": 1, "FactRecorded": 11}],
            arrivals=server.asked.copy,
            stop=server.stop,
        )
    assert context["cookie"] == "visit=1; theme=dark"
    assert context["busy"] == [429, 200]
    assert server.keys == ["page"] * 4
