"""Labels of a run: names with values that its starter gives, to find it again. They are outside the digest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from machine import canonical
from machine.errors import Code, UsageError
from machine.secrets.known_values import Known
from machine.secrets.policy import SecretPolicy
from machine.secrets.redact import say
from machine.secrets.rules import rules_of

LABELS: Final = "labels"
"""Name in the info of `run_started` for the labels: a JSON object as text."""

MOST: Final = 64
"""The most labels of a run."""

_LONGEST: Final = 256
_NAME: Final = re.compile("[A-Za-z0-9_.:/-]{1,64}")
_NAMES: Final = "1 to 64 letters, digits, _ . : / and -"


def checked(labels: Any) -> dict[str, str]:
    """Return labels as a dictionary. Raises `UsageError` (`invalid_label`) for what no run may have."""
    if not isinstance(labels, Mapping):
        raise _refused(f"labels must be a mapping of text to text, not {type(labels).__name__}")
    if len(labels) > MOST:
        raise _refused(f"there are {len(labels)} labels: a run may have {MOST}")
    for name, value in labels.items():
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            raise _refused(f"{name!r} cannot name a label: it must be {_NAMES}")
        if not isinstance(value, str) or not 1 <= len(value) <= _LONGEST or not value.isprintable():
            raise _refused(
                f"label {name!r} must be 1 to {_LONGEST} printable characters, not {_shown(value)}",
                hint="a label is text; numbers are given as text too",
            )
    return {str(name): str(value) for name, value in labels.items()}


def _shown(value: Any) -> str:
    return f"{value!r}" if not isinstance(value, str) or len(value) <= _LONGEST else f"{len(value)}"


def info_of(labels: Mapping[str, str] | None, policy: SecretPolicy) -> dict[str, str]:
    """Return the info of a first event with these labels, in which placeholders stand for secrets.

    Raises `UsageError` (`invalid_label`).
    """
    known = {} if labels is None else checked(labels)
    if not known:
        return {}
    rules = rules_of(policy)
    return {LABELS: canonical.encode(say(rules, Known(), known)).decode()}


def parsed(texts: Iterable[str]) -> dict[str, str]:
    """Return the labels of arguments such as `team=search`. Raises `UsageError` (`invalid_label`)."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise _refused(f"the label {text!r} has no value", hint="give it as NAME=VALUE")
        if found.get(name, value) != value:
            raise _refused(f"label {name!r} is given twice, with different values")
        found[name] = value
    return checked(found)


def labels_kept(info: Mapping[str, Any]) -> dict[str, str]:
    """Return the part of the info of a first event that a fork of its run has too."""
    text = info.get(LABELS)
    return {LABELS: text} if isinstance(text, str) else {}


def labels_in(text: object) -> dict[str, str]:
    """Return the labels in the info of a first event, which may hold anything: none where they are damaged."""
    if not isinstance(text, str):
        return {}
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    sound = isinstance(found, dict) and all(isinstance(value, str) for value in found.values())
    return found if sound else {}


def _refused(problem: str, hint: str | None = None) -> UsageError:
    return UsageError(problem, code=Code.INVALID_LABEL, hint=hint)
