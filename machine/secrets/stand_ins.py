"""Stand-ins: invented values that a handler gets in place of secrets, live and in a replay."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, unquote

from machine import canonical
from machine.errors import Code, OtherIoError, UsageError
from machine.secrets.encodings import forms_of, is_plain
from machine.secrets.names import Strength
from machine.secrets.policy import SecretPolicy, joined
from machine.secrets.rules import rules_of
from machine.secrets.text_swap import Swap

_LEAST: Final = 4
_HINT: Final = "give an invented value of the same form in SecretPolicy(stand_ins=...)"


class StandIns:
    """The stand-ins that an attempt was given, and the true values that each stands for."""

    def __init__(self) -> None:
        self._true: dict[str, list[str]] = {}

    def learn(self, stood_in: Mapping[str, str | list[str]]) -> None:
        """Remember the true values of stand-ins: a list of texts each, in seals of earlier versions one text."""
        for stand_in, true in stood_in.items():
            known = self._true.setdefault(stand_in, [])
            known += [text for text in ([true] if isinstance(true, str) else true) if text not in known]

    def sent(
        self, texts: Iterable[str], elsewhere: Iterable[str], namespace: str, raw: bytes
    ) -> tuple[bytes, bool, OtherIoError | None]:
        """Return the request that leaves the process, whether it holds one of `texts`, and its refusal or None.

        `elsewhere` are all stand-ins of the run, whichever attempt got them.
        """
        swap = Swap({text: self._true.get(text, [text])[0] for text in texts})
        sent = swap.request(namespace, canonical.decode(raw))
        refusal = None
        if any(len(self._true.get(text, ())) > 1 for text in swap.used):
            refusal = _ambiguous()
        elif not swap.used.isdisjoint(elsewhere) and not swap.used <= self._true.keys():
            refusal = _not_given()
        return (canonical.encode(sent) if swap.used else raw), bool(swap.used), refusal

    def echoed(self, document: Any, stood_in: Mapping[str, list[str]]) -> Any:
        """Return an answer with stand-ins for the true values that it repeats, in any encoding."""
        texts = {
            true: stand_in
            for known in (self._true, stood_in)
            for stand_in, values in known.items()
            for true in values
            if not is_plain(true)  # which could be any word of the answer
        }
        return Swap(texts).document(document) if texts else document


def _ambiguous() -> OtherIoError:
    # logs hold these messages, and a replay compares them: never reword
    return OtherIoError(
        "the request holds a stand-in that stands for more than one secret",
        code=Code.AMBIGUOUS_SECRET,
        hint="ask for each in a state of its own, or under names of their own, each with its stand-in",
    )


def _not_given() -> OtherIoError:
    return OtherIoError(
        "the request holds the stand-in of a secret that this state has not read",
        code=Code.SECRET_NOT_READ,
        hint="read it here, with io.secret or the call that gave it: a run may be resumed in any state",
    )


def put_in(
    stand_ins: Mapping[str, str], document: Any, *, name: str | None = None
) -> tuple[Any, dict[str, list[str]]]:
    """Return an answer with stand-ins for the fields they are given for, and what each stands for.

    `stand_ins` are by field name: members of JSON, of JSON in a text, and of forms; `name` is that of a secret
    whose answer this is.
    """
    stood_in: dict[str, list[str]] = {}
    if not stand_ins:
        return document, stood_in

    def stand(field: str, true: str) -> str:
        known = stood_in.setdefault(stand_ins[field], [])
        if true not in known:
            known.append(true)
        return stand_ins[field]

    def in_text(text: str) -> str:
        for field in stand_ins:
            if field not in text:
                continue

            def member(found: re.Match[str], field: str = field) -> str:
                return found[1] + json.dumps(stand(field, json.loads(found[2], strict=False)))

            def pair(found: re.Match[str], field: str = field) -> str:
                return found[1] + quote(stand(field, unquote(found[2])))

            quoted = re.escape(json.dumps(field))
            text = re.sub(rf'({quoted}\s*:\s*)("(?:[^"\\]|\\.)*+")', member, text)
            text = re.sub(rf"((?:^|&){re.escape(field)}=)([^&\s]+)", pair, text)
        return text

    def put(value: Any, field: str | None) -> Any:
        if isinstance(value, str):
            return stand(field, value) if field is not None and field in stand_ins else in_text(value)
        if isinstance(value, dict):
            return {key: put(item, key) for key, item in value.items()}
        if isinstance(value, list):
            return [put(item, None) for item in value]
        return value

    if name is not None and name in stand_ins and isinstance(document.get("value"), str):
        return {"value": stand(name, document["value"])}, stood_in
    return put(document, None), stood_in


def refuse_revealing(stood_in: Mapping[str, list[str]], stand_ins: Iterable[str], secret: str | None) -> None:
    """Raise `OtherIoError` (`secret_stand_in`) when a stand-in reveals a part of its true value.

    It is also raised when one of `stand_ins` reveals a part of `secret`, which has no stand-in.
    """
    pairs = [(stand_in, true, True) for stand_in, values in stood_in.items() for true in values]
    if secret is not None:
        pairs += [(stand_in, secret, False) for stand_in in stand_ins]
    if any(_reveals(stand_in, true, own=own) for stand_in, true, own in pairs):
        raise OtherIoError(
            "the policy gives a secret itself as its stand-in", code=Code.SECRET_STAND_IN, hint=_HINT
        )


def refuse_stand_ins(policy: SecretPolicy) -> None:
    """Raise `UsageError` (`secret_stand_in`) when a stand-in reveals a part of a secret of the environment.

    The stand-ins are stored in clear, in the manifest of the run.
    """
    for name, stand_in in policy.stand_ins:
        for variable, true, own in _secrets_of_environment(policy, name):
            if _reveals(stand_in, true, own=own):
                raise UsageError(
                    f"the stand-in for {name!r} tells the value of the environment variable {variable}",
                    code=Code.SECRET_STAND_IN,
                    details={"name": name, "variable": variable},
                    hint=_HINT,
                )


def _secrets_of_environment(policy: SecretPolicy, name: str) -> Iterator[tuple[str, str, bool]]:
    """Yield variables whose names are secret, their values, and whether they are what `name` stands for."""
    rules = rules_of(policy)
    named = {joined(other) for other, _ in policy.stand_ins}
    for variable, value in os.environ.items():
        own = joined(variable) == joined(name)
        if value and (
            own or joined(variable) in named or rules.field(variable) in {Strength.OWN, Strength.EXACT}
        ):
            yield variable, value, own


def _reveals(stand_in: str, true: str, *, own: bool) -> bool:
    if stand_in == true:
        return True
    if own and min(len(true), len(stand_in)) >= _LEAST and (true in stand_in or stand_in in true):
        return True
    if is_plain(true) or is_plain(stand_in):
        return False
    return stand_in in true or any(form in stand_in for form in forms_of(true).all())
