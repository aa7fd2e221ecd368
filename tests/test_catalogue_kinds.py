"""The kinds of the catalogue take exactly the fields that the systems before this one gave them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from machine import DomainEvent, Plan, RunConfig, canonical, export_run, import_bundle, replay, run, verify
from machine.catalogue import STANDARD
from machine.catalogue.kinds import OF_THE_KERNEL
from machine.errors import Code, CodecError, UsageError
from machine.events import KERNEL_EVENTS
from machine.stores import MemoryStore

OWN = {"tool_call_failed", "model_telemetry", "provenance"}
"""Kinds that only this library has."""

STATE_IDS = {"node_id", "step_id"}
"""Fields that may be left out wherever they are: the envelope names the state."""

# A kind, then its fields with their types; "?" marks an optional one, and a line that is indented goes on.
FACTS = """
workflow_started          workflow_id:string workflow_version:string initial_input:json
workflow_completed        final_state:json
workflow_failed           error:string
workflow_cancelled        reason:string?
node_scheduled            node_id:string queue_type:string
node_started              node_id:string worker_id:string attempt:integer
node_completed            node_id:string output:json state_patch:json duration_ms:integer
    gen_ai_system:string? gen_ai_model:string? input_tokens:integer? output_tokens:integer?
    finish_reason:string? cost_usd:number? provenance:provenance?
node_failed               node_id:string error:string attempt:integer retryable:boolean
node_skipped              node_id:string reason:string
node_cancelled            node_id:string
retry_scheduled           node_id:string attempt:integer delay_ms:integer
interrupt_raised          node_id:string reason:string state_for_review:json
approval_received         node_id:string user_id:string decision:approved|rejected comment:string?
    state_patch:json?
timer_created             node_id:string fire_at:time correlation_key:string?
timer_fired               node_id:string correlation_key:string?
external_event_received   correlation_key:string payload:json
child_workflow_started    node_id:string child_execution_id:string child_workflow_id:string
child_workflow_completed  node_id:string child_execution_id:string result:json
child_workflow_failed     node_id:string child_execution_id:string error:string
budget_exceeded           node_id:string kind:string limit:integer current:integer
token_budget_exceeded     node_id:string kind:string limit:integer current:integer
cost_budget_exceeded      node_id:string limit_usd:number current_usd:number
autonomy_limit_reached    node_id:string agent_ref:string limit_type:string limit_value:json
    actual_value:json
circuit_breaker_tripped   node_id:string agent_ref:string consecutive_errors:integer threshold:integer
escalation_required       node_id:string agent_ref:string reason:string escalation_target:string
policy_violation          node_id:string rule:string decision:string policy_scope:string
tool_approval_required    node_id:string tool_name:string approver:string context:json
strategy_started          strategy:string config:json
plan_generated            steps:strings
iteration_started         iteration:integer
tool_called               node_id:string tool:string
critic_verdict            node_id:string score:number passed:boolean feedback:string?
iteration_completed       iteration:integer cost_delta_usd:number? input_tokens:integer
    output_tokens:integer
strategy_limit_hit        limit_type:string limit_value:json actual_value:json
strategy_completed        iterations:integer total_cost_usd:number?
coordinator_discovery     node_id:string query_skills:strings query_trust_domain:string? candidates:list
    filtered_out:list
coordinator_scoring       node_id:string rankings:list spread:number weights:json
coordinator_decision      node_id:string selected:string? method:string reasoning:string? confidence:number
    rejected:list tiebreaker_tokens:json? tiebreaker_cost:number?
agent_tool_invoked        node_id:string agent_uri:string mode:string protocol:string input_hash:string
agent_tool_progress       node_id:string chunk_index:integer partial_output_summary:string
agent_tool_turn           node_id:string turn_number:integer direction:string content_summary:string
    tokens:integer cost:number
agent_tool_completed      node_id:string output:json provenance:json? total_cost:number latency_ms:integer
    total_turns:integer?
agent_tool_terminated     node_id:string reason:string chunks_received:integer partial_output:json?
    cost:number
agent_tool_failed         node_id:string failure_type:string message:string retryable:boolean
state_updated             step_id:string? payload:json
action_requested          action_id:string payload:json
action_succeeded          action_id:string output:json
action_failed             action_id:string error:string
interrupted               value:json
resumed                   value:json
completed
execution_started         parent:parent? metadata:json?
step_started              step_id:string parent_step_id:string? step_type:string name:string
step_completed            step_id:string output:string? duration_ms:integer
step_failed               step_id:string error:error
execution_paused          reason:string
execution_resumed
execution_completed       output:string? duration_ms:integer
execution_failed          error:error
execution_cancelled       reason:string
artifact_stored           artifact_id:string step_id:string content_hash:string size_bytes:integer
step_discovered           step_id:string discovered_by:string? source_type:string reason:string
    depth:integer
tool_call_started         step_id:string? tool_call_id:string tool_name:string input:json
tool_call_completed       step_id:string? tool_call_id:string output:json
checkpoint_saved          step_id:string? checkpoint_id:string state_hash:string
goal_evaluated            step_id:string? goal_id:string status:met|not_met|progressing score:number?
    reason:string?
