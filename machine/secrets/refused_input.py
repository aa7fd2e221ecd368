"""Refusal of secrets in the input and the stand-ins of a run: the manifest holds them, and is stored as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from machine import canonical
from machine.errors import Code, UsageError
from machine.secrets.known_values import Known
from machine.secrets.policy import SecretPolicy
from machine.secrets.rules import rules_of
from machine.secrets.stand_ins import refuse_stand_ins
from machine.secrets.unredacted_search import refused


def refuse_in_input(policy: SecretPolicy, params: Mapping[str, Any]) -> None:
    """Raise `UsageError` (`secret_in_manifest`), with its path, when a run's input holds a secret.

    Raises `UsageError` (`secret_stand_in`) when a stand-in reveals a part of a secret of the environment.
    """
    refuse_stand_ins(policy)
    rules = rules_of(policy)
    if not params or not rules.may_hold(canonical.encode(dict(params))):
        return
    for key, value in params.items():
        path = refused(rules, Known(), key, value)
        if path is not None:
            raise UsageError(
                f"the input may hold no secret, and {path} is one",
                code=Code.SECRET_IN_MANIFEST,
                details={"path": path},
                hint="leave it out and read it with io.secret, or list its path in SecretPolicy(allow=[...])",
            )
