"""Packages that make their clients out of reach, unmodified: the plan names the library below them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clients.kit import proven, serving

from machine import Plan, open_store, replay, run


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


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_cloudpathlib_which_is_built_on_boto3_is_recorded_and_replayed(monkeypatch):
    cloudpathlib = pytest.importorskip("cloudpathlib")
    boto3 = pytest.importorskip("boto3")
    moto = pytest.importorskip("moto.server")
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "an-example-of-a-secret-0123456789")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket="clouds")
    plan = Plan("cloud", clients=["boto3"])

    def client():
        return cloudpathlib.S3Client(endpoint_url=url, local_cache_dir=None)

    @plan.state("write.file", side_effects="apply_side_effect", idempotency="file-1")
    def write(ctx, io, rec):
        boto3.client("s3", endpoint_url=url).put_object(Bucket="clouds", Key="a/b.txt", Body=b"text")

    @plan.state("read.file", after=[write])
    def read(ctx, io, rec):
        path = client().CloudPath("s3://clouds/a/b.txt")
        ctx["there"] = path.exists()
        ctx["names"] = [each.name for each in client().CloudPath("s3://clouds/a").iterdir()]

    with open_store("memory://") as store:
        try:
            result = run(plan, store=store)
        finally:
            server.stop()
        assert result.context == {"there": True, "names": ["b.txt"]}
        assert replay(result.run_id, plan=plan, store=store).identical


def test_langchain_with_the_client_of_openai_is_recorded_and_replayed(monkeypatch):
    langchain_openai = pytest.importorskip("langchain_openai")
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-of-somebody-1234567890")

    def completions(answers):
        asked = json.loads(answers.body)
        message = {"role": "assistant", "content": f"{len(asked['messages'])} messages"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answers.say_json(
            200, {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        )

    plan = Plan("chain", clients=["httpx"])

    @plan.state("ask.model", side_effects="apply_side_effect", idempotency="question-1")
    async def ask(ctx, io, rec):
        model = langchain_openai.ChatOpenAI(model="m", base_url=ctx["url"] + "/v1", max_retries=0)
        ctx["said"] = (await model.ainvoke("How many?")).content

    with open_store("memory://") as store:
        with serving(v1=completions) as server:
            result = run(plan, store=store, input={"url": server.url})
            assert result.error is None, result.error
        assert result.context["said"] == "1 messages"
        assert replay(result.run_id, plan=plan, store=store).identical
