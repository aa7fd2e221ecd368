"""A server whose every answer takes a given time: HTTP, Redis and gRPC, on ports of the loopback.

    python slow_server.py MILLISECONDS

It prints its ports as JSON, and ends when its input does, as that of a child whose parent has gone.
"""

from __future__ import annotations

import asyncio
import json
import sys

CHAT = {
    "id": "chat-1",
    "object": "chat.completion",
    "created": 1,
    "model": "small",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Monday. " * 25}}
    ],
}
"""An answer of some 300 bytes, which is also one of a model."""


async def answer_http(reader, writer, seconds):
    """Answer the requests of one connection."""
    body = json.dumps(CHAT).encode()
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )
    while asked := await reader.readuntil(b"\r\n\r\n"):
        fields = dict(line.split(b": ", 1) for line in asked.lower().split(b"\r\n")[1:-2])
        await reader.readexactly(int(fields.get(b"content-length", 0)))
        await asyncio.sleep(seconds)
        writer.write(head + body)


async def answer_redis(reader, writer, seconds):
    """Answer the commands of one connection: a value to GET, and OK to all that sets it up."""
    while count := int((await reader.readuntil(b"\r\n"))[1:]):
        words = []
        for _ in range(count):
            length = int((await reader.readuntil(b"\r\n"))[1:])
            words.append((await reader.readexactly(length + 2))[:-2])
        if words[0].upper() == b"GET":
            await asyncio.sleep(seconds)
            writer.write(b"$200\r\n" + b"x" * 200 + b"\r\n")
        else:
            writer.write(b"+OK\r\n")


async def listening(answer, seconds):
    """Return the port on which connections are answered."""

    async def connected(reader, writer):
        try:
            await answer(reader, writer, seconds)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def answer_grpc(seconds):
    """Return a server of gRPC whose every method answers with 200 bytes, and its port."""
    import grpc

    async def method(request, context):
        del request, context
        await asyncio.sleep(seconds)
        return b"x" * 200

    class Any(grpc.GenericRpcHandler):
        def service(self, handler_call_details):
            del handler_call_details
            return grpc.unary_unary_rpc_method_handler(method)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Any(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


async def serve(seconds):
    """Serve until the input ends."""
    servers, ports = [], {}
    for name, starting in (
        ("http", listening(answer_http, seconds)),
        ("redis", listening(answer_redis, seconds)),
        ("grpc", answer_grpc(seconds)),
    ):
        try:
            server, ports[name] = await starting
        except ImportError:
            continue  # its client is absent too
        servers.append(server)
    print(json.dumps(ports), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]) / 1000))
