"""The blocks of docs/record-redis-and-grpc.md run, against real servers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from clients.redis_server import redis_server

from machine import open_store, replay, run

DOCUMENT = Path(__file__).parents[2] / "docs" / "record-redis-and-grpc.md"
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


def plan_of(block):
    """Return the plan of a block of the document."""
    names = {"__name__": "__main__"}
    exec(compile(block, str(DOCUMENT), "exec"), names)
    return names["plan"]


def test_the_document_has_the_blocks_that_are_run_here():
    assert len(BLOCKS) == 2


def test_the_block_about_redis(tmp_path):
    pytest.importorskip("redis")
    plan = plan_of(BLOCKS[0])
    with redis_server(tmp_path) as server, open_store("memory://") as store:
        with server.client() as client:
            client.hset("stock", "tea", 3)
        result = run(plan, store=store, input={"port": server.port})
        assert result.context["stock"] == {"tea": "3"}, result.error
        assert (result.context["left"], result.context["sold"]) == (2, 1)
        server.stop()
        assert replay(result.run_id, plan=plan, store=store).identical


def test_the_block_about_grpc():
    pytest.importorskip("grpc")
    server_of_tests = pytest.importorskip("clients.grpc_server")
    plan = plan_of(BLOCKS[1])
    with server_of_tests.grpc_server() as (_, address, server), open_store("memory://") as store:
        result = run(plan, store=store, input={"address": address})
        assert result.context["answer"] == "got tea", result.error
        server.stop(0).wait()
        assert replay(result.run_id, plan=plan, store=store).identical
