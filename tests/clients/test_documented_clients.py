"""The blocks of docs/record-your-client.md about Redis and gRPC run, against real servers."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from clients.redis_server import redis_server

from machine import open_store, replay, run

DOCUMENT = Path(__file__).parents[2] / "docs" / "record-your-client.md"


def plan_of(section):
    """Return the plan of the block in a section of the document."""
    block = re.search(
        rf"^## {section}$.*?```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE
    )
    names = {"__name__": "__main__"}
    exec(compile(block[1], "<block>", "exec"), names)
    return names["plan"]


def test_the_block_about_redis(tmp_path):
    pytest.importorskip("redis")
    plan = plan_of("redis")
    with redis_server(tmp_path) as server, open_store("memory://") as store:
        with server.client() as client:
            client.hset("stock", "tea", 3)
        result = run(plan, store=store, input={"port": server.port})
        assert result.context["stock"] == {"tea": "3"}, result.error
        assert (result.context["left"], result.context["sold"]) == (2, 1)
        server.stop()
        assert replay(result.run_id, plan=plan, store=store).identical


def test_the_block_about_grpc(monkeypatch):
    pytest.importorskip("grpc")
    made = pytest.importorskip("clients.grpc_server")
    monkeypatch.setitem(sys.modules, "stock_pb2_grpc", SimpleNamespace(StockStub=made.StockStub))
    monkeypatch.setitem(sys.modules, "stock_pb2", SimpleNamespace(Wanted=made.StringValue))
    plan = plan_of("grpc")
    with made.grpc_server() as (_, address, server), open_store("memory://") as store:
        result = run(plan, store=store, input={"address": address})
        assert result.context["answer"] == "got tea", result.error
        server.stop(0).wait()
        assert replay(result.run_id, plan=plan, store=store).identical
