"""A plan whose handlers use redis-py as anyone does."""

import redis
import redis.asyncio

from machine import Plan

plan = Plan("redis_client", clients=["redis"])


@plan.state("read.values", side_effects="read_only_io")
async def read(ctx, io, rec):
    async with redis.asyncio.Redis(port=ctx["port"], decode_responses=True) as client:
        ctx["stock"] = await client.hgetall("stock")
        ctx["keys"] = sorted([key async for key in client.scan_iter("*", count=100)])
        async with client.pipeline(transaction=False) as pipe:
            ctx["several"] = await pipe.get("price").llen("queue").execute()
        try:
            await client.get("queue")
        except redis.ResponseError as error:
            ctx["error"] = str(error)


@plan.state("write.values", side_effects="apply_side_effect", idempotency="order", after=[read])
def write(ctx, io, rec):
    with redis.Redis(port=ctx["port"], decode_responses=True) as client:
        ctx["sold"] = client.incrby("sold", 2)
        ctx["taken"] = client.blpop(["queue"], timeout=1)
        with client.pipeline() as pipe:
            ctx["moved"] = pipe.hincrby("stock", "tea", -1).hget("stock", "tea").execute()
        ctx["script"] = client.register_script("return redis.call('incr', KEYS[1])")(["counter"])
        with client.lock("door"):
            ctx["left"] = client.hget("stock", "tea")
        messages = client.pubsub()
        messages.subscribe("news")
        messages.get_message(timeout=5)
        client.publish("news", "closed")
        ctx["message"] = messages.get_message(timeout=5)["data"]
        messages.close()
