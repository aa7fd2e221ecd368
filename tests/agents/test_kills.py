"""Agents killed in the middle: what their models and tools had done is done by no later life, and by no replay."""

from __future__ import annotations

from pathlib import Path

import pytest
from clients.kit import proven, serving

HERE = Path(__file__).parent


def proven_agent(name, tmp_path, kills):
    """Prove the plan of an agent, and return its context."""
    with serving() as server:
        return proven(
            HERE / f"{name}_plan.py",
            tmp_path,
            {"url": server.url},
            kills=kills,
            arrivals=server.asked.copy,
            stop=server.stop,
        )


@pytest.mark.slow
@pytest.mark.long
def test_an_agent_of_pydantic_ai_goes_on_where_it_was_killed(tmp_path):
    pytest.importorskip("pydantic_ai")
    # after the first answer of the model, one of two prices, both, and within the second state
    reads = [{"FactRecorded": count} for count in (1, 2, 3, 4, 5, 6)]
    kills = [*reads, {"FactRecorded": 7}, {"FactRecorded": 8}, {"EffectIntended": 1}]
    context = proven_agent("pydantic_ai", tmp_path, kills)
    assert context["price"] == "both cheap"
    assert context["said"] == "bought"


@pytest.mark.slow
@pytest.mark.long
def test_a_graph_of_langgraph_goes_on_where_it_was_killed(tmp_path):
    pytest.importorskip("langgraph")
    reads = [{"FactRecorded": count} for count in (1, 2, 3, 4)]
    context = proven_agent("langgraph", tmp_path, [*reads, {"FactRecorded": 5}, {"EffectIntended": 1}])
    assert context["price"] == "It says: /price?name=tea"
    assert context["said"] == "It says: /buy?name=tea"
