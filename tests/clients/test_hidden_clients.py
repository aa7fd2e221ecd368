"""Packages that make their clients out of reach, unmodified: the plan names the library below them."""

from __future__ import annotations

from pathlib import Path

import pytest
from clients.kit import proven, serving


def repos(answers):
    base = answers.server.url
    repository = {
        "full_name": "someone/something",
        "name": "something",
        "stargazers_count": 7,
        "url": f"{base}/repos/someone/something",
    }
    match answers.command, answers.path.partition("?")[0].removeprefix("/repos/someone/"):
        case "GET", "something":
            answers.say_json(200, repository)
        case "GET", "something/issues" if answers.query.get("page") == "2":
            answers.say_json(200, [{"title": "third", "number": 3}])
        case "GET", "something/issues":
            link = f'<{base}/repos/someone/something/issues?state=open&page=2>; rel="next"'
            answers.say_json(200, [{"title": title} for title in ("first", "second")], {"link": link})
        case "POST", "something/issues":
            answers.say_json(201, {"number": 4, "title": "new"})
        case _:
            answers.say_json(404, {"message": "Not Found"})


def test_pygithub_is_recorded_killed_resumed_and_replayed_without_its_server(tmp_path):
    pytest.importorskip("github")
    with serving(repos=repos) as server:
        context = proven(
            Path(__file__).with_name("github_plan.py"),
            tmp_path,
            {"url": server.url},
            kills=[{"FactRecorded": 3}, {"EffectIntended": 1}],
            arrivals=server.asked.copy,
            stop=server.stop,
            environment={"GITHUB_TOKEN": "a-token-of-somebody-1"},
        )
    assert context["repository"] == ["someone/something", 7]
    assert context["open"] == ["first", "second", "third"]
    assert context["missing"] == 404
    assert context["made"] == 4
    assert server.requests[0][2]["Authorization"] == "token a-token-of-somebody-1"
    assert set(server.keys) == {"issue-1"}