custom                    event_type:string data:json
fact_recorded             key:string payload_id:artifact meta:json
artifact_written          artifact_id:artifact kind:string meta:json
op_boundary               op_path:op_path phase:started|completed
child_run_spawned         parent_run_id:run child_run_id:run child_manifest_id:artifact
child_run_completed       child_run_id:run status:string final_snapshot_id:artifact?
"""

PROVENANCE = {
    "model_id": "m-2",
    "model_version": "2",
    "confidence": 0.5,
    "verified": True,
    "source": "web",
    "trust_domain": "lab",
    "evidence_refs": ["a", "b"],
}
SAMPLES: Mapping[str, tuple[Any, Any]] = {
    "string": ("text", 7),
    "integer": (3, "3"),
    "number": (0.5, "0.5"),
    "boolean": (True, 1),
    "json": ({"list": [1, None, {"x": 0.5}]}, b"bytes"),
    "list": ([{"a": 1}, "b", None], "text"),
    "strings": (["a", "b"], ["a", 1]),
    "provenance": (PROVENANCE, {"verified": "yes"}),
    "error": ({"code": "offline", "message": "no answer"}, "text"),
    "time": ("2026-11-30T09:00:00.5+01:00", "tomorrow"),
    "artifact": (canonical.artifact_id(b""), "00"),
    "run": ("01932d4e-7c1a-7b3f-9a41-3f0c5f1a2b3c", "me"),
    "parent": ({"parent_id": "e1", "parent_type": "execution"}, {"parent_id": 7}),
    "op_path": ("pay.collect", "pay"),
}
"""A value of each type, and one that is none of it."""


class Field(NamedTuple):
    """One field of a kind: its name, a value, a value of another type, and whether it may be left out."""

    name: str
    right: Any
    wrong: Any
    optional: bool


def fields_of(words: list[str]) -> Iterator[Field]:
    for word in words:
        name, _, of = word.partition(":")
        optional = of.endswith("?") or name in STATE_IDS
        of = of.rstrip("?")
        right, wrong = (of.split("|")[0], "other") if "|" in of else SAMPLES[of]
        yield Field(name, right, wrong, optional)


KINDS = {
    name: list(fields_of(words))
    for name, *words in (line.split() for line in FACTS.replace("\n    ", " ").strip().splitlines())
    if name not in OF_THE_KERNEL
}
EACH = pytest.mark.parametrize("name", KINDS)


def full(name: str) -> dict[str, Any]:
    return {field.name: field.right for field in KINDS[name]}


def minimal(name: str) -> dict[str, Any]:
    return {field.name: field.right for field in KINDS[name] if not field.optional}


def problems(name: str, payload: Any) -> list[str]:
    with pytest.raises(CodecError) as caught:
        STANDARD.validate(name, payload)
    assert caught.value.code == Code.MALFORMED
    return caught.value.problems


def test_every_kind_is_there_and_no_other() -> None:
    assert len(KINDS) == 70
    assert {kind.name for kind in STANDARD} == KINDS.keys() | OWN
    assert {kind.version for kind in STANDARD} == {1}


@pytest.mark.parametrize("name", ["retry_scheduled", "fact_recorded"])
def test_a_name_that_the_kernel_owns_is_refused(name: str) -> None:
    assert name in OF_THE_KERNEL
    assert name in KERNEL_EVENTS
    with pytest.raises(UsageError, match="kernel event") as caught:
        STANDARD.validate(name, {})
    assert caught.value.code == Code.INVALID_DOMAIN_EVENT


@EACH
def test_its_fields_are_accepted(name: str) -> None:
    assert STANDARD.validate(name, full(name)) == full(name)
    assert STANDARD.validate(name, minimal(name)) == minimal(name)
    assert STANDARD.validate(name, STANDARD.structure(name, full(name))) == full(name)


@EACH
def test_a_required_field_that_is_missing_is_refused_with_its_path(name: str) -> None:
    for field in KINDS[name]:
        payload = {key: value for key, value in full(name).items() if key != field.name}
        if field.optional:
            assert STANDARD.validate(name, payload) == payload
        else:
            expected = f"required field {field.name!r} is missing @ $.{field.name}"
            assert problems(name, payload) == [expected]


@EACH
def test_a_value_of_another_type_is_refused_with_its_path(name: str) -> None:
    for field in KINDS[name]:
        found = problems(name, {**full(name), field.name: field.wrong})
        assert found
        for problem in found:
            assert f"@ $.{field.name}" in problem


@EACH
def test_a_field_that_it_does_not_have_is_refused(name: str) -> None:
    assert problems(name, {**full(name), "fields": 1}) == ["unknown fields: fields @ $"]


def test_a_run_with_one_of_each_replays_and_goes_through_a_bundle(tmp_path) -> None:
    plan = Plan("kinds")

    @plan.state("emit.all")
    async def emit(ctx, io, rec):
        for name in KINDS:
            await rec.emit_many([DomainEvent(name, minimal(name)), DomainEvent(name, full(name))])

    bundle = tmp_path / "kinds.run"
    with MemoryStore() as store, MemoryStore() as other:
        result = run(plan, store=store, config=RunConfig(event_profile="verbose"))
        assert result.status == "completed", result.error
        assert replay(result.run_id, plan=plan, store=store).identical
        export_run(result.run_id, bundle, store=store)
        assert import_bundle(bundle, store=other) == result.run_id
        assert verify(result.run_id, store=other).ok
        assert replay(result.run_id, plan=plan, store=other).identical
        assert list(other.read_range(result.run_id)) == list(store.read_range(result.run_id))
        logged = b"".join(event.data for event in other.read_range(result.run_id))
    for name in KINDS:
        assert logged.count(f'"name":"{name}"'.encode()) == 2
