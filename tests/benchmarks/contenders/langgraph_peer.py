"""LangGraph, with its SQLite checkpointer and `durability="sync"`."""

from __future__ import annotations

import operator
import os
import time
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from payload import result
from stage import WARM, main, stopwatch, stored

NOTES = {}


class Row(TypedDict):
    number: int
    result: dict[str, Any]


class Wide(TypedDict):
    number: int
    results: Annotated[list[Any], operator.add]


def step(state):
    return {"number": state["number"] + 1, "result": result(state["number"])}


def loop(saver, n):
    graph = StateGraph(Row)
    graph.add_node("step", step)
    graph.add_edge(START, "step")
    graph.add_conditional_edges("step", lambda state: "step" if state["number"] < n else END)
    return graph.compile(checkpointer=saver)


def thread(name, **more):
    return {"configurable": {"thread_id": name}, "recursion_limit": 1_000_000, **more}


def live(n):
    """Run a graph of one node that follows itself."""
    told = {}
    with SqliteSaver.from_conn_string("langgraph.db") as saver:
        start = {"number": 0, "result": {}}
        loop(saver, WARM).invoke(start, thread("warm"), durability="sync")
        graph = loop(saver, n)
        with stopwatch(n, told):
            assert graph.invoke(start, thread("timed"), durability="sync")["number"] == n
    return {**told, "bytes": stored("langgraph.db", n)}


def in_memory(n):
    """Run a graph of one node that follows itself, without a checkpointer."""
    told, start = {}, {"number": 0, "result": {}}
    loop(None, WARM).invoke(start, thread("warm"))
    graph = loop(None, n)
    with stopwatch(n, told):
        assert graph.invoke(start, thread("timed"))["number"] == n
    return told


def fanned(n, concurrency):
    """Run a graph that sends to `n` nodes side by side."""
    told = {}
    with SqliteSaver.from_conn_string("langgraph.db") as saver:

        def build(width):
            graph = StateGraph(Wide)
            graph.add_node("one", lambda state: {"results": [result(state["number"])]})
            graph.add_conditional_edges(START, lambda _: [Send("one", {"number": i}) for i in range(width)])
            return graph.compile(checkpointer=saver)

        build(WARM).invoke({"results": []}, thread("warm"), durability="sync")
        graph = build(n)
        with stopwatch(n, told):
            config = thread("timed", max_concurrency=concurrency)
            assert len(graph.invoke({"results": []}, config, durability="sync")["results"]) == n
    return told


def walk(saver):
    """Return the workflow of the functional API whose recorded tasks are walked."""

    @task
    def one(number):
        NOTES["ran"] = NOTES.get("ran", 0) + 1
        return result(number)

    @entrypoint(checkpointer=saver)
    def workflow(n):
        NOTES["begun"] = time.perf_counter()
        for number in range(n):
            one(number).result()
        NOTES["walked"] = time.perf_counter()
        if os.environ.get("DIES") == "1":
            os._exit(0)
        return n

    return workflow


def interrupted(n):
    """Run a workflow of tasks and die after the last, before it has returned."""
    os.environ["DIES"] = "1"
    with SqliteSaver.from_conn_string("langgraph.db") as saver:
        walk(saver).invoke(n, thread("dying"), durability="sync")


def recovered(n):
    """Invoke the workflow that died again: what each recorded task costs that it walks."""
    with SqliteSaver.from_conn_string("langgraph.db") as saver:
        walk(saver).invoke(None, thread("dying"), durability="sync")
    return {"us": (NOTES["walked"] - NOTES["begun"]) / n * 1e6, "ran": NOTES.get("ran", 0)}


if __name__ == "__main__":
    main(live, in_memory, fanned, interrupted, recovered)
