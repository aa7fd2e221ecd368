"""A plan whose handlers use grpc as anyone does, with the stub of a service."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

import grpc
from google.protobuf.wrappers_pb2 import StringValue
from grpc_server import KEYED, READS, StockStub

from machine import Plan
from machine.clients import record

plan = Plan("grpc_client", clients=[record("grpc", reads=READS, keyed=KEYED)])


@plan.state("read.stock", side_effects="read_only_io")
async def read(ctx, io, rec):
    async with grpc.aio.insecure_channel(ctx["address"]) as channel:
        await channel.channel_ready()
        stub = StockStub(channel)
        ctx["got"] = (await stub.Get(StringValue(value="tea"))).value
        ctx["listed"] = [found.value async for found in stub.List(StringValue(value="salt"))]
        try:
            await stub.Get(StringValue(value="missing"))
        except grpc.aio.AioRpcError as error:
            ctx["error"] = [error.code().name, error.details(), error.trailing_metadata()["last"]]


@plan.state("write.stock", side_effects="apply_side_effect", idempotency="order", after=[read])
def write(ctx, io, rec):
    with grpc.insecure_channel(ctx["address"]) as channel:
        grpc.channel_ready_future(channel).result(timeout=5)
        stub = StockStub(channel)
        for _ in range(3):
            try:
                ctx["busy"] = stub.Get(StringValue(value="busy")).value
                break
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
        ctx["bought"] = [stub.Buy(StringValue(value=name)).value for name in ("tea", "salt")]
        ctx["put"] = stub.Put(StringValue(value=letter) for letter in "xyz").value
        ctx["listed"] = [*ctx["listed"], *(found.value for found in stub.List(StringValue(value="oil")))]
