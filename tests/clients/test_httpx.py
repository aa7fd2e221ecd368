"""Clients of httpx that other code makes, unmodified."""

from __future__ import annotations

from pathlib import Path

from clients.kit import proven, serving


def test_a_hidden_client_is_recorded_killed_resumed_and_replayed_without_its_server(tmp_path):
    with serving() as server:
        context = proven(
            Path(__file__).with_name("hidden_httpx_plan.py"),
            tmp_path,
            {"url": server.url},
            kills=[{"FactRecorded": 5}, {"EffectIntended": 1}],
            arrivals=server.asked.copy,
            stop=server.stop,
        )
    assert context["cookie"] == "visit=1; theme=dark"
    assert context["paths"] == ["/echo?n=0", "/echo?n=1", "/echo?n=2"]
    assert context["hangup"] == "RemoteProtocolError"
    assert [context["in_thread"], context["on_the_loop"]] == [200, 404]
    assert set(server.keys) == {"page"}
