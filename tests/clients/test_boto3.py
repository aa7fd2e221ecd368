"""Clients of boto3, unmodified, against the servers of moto."""

from __future__ import annotations

import os
import socket
from collections import Counter
from pathlib import Path

import pytest
from clients.kit import proven, serving

from machine import Plan, open_store, replay, run

boto3 = pytest.importorskip("boto3")
server = pytest.importorskip("moto.server")
exceptions = pytest.importorskip("botocore.exceptions")

KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "an-example-of-a-secret-0123456789",
}
OBJECTS = {"a": b"1", "b": b"2", "c": b"3", "big": bytes(200_000)}


@pytest.fixture
def moto(monkeypatch):
    """Give the address of moto's server, a counter of what reaches it, and the function that stops it."""
    arrived = Counter()
    started = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    application = started._server.app

    def counting(environ, start_response):
        arrived[environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("HTTP_X_AMZ_TARGET")] += 1
        return application(environ, start_response)

    started._server.app = counting
    host, port = started.get_host_and_port()
    stopped = []

    def stop():
        if not stopped:
            stopped.append(started.stop())

    yield f"http://{host}:{port}", arrived, stop
    stop()


def prepare(address):
    """Make the bucket, the table and the queue as they are before a run."""
    made = {
        "endpoint_url": address,
        "aws_access_key_id": "x",
        "aws_secret_access_key": "y",
        "region_name": "eu-west-1",
    }
    s3, dynamodb, sqs = (boto3.client(name, **made) for name in ("s3", "dynamodb", "sqs"))
    s3.create_bucket(Bucket="things", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    for name, content in OBJECTS.items():
        s3.put_object(Bucket="things", Key=name, Body=content)
    dynamodb.create_table(
        TableName="people",
        KeySchema=[{"AttributeName": "name", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "name", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    dynamodb.put_item(TableName="people", Item={"name": {"S": "Ann"}, "age": {"N": "40"}})
    sqs.create_queue(QueueName="work")
    return sqs


def test_a_program_is_recorded_killed_resumed_and_replayed_without_its_servers(tmp_path, moto):
    address, arrived, stop = moto
    sqs = prepare(address)
    twice = Counter()

    def failing(answer):
        twice[answer.path] += 1
        answer.say(500 if twice[answer.path] % 2 else 200, b"at last")

    with serving(failing=failing) as other, socket.create_server(("127.0.0.1", 0)) as unused:
        given = {"failing": other.url, "closed": f"http://127.0.0.1:{unused.getsockname()[1]}"}
        unused.close()

        def stop_all():
            count = sqs.get_queue_attributes(
                QueueUrl=f"{address}/123456789012/work", AttributeNames=["ApproximateNumberOfMessages"]
            )
            runs = "4" if os.environ.get("MACHINE_CAMPAIGN") == "full" else "3"  # as many as `proven` makes
            assert count["Attributes"]["ApproximateNumberOfMessages"] == runs, "one a run, none of a replay"
            stop()
            other.stop()

        context = proven(
            Path(__file__).with_name("boto3_plan.py"),
            tmp_path,
            given,
            kills=[{"EffectIntended": 1}, {"FactRecorded": 8}],
            arrivals=lambda: arrived + other.asked,
            stop=stop_all,
            environment={"AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "eu-west-1", **KEYS},
        )
    assert context["keys"] == ["a", "b", "big", "c", "new.txt"]
    assert context["missing"] == ["NoSuchKey", 404]
    assert context["retried"] == "at last"
    assert context["region"] == "eu-west-1"


@pytest.fixture
def record():
    """Give a function that runs a handler and replays it without the server; it returns the result."""
    with open_store("memory://") as store, serving() as http:

        def recorded(handler, *, clients=("boto3",), **meta):
            plan = Plan("client", clients=list(clients))
            plan.state("a.only", **{"side_effects": "read_only_io", **meta})(handler)
            result = run(plan, store=store, input={"url": http.url})
            assert result.status == "completed", result.error
            http.stop()
            again = replay(result.run_id, plan=plan, store=store)
            assert again.identical, again.divergence
            return result

        recorded.server = http
        yield recorded


def test_a_client_of_io_is_recorded_in_an_async_handler_too(record, monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    record.server.routes["things"] = lambda answer: answer.say(200, b"content")

    async def handler(ctx, io, rec):
        s3 = io.boto3_client("s3", region_name="eu-west-1", endpoint_url=ctx["url"])
        ctx["content"] = s3.get_object(Bucket="things", Key="a")["Body"].read().decode()
        session = io.botocore(boto3.session.Session())
        other = session.client("s3", region_name="eu-west-1", endpoint_url=ctx["url"])
        ctx["again"] = other.get_object(Bucket="things", Key="b")["Body"].read().decode()

    result = record(handler, clients=())
    assert [result.context["content"], result.context["again"]] == ["content", "content"]
    assert "AKIAIOSFODNN7EXAMPLE" in record.server.requests[0][2]["Authorization"]


def test_the_token_that_botocore_makes_for_a_request_is_the_same_in_a_replay(record, monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    record.server.routes[""] = lambda answer: answer.say_json(200, {})

    def handler(ctx, io, rec):
        dynamodb = boto3.client("dynamodb", region_name="eu-west-1", endpoint_url=ctx["url"])
        put = {"Put": {"TableName": "t", "Item": {"name": {"S": "Ann"}}}}
        dynamodb.transact_write_items(TransactItems=[put])

    record(handler, side_effects="apply_side_effect", idempotency="once")
    assert b"ClientRequestToken" in record.server.requests[0][3]
    assert record.server.keys == ["once"]


def test_a_body_that_breaks_off_is_an_exception_of_botocore(record, monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)

    def broken(answer):
        answer.close_connection = True
        answer.send_response(200)
        answer.send_header("content-length", "1000000")
        answer.end_headers()
        answer.wfile.write(bytes(100_000))

    record.server.routes["things"] = broken

    def handler(ctx, io, rec):
        s3 = boto3.client("s3", region_name="eu-west-1", endpoint_url=ctx["url"])
        body = s3.get_object(Bucket="things", Key="a")["Body"]
        try:
            body.read()
        except (exceptions.IncompleteReadError, exceptions.ResponseStreamingError) as error:
            ctx["error"] = type(error).__name__

    assert "error" in record(handler).context
