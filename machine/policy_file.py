"""The file form of a policy: TOML with a table `[[rule]]` for each rule."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

import attrs

from machine.did_you_mean import did_you_mean
from machine.policy import Policy, Rule, refused


def read_policy(file: str, data: bytes) -> Policy:
    """Return the policy in the bytes of a TOML file, named `file` in messages.

    Raises `ConfigError` (`invalid_policy`).
    """
    try:
        found: Mapping[str, Any] = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise refused(f"the policy {file} is not TOML: {exc}") from None
    hint = "it has tables [[rule]]"
    if unknown := [name for name in found if name != "rule"]:
        raise refused(f"the policy {file} has {unknown[0]!r}, which is nothing of a policy", hint)
    rules = found.get("rule", [])
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules) or not rules:
        raise refused(f"the policy {file} has no rules", hint)
    return Policy(tuple(_rule(file, rule) for rule in rules))


def _rule(file: str, said: Mapping[str, Any]) -> Rule:
    fields = [field.name for field in attrs.fields(Rule)]
    for name in said:
        if name not in fields:
            hint = did_you_mean(name, fields) or f"its fields are {', '.join(fields)}"
            raise refused(f"a rule of the policy {file} has the field {name!r}", hint)
    for needed in ("name", "verdict"):
        if needed not in said:
            raise refused(f"a rule of the policy {file} has no {needed}")
    return Rule(**said)
