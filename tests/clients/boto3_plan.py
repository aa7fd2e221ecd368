"""A plan whose handlers use boto3, and do not know that they are recorded."""

import io as io_module

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError

from machine import Plan

plan = Plan("boto3_client", clients=["boto3"])

ONE = Config(retries={"max_attempts": 1, "mode": "standard"})


@plan.state("write.object", side_effects="apply_side_effect", idempotency="object")
def put(ctx, io, rec):
    s3 = boto3.client("s3")
    s3.put_object(Bucket="things", Key="new.txt", Body=io_module.BytesIO(b"new " * 1000))


@plan.state("write.item", side_effects="apply_side_effect", idempotency="item", after=[put])
def item(ctx, io, rec):
    table = boto3.resource("dynamodb").Table("people")
    before = table.get_item(Key={"name": "Ann"})["Item"]
    table.put_item(Item={"name": "Bob", "age": before["age"] + 1})


@plan.state("write.message", side_effects="apply_side_effect", idempotency="message", after=[item])
def message(ctx, io, rec):
    sqs = boto3.client("sqs", region_name="eu-west-1")
    url = sqs.get_queue_url(QueueName="work")["QueueUrl"]
    ctx["sent"] = sqs.send_message(QueueUrl=url, MessageBody="hello")["MD5OfMessageBody"]


@plan.state("read.all", side_effects="read_only_io", after=[message])
def read(ctx, io, rec):
    s3 = boto3.client("s3")
    ctx["region"] = s3.meta.region_name
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="things", PaginationConfig={"PageSize": 2})
    ctx["keys"] = [entry["Key"] for page in pages for entry in page["Contents"]]
    big = s3.get_object(Bucket="things", Key="big")["Body"]
    ctx["big"] = [sum(map(len, big.iter_chunks(50_000))), big.read()[:1] == b""]
    ctx["new"] = s3.get_object(Bucket="things", Key="new.txt")["Body"].read().decode()[:8]
    ctx["size"] = s3.head_object(Bucket="things", Key="new.txt")["ContentLength"]
    try:
        s3.get_object(Bucket="things", Key="nothing")
    except s3.exceptions.NoSuchKey as error:
        ctx["missing"] = [
            error.response["Error"]["Code"],
            error.response["ResponseMetadata"]["HTTPStatusCode"],
        ]
    try:
        s3.head_object(Bucket="nowhere", Key="nothing")
    except ClientError as error:
        ctx["forbidden"] = error.response["Error"]["Code"]
    table = boto3.resource("dynamodb").Table("people")
    ctx["people"] = sorted(str(person["name"]) for person in table.scan()["Items"])


@plan.state("read.failures", side_effects="read_only_io", after=[read])
def failures(ctx, io, rec):
    s3 = boto3.client("s3", endpoint_url=ctx["failing"])
    ctx["retried"] = s3.get_object(Bucket="failing", Key="twice")["Body"].read().decode()
    try:
        boto3.client("s3", endpoint_url=ctx["closed"], config=ONE).list_buckets()
    except EndpointConnectionError as error:
        ctx["closed_error"] = str(error).partition("http")[0]
