"""The blocks of docs/agents.md run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from clients.kit import serving

from machine import open_store, replay, run

DOCUMENT = Path(__file__).parents[2] / "docs" / "agents.md"


def names_of(section):
    """Run the block in a section of the document, and return its names."""
    block = re.search(
        rf"^## {section}$.*?```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE
    )
    names = {"__name__": "__main__"}
    exec(compile(block[1], "<block>", "exec"), names)
    return names


def run_and_replay(plan, given=None):
    with open_store("memory://") as store:
        result = run(plan, store=store, input=given)
        assert result.status == "completed", result.error
        yield result.context
        replayed = replay(result.run_id, plan=plan, store=store)
        assert replayed.identical, replayed.divergence


def test_the_block_about_the_client_of_the_model(monkeypatch):
    pytest.importorskip("pydantic_ai")
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-key-of-nobody-0123456789")

    def chat(answers):
        asked = json.loads(answers.body)["messages"][-1]
        message = {"role": "assistant", "content": f"We are {asked['content']}."}
        if asked["role"] == "user":
            function = {"name": "opening_hours", "arguments": '{"day": "Sunday"}'}
            call = {"id": "1", "type": "function", "function": function}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        answers.say_json(
            200,
            {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": "gpt-5",
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            },
        )

    plan = names_of("The client of the model")["plan"]
    with serving(chat=chat) as server:
        replaying = run_and_replay(plan, {"url": f"{server.url}/chat/v1"})
        assert next(replaying)["answer"] == "We are closed."
        assert len(server.requests) == 2
        server.stop()
        assert list(replaying) == []


def test_the_block_about_pydantic_ai():
    pytest.importorskip("pydantic_ai")
    names = names_of("pydantic-ai")
    replaying = run_and_replay(names["plan"])
    assert "booked" in next(replaying)["answer"]
    assert len(names["booked"]) == 1
    assert list(replaying) == []
    assert len(names["booked"]) == 1


def test_the_block_about_langgraph():
    pytest.importorskip("langgraph")
    from agents.clerk import Clerk

    names = names_of("LangGraph")
    names["model"] = Clerk(tool="book", args={"day": "Sunday"})
    replaying = run_and_replay(names["plan"])
    assert next(replaying)["answer"] == "It says: booked"
    assert names["booked"] == ["Sunday"]
    assert list(replaying) == []
    assert names["booked"] == ["Sunday"]
