"""`plan`: the validated graph of a plan as a table, a picture or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from machine.cli.command_session import Flag, Injected
from machine.cli.output import Cell, clean, short
from machine.cli.state_text import short_state
from machine.errors import Code, UsageError
from machine.input_schema import schema_of, words_of
from machine.plan import Graph
from machine.state import OnError, PlanState, RunsOn, StateMeta


def plan(
    target: str,
    /,
    *,
    format: Annotated[Literal["table", "mermaid", "dot", "json"], Parameter(name="--format")] = "table",  # noqa: A002
    schema: Flag = False,
    session: Injected,
) -> int:
    """Show a plan's validated graph, and the input that it takes.

    States are in the order in which they run. Nothing is run and no store is needed.

    Parameters
    ----------
    target
        The plan: package.module:plan or path/file.py:plan. `:plan` may be left out when there is only one.
    format
        A table, a Mermaid flowchart, a Graphviz digraph, or JSON.
    schema
        Print the JSON schema of the input instead, of a plan that has a class for it.
    """
    found = session.load(target).plan
    graph, takes = found.graph, None if found.input is None else schema_of(found.input)
    if schema:
        if takes is None:
            raise UsageError(
                f"plan {graph.op_id} takes any JSON object: it has no class for its input",
                hint="declare one: Plan(..., input=Order)",
                code=Code.USAGE,
            )
        session.out.json(takes) if session.as_json else session.out.document(takes)
        return 0
    if session.as_json or format == "json":
        session.out.json({**_as_json(graph), "input": takes})
        return 0
    match format:
        case "mermaid":
            session.out.line(mermaid(graph))
        case "dot":
            session.out.line(dot(graph))
        case _:
            count = f"{len(graph.order)} state{'s' if len(graph.order) > 1 else ''}"
            session.out.line(
                f"{graph.op_id} version {clean(graph.version)}  {count}  plan {short(graph.plan_id)}"
            )
            session.out.line()
            states = [graph.states[state_id] for state_id in graph.order]
            noted = any(_note(state.meta) for state in states)
            rows = [
                (*_row(graph, index), *([_note(state.meta)] if noted else []))
                for index, state in enumerate(states)
            ]
            heads = ["#", "STATE", "AFTER", "EFFECTS", "TRIES", "TIMEOUT", "TAGS"]
            session.out.table([*heads, *([""] if noted else [])], rows)
            if takes is not None:
                _print_input(session, takes)
    return 0


def _print_input(session: Injected, schema: Mapping[str, Any]) -> None:
    required = schema.get("required", [])
    session.out.line()
    session.out.table(
        ["INPUT", "TYPE", "DEFAULT"],
        [
            (
                clean(name),
                clean(words_of(field)),
                "required"
                if name in required
                else clean(json.dumps(field.get("default"), ensure_ascii=False)),
            )
            for name, field in schema.get("properties", {}).items()
        ],
    )


def _before(graph: Graph, state_id: str) -> list[str]:
    return [earlier for earlier, later in graph.edges if later == state_id]


def _row(graph: Graph, index: int) -> tuple[Cell, ...]:
    state: PlanState = graph.states[graph.order[index]]
    before = sorted(graph.order.index(earlier) + 1 for earlier in _before(graph, state.id))
    meta = state.meta
    return (
        f"{index + 1:>{len(str(len(graph.order)))}}",
        short_state(state.id),
        ",".join(map(str, before)) or "-",
        meta.side_effects.value,
        f"{meta.retry.max_attempts if meta.retry else '-':>5}",
        f"{f'{meta.timeout:g}s' if meta.timeout else '-':>7}",
        " ".join(map(str, meta.tags)) or "-",
    )


def _note(meta: StateMeta) -> str:
    """Return when a cleanup state runs, or what follows when another state fails; empty for most."""
    notes = {RunsOn.ALWAYS: "cleanup, always", RunsOn.FAILURE: "cleanup, on failure"}
    afterwards = {OnError.SKIP: "skipped if it fails", OnError.PAUSE: "pauses the run if it fails"}
    return ", ".join(filter(None, (notes.get(meta.run), afterwards.get(meta.on_error))))


def _as_json(graph: Graph) -> dict[str, Any]:
    return {
        "op_id": graph.op_id,
        "version": graph.version,
        "plan_id": graph.plan_id,
        "order": list(graph.order),
        **graph.shape(),
    }


def mermaid(graph: Graph) -> str:
    """Return a graph as a Mermaid flowchart; states with side effects have a double border."""
    lines = ["flowchart TD"]
    for index, state_id in enumerate(graph.order, 1):
        left, right = ("[[", "]]") if _effectful(graph, state_id) else ("[", "]")
        lines.append(f'  s{index}{left}"{short_state(state_id)}"{right}')
    number = {state_id: index for index, state_id in enumerate(graph.order, 1)}
    lines.extend(f"  s{number[earlier]} --> s{number[later]}" for earlier, later in graph.edges)
    return "\n".join(lines)


def dot(graph: Graph) -> str:
    """Return a graph in Graphviz's language; states with side effects have a double border."""
    lines = [f"digraph {json.dumps(graph.op_id)} {{", "  node [shape=box];"]
    for state_id in graph.order:
        border = ", peripheries=2" if _effectful(graph, state_id) else ""
        lines.append(f"  {json.dumps(state_id)} [label={json.dumps(short_state(state_id))}{border}];")
    lines.extend(f"  {json.dumps(earlier)} -> {json.dumps(later)};" for earlier, later in graph.edges)
    return "\n".join([*lines, "}"])


def _effectful(graph: Graph, state_id: str) -> bool:
    return graph.states[state_id].meta.side_effects.value == "apply_side_effect"
