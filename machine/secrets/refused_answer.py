"""Refusal of secrets in an answer that somebody gives to a run: it is stored and shown as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from machine import canonical
from machine.errors import Code, ContextError, UsageError
from machine.secrets.both_formats import Format1Adapter, OfRun
from machine.secrets.known_values import Known
from machine.secrets.policy import SecretPolicy
from machine.secrets.rules import rules_of
from machine.secrets.unredacted_search import refused


def refuse_in_answer(
    answer: Mapping[str, Any], secrets: OfRun | None = None, *, policy: SecretPolicy | None = None
) -> None:
    """Raise `UsageError` (`secret_in_answer`), with its path, when an answer holds a secret.

    `secrets` are those of the run, None for a signal that is addressed to no run, and for a run that has not begun:
    `policy` says then what a secret is.
    """
    path = _path(answer, secrets, policy or SecretPolicy())
    if path is not None:
        raise UsageError(
            f"an answer may hold no secret, and {path} is one",
            code=Code.SECRET_IN_ANSWER,
            details={"path": path},
            hint="nothing was written; give the name of the secret, and have the handler read it with io.secret",
        )


def _path(answer: Mapping[str, Any], secrets: OfRun | None, policy: SecretPolicy) -> str | None:
    encoded = {name: canonical.encode(value) for name, value in answer.items()}
    if isinstance(secrets, Format1Adapter):
        try:
            secrets.refuse_in_context(encoded)
        except ContextError as exc:
            return str((exc.info.details or {}).get("path", "it"))
        return None
    rules, known = (rules_of(policy), Known()) if secrets is None else (secrets.rules, secrets.known)
    for name, value in answer.items():
        if secrets is not None and secrets.reserved.holds(encoded[name]):
            return f"$.{name}"
        if (path := refused(rules, known, name, value)) is not None:
            return path
    return None
