"""The likely cause of a divergence, from the code then and now; it explains and never decides."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final

import attrs

from machine.config import BuildProvenance
from machine.engine.masked_source import literals, shown
from machine.engine.provenance import HandlerCode, code_of_states, provenance
from machine.plan import Graph
from machine.recordings.divergence import Cause, Divergence, DivergenceKind

UNDECLARED: Final = "what a handler does without io is in no recording, and a replay does not do it again"


_NOT_OPENED: Final = (
    "this replay has placeholders where secrets were, and the handler seems to compute from one (a signature, "
    "a claim of a token, its length)"
)


def explained(
    divergence: Divergence, graph: Graph, then: BuildProvenance | None, *, placeholders: bool = False
) -> Divergence:
    """Return a divergence with its likely cause.

    `then` is the build of the recording, None when it is unknown; `placeholders` is true when handlers were
    given placeholders instead of secrets. The inputs of a state have been compared by the time it diverges, so
    the search begins with its own code and goes back to what ran before it.
    """
    if divergence.kind is DivergenceKind.CORRUPT:
        cause, text = Cause.RECORDING_DAMAGED, "what is stored is not what was recorded; no code is to blame"
        return attrs.evolve(divergence, cause=cause, cause_text=text)
    if divergence.kind is DivergenceKind.PLAN_CHANGED:
        cause, text = Cause.PLAN_CHANGED, "states, edges or metadata of the plan are not those recorded"
        return attrs.evolve(divergence, cause=cause, cause_text=text)
    state_id = divergence.state_id
    undeclared = divergence.kind is DivergenceKind.UNDECLARED_IO
    if then is None or state_id is None:
        text = UNDECLARED if undeclared else "the recording does not say which code it was made by"
        return attrs.evolve(divergence, cause=Cause.UNKNOWN, cause_text=text)
    now = code_of_states(graph)
    changed = [
        other for other in graph.order if other not in now or then.code.get(other) != now[other].fingerprint
    ]
    if state_id in changed:
        return attrs.evolve(
            divergence,
            cause=Cause.STATE_CODE_CHANGED,
            cause_text=f"the code of {state_id} has changed since the recording",
            code=_lines(state_id, then, now),
        )
    place = graph.order.index(state_id) if state_id in graph.order else 0
    upstream = [other for other in changed if graph.order.index(other) < place]
    if upstream:
        return attrs.evolve(
            divergence,
            cause=Cause.UPSTREAM_CODE_CHANGED,
            cause_text=f"the code of {', '.join(upstream)}, which ran before it, has changed",
            code=[line for other in upstream for line in _lines(other, then, now)],
        )
    if placeholders and not undeclared:
        return attrs.evolve(divergence, cause=Cause.SECRETS_NOT_OPENED, cause_text=_NOT_OPENED)
    if undeclared:
        return attrs.evolve(divergence, cause=Cause.NOTHING_CHANGED, cause_text=UNDECLARED)
    text = (
        f"the code of {state_id} has not changed: a constant, another module or a library has, "
        "or it is nondeterministic (time, randomness, the environment, set order, ... that did not come through io)"
    )
    if others := _other_builds(then, provenance(graph)):
        text += f"; what else is not as it was: {', '.join(others)}"
    return attrs.evolve(divergence, cause=Cause.NOTHING_CHANGED, cause_text=text)


def _other_builds(then: BuildProvenance, now: BuildProvenance) -> list[str]:
    """Return the differences of two builds as text, apart from the code of the states."""
    found = [
        f"{name} was {was}, is {is_now}"
        for name, was, is_now in (
            ("Python", then.python_version, now.python_version),
            ("the platform", then.platform, now.platform),
        )
        if was != is_now
    ]
    found += [
        f"{name} was {then.packages.get(name, 'not there')}, is {now.packages.get(name, 'not there')}"
        for name in sorted(then.packages.keys() | now.packages.keys())
        if then.packages.get(name) != now.packages.get(name)
    ]
    if then.lockfile_hash != now.lockfile_hash:
        found.append("the lock file")
    return found


def _lines(state_id: str, then: BuildProvenance, now: Mapping[str, HandlerCode]) -> list[str]:
    """Return the changed lines of a state's source as a unified diff without its header."""
    before = then.source.get(then.code.get(state_id, ""))
    if before is None or state_id not in now:
        return []
    after = now[state_id]
    known = literals(after.source)
    diff = difflib.unified_diff(before.splitlines(), after.kept.splitlines(), lineterm="", n=1)
    return [shown(line, known) for line in list(diff)[2:]]
