"""A real server of gRPC for tests, with the stub of its service, without generated code."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from concurrent import futures

import grpc
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import StringValue

READS = ["/shop.Stock/Get", "/shop.Stock/List", "/shop.Stock/Echo"]
KEYED = ["/shop.Stock/Put"]


class Stock:
    """The service. `asked` counts what has arrived, `keys` has the idempotency keys."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()
        self.keys: list[str] = []
        self.metadata: list[dict[str, str]] = []

    def _note(self, method, text, context):
        self.asked[method, text] += 1
        metadata = dict(context.invocation_metadata())
        self.metadata.append(metadata)
        if "idempotency-key" in metadata:
            self.keys.append(metadata["idempotency-key"])
        context.send_initial_metadata((("first", "1"),))
        context.set_trailing_metadata((("last", "2"), ("last-bin", b"\x00\xff")))

    def get(self, request, context):
        self._note("Get", request.value, context)
        if request.value == "missing":
            context.abort(grpc.StatusCode.NOT_FOUND, "there is none")
        if request.value == "slow":
            time.sleep(0.5)
        if request.value == "busy" and self.asked["Get", "busy"] % 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, "try again")
        return StringValue(value=f"got {request.value}")

    def list(self, request, context):
        self._note("List", request.value, context)
        for number in range(3):
            yield StringValue(value=f"{request.value} {number}")
        if request.value == "broken":
            context.abort(grpc.StatusCode.DATA_LOSS, "it broke")

    def put(self, requests, context):
        texts = ",".join(request.value for request in requests)
        self._note("Put", texts, context)
        return StringValue(value=texts)

    def chat(self, requests, context):
        for request in requests:
            self.asked["Chat", request.value] += 1
            yield StringValue(value=f"re {request.value}")

    def echo(self, request, context):
        self._note("Echo", "", context)
        return request

    def buy(self, request, context):
        self._note("Buy", request.value, context)
        return StringValue(value=f"bought {request.value}")


class StockStub:
    """What `grpc_tools` would generate for the service."""

    def __init__(self, channel) -> None:
        text = {
            "request_serializer": StringValue.SerializeToString,
            "response_deserializer": StringValue.FromString,
        }
        self.Get = channel.unary_unary("/shop.Stock/Get", **text)
        self.Buy = channel.unary_unary("/shop.Stock/Buy", **text)
        self.List = channel.unary_stream("/shop.Stock/List", **text)
        self.Put = channel.stream_unary("/shop.Stock/Put", **text)
        self.Chat = channel.stream_stream("/shop.Stock/Chat", **text)
        self.Echo = channel.unary_unary(
            "/shop.Stock/Echo",
            request_serializer=Struct.SerializeToString,
            response_deserializer=Struct.FromString,
        )
        self.Raw = channel.unary_unary("/shop.Stock/Get")


@contextlib.contextmanager
def grpc_server() -> Iterator[tuple[Stock, str, grpc.Server]]:
    """Start a server; yield the service, its address and the server."""
    stock, server = Stock(), grpc.server(futures.ThreadPoolExecutor(4))
    text = {
        "request_deserializer": StringValue.FromString,
        "response_serializer": StringValue.SerializeToString,
    }
    struct = {"request_deserializer": Struct.FromString, "response_serializer": Struct.SerializeToString}
    handlers = {
        "Get": grpc.unary_unary_rpc_method_handler(stock.get, **text),
        "Buy": grpc.unary_unary_rpc_method_handler(stock.buy, **text),
        "List": grpc.unary_stream_rpc_method_handler(stock.list, **text),
        "Put": grpc.stream_unary_rpc_method_handler(stock.put, **text),
        "Chat": grpc.stream_stream_rpc_method_handler(stock.chat, **text),
        "Echo": grpc.unary_unary_rpc_method_handler(stock.echo, **struct),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Stock", handlers),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield stock, address, server
    finally:
        server.stop(0).wait()
