"""HTTP over Unix sockets, as the daemon of Docker speaks it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from clients.kit import proven, serving_on

for library in ("aiohttp", "docker", "requests"):
    pytest.importorskip(library)

CONTAINER = {"Id": "a", "Names": ["/tea"], "Name": "/tea", "Config": {"Tty": True}}


def containers(answer):
    """Answer as the daemon does."""
    kind = answer.path.partition("?")[0].split("/")[-1]
    if kind == "logs":
        answer.at_chunks()
    else:
        answer.say_json(200, {"json": [CONTAINER], "create": {"Id": "b"}}[kind])


def versioned(answer):
    """Answer what the library docker asks."""
    kind = answer.path.partition("?")[0].split("/")[-1]
    if kind == "logs":
        answer.at_chunks()
    elif kind == "_ping":
        answer.say(200, b"OK")
    elif "containers/a/" in answer.path:
        answer.say_json(200, CONTAINER)
    else:
        answer.say_json(200, [CONTAINER])


@pytest.mark.long
def test_clients_on_a_unix_socket_are_recorded_killed_resumed_and_replayed(tmp_path):
    ping = {"_ping": lambda answer: answer.say(200, b"OK"), "v1.44": versioned}
    # the path of a socket has at most 107 bytes
    with (
        tempfile.TemporaryDirectory() as folder,
        serving_on(Path(folder, "d"), containers=containers, **ping) as server,
    ):
        context = proven(
            Path(__file__).with_name("unix_socket_plan.py"),
            tmp_path,
            {"path": f"{folder}/d"},
            kills=[{"EffectIntended": 1}],
            arrivals=server.asked.copy,
            stop=server.stop,
        )
    for name in ("io", "transport", "httpx", "aiohttp", "blocking"):
        assert context[name] == [CONTAINER]
    assert context["docker"] == [True, ["tea"]]
    assert [context["stream"], context["logs"], context["nothing"]] == [8000, 8000, "http_connect"]
    assert context["created"] == {"Id": "b"}
    assert server.keys == ["one"] * 3
