"""The cancel of a run as a message: who asked for it, and why."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from typing import Any, Final

from machine.errors import UsageError
from machine.events import CANCELLED_BY, REASON
from machine.secrets.known_values import Known
from machine.secrets.policy import SecretPolicy
from machine.secrets.redact import say
from machine.secrets.rules import rules_of
from machine.stores.base import Store

CANCEL: Final = "cancel"
"""The kind of message that asks a run to end cancelled."""

_LONGEST: Final = 1024


def cancel_message(reason: str | None, by: str | None) -> dict[str, str]:
    """Return the data of a message that asks for a cancel. Raises `UsageError`."""
    given = {REASON: reason, CANCELLED_BY: by if by is not None else user_here()}
    for what, text in (("the reason", reason), ("by", by)):
        if text is not None and not (
            isinstance(text, str) and 1 <= len(text) <= _LONGEST and text.isprintable()
        ):
            raise UsageError(f"{what} is a text of 1 to {_LONGEST} printable characters")
    return {name: text for name, text in given.items() if text is not None}


def without_secrets(message: Mapping[str, str], policy: SecretPolicy) -> dict[str, str]:
    """Return a message with placeholders for the secrets in it: nobody reads it back."""
    said: dict[str, str] = say(rules_of(policy), Known(), dict(message))
    return said


def cancelled_for(store: Store, run_id: str) -> dict[str, str]:
    """Return who asked first for the cancel of a run, and why, as the info of its last event."""
    messages = store.inbox(run_id) if store.run_exists(run_id) else []
    first: Any = next((message.data for message in messages if message.kind == CANCEL), None)
    said = first if isinstance(first, Mapping) else {}
    found = {name: said.get(name) for name in (REASON, CANCELLED_BY)}
    return {name: text for name, text in found.items() if isinstance(text, str)}


def user_here() -> str | None:
    """Return the name of the user who runs this process, None where it has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # the last two before Python 3.13
        return None
