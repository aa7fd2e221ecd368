"""The secrets that one run knows: their values, their placeholders, and the replacement of each by the other.

The values live as long as the process that drives the run and are never stored. A replay has no key and no values:
it takes the placeholders from the recording.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from blake3 import blake3

from machine import canonical
from machine.errors import Code, CodecError, ContextError, ErrorInfo, StateError
from machine.events import FactRecorded
from machine.secrets.format_1.encodings import cores, encoded, spans
from machine.secrets.format_1.placeholder import has_placeholder, placeholder_text, safe_name
from machine.secrets.format_1.redact import Hide, Redactor
from machine.secrets.format_1.restore import Value, restored
from machine.secrets.format_1.rules import rules_of
from machine.secrets.policy import SecretPolicy, path_text
from machine.secrets.refused_bytes import secret_in_bytes
from machine.secrets.stored_call import Answer, Asked, said_error

SECRET: Final = "secret"  # noqa: S105 - the name of a namespace
"""The namespace of `io.secret`."""

SHORTEST_READ: Final = 4
"""The length from which a value that `io.secret` read is replaced wherever it appears."""

SHORTEST_FOUND: Final = 8
"""The same for a value that was found by its name or its shape: a shorter one may be an ordinary word."""

_BLIND: Final = frozenset({"clock.now", "clock.sleep", "random.bytes"})
"""Namespaces whose requests and answers hold no secrets."""

_NAME_ONLY: Final = "replay-machine 2026-01 the name of a secret"
_NOBODY: Final = "0" * 32
_SMALL: Final = 1024
_MOST_CLEAN: Final = 4096


class Format1RunSecrets:
    """The secrets of one run. `key` makes the hashes of its placeholders; without it they differ between objects.

    `refuses` says whether a secret in the context is refused: a replay asks its recording.
    """

    def __init__(
        self,
        policy: SecretPolicy,
        key: bytes | None = None,
        *,
        refuses: Callable[[], bool] = lambda: True,
    ) -> None:
        self.rules = rules_of(policy)
        self._key = key or os.urandom(32)
        self._refuses = refuses
        self._values: dict[tuple[str, str], Value | None] = {}
        self._forms: dict[str, str] = {}
        self._cores: dict[str, str] = {}
        self._needles: tuple[bytes, ...] = ()
        self._captured = False
        self._clean: set[bytes] = set()

    def asked(self, namespace: str, raw: bytes) -> Asked:
        """Return the stored form of a request."""
        data = self.request(namespace, raw)
        return Asked(data, data)

    def answer(self, fact: FactRecorded, request: Any, response: Any, *, sure: str | None = None) -> Answer:
        """Return the stored form of an answer; `sure` is the name that `io.secret` read it under."""
        if sure is not None:
            return Answer(self.read(sure, response["value"]).encode())
        data, gone = self.response(fact.namespace, request, canonical.encode(response))
        return Answer(data, gone=gone)

    def value(self, fact: FactRecorded, data: bytes, log: object) -> Any:
        """Return the payload of a fact for the handler: the stored one."""
        del log
        return canonical.decode_stored(fact.outcome.payload_id, data)  # type: ignore[union-attr]

    def refuse_in_key(self, what: str, key: str) -> None:
        """Do nothing: `refuse_in_log` searches everything before it is stored."""

    def refuse_in_bytes(self, what: str, data: bytes) -> None:
        """Raise `StateError` (`secret_in_event`) when bytes that would be stored hold a known value."""
        if any(needle in data for needle in self._needles):
            raise secret_in_bytes(what)

    # -- on the way out ----------------------------------------------------------------------------------

    def request(self, namespace: str, data: bytes) -> bytes:
        """Return the canonical bytes of a request without its secrets, as they are recorded and compared."""
        if namespace in _BLIND or not self._may_hold(data):
            return data
        return self._redacted(Redactor(self.rules, self._hide_sent, self._hide_known, objects=True), data)

    def unknown(self, data: bytes) -> list[tuple[str, str]]:
        """Return the placeholders of a request whose values are not known here, by name and hash."""
        missing: list[tuple[str, str]] = []

        def find(name: str, mac: str) -> Value | None:
            value = self._values.get((name, mac))
            if value is None:
                missing.append((name, mac))
            return value

        if has_placeholder(data):
            restored(canonical.decode(data), find)
        return missing

    def restored(self, data: bytes) -> Any:
        """Return a request as it leaves the process, with the true value for every placeholder."""
        value = canonical.decode(data)
        if not has_placeholder(data):
            return value
        return restored(value, lambda name, mac: self._values.get((name, mac)))

    # -- on the way in -----------------------------------------------------------------------------------

    def response(
        self, namespace: str, request: Any, data: bytes, *, outside: bool = True
    ) -> tuple[bytes, bool]:
        """Return the canonical bytes of a response without its secrets, as the handler gets them.

        `outside` is false for a response that the handler itself gives. The second result says whether the response
        held a secret that only this process knows now.
        """
        if namespace in _BLIND:
            return data, False
        variable = request.get("name") if namespace == "env" and isinstance(request, dict) else None
        named = variable if isinstance(variable, str) and self.rules.is_secret(variable) else None
        if named is None and not self._may_hold(data):
            return data, False
        value = canonical.decode(data)
        if outside and has_placeholder(data):
            # a placeholder from outside stands for nothing: no value may take its place when it is sent back
            value = restored(value, self._disowned)
        self._captured = False
        redactor = Redactor(self.rules, self._hide_received, self._hide_known, known_first=True)
        if named is not None and isinstance(value, dict) and isinstance(value.get("value"), str):
            value["value"] = redactor.named(named, value["value"])
        return self._redacted(redactor, canonical.encode(value)), self._captured

    def _redacted(self, redactor: Redactor, data: bytes) -> bytes:
        """Walk until nothing new is learned: a secret that is found at the end may be at the beginning too."""
        known = -1
        while known != len(self._forms):
            known = len(self._forms)
            data = canonical.encode(redactor.value(canonical.decode(data)))
        return data

    def _disowned(self, name: str, mac: str) -> Value | None:
        return Value(placeholder_text(name, _NOBODY)) if (name, mac) in self._values else None

    def read(self, name: str, value: str, mac: str | None = None) -> str:
        """Learn the value that `io.secret` read and return the text of its placeholder.

        `mac` is the hash in its placeholder since an earlier process read it.
        """
        made = self._placeholder(name, value)
        self._learn(name, value, least=SHORTEST_READ)
        if mac is not None:
            self._values[name, mac] = Value(value)
        return made

    # -- what a handler says -----------------------------------------------------------------------------

    def said(self, value: Any) -> Any:
        """Return a JSON value from a handler (the payload of a domain event) without its secrets."""
        data = canonical.encode(value)
        return self._saying().value(canonical.decode(data)) if self._may_hold(data) else value

    def text(self, text: str) -> str:
        """Return a text of an error or a trace without secrets in it."""
        return self._saying().text(text)

    def error(self, info: ErrorInfo) -> ErrorInfo:
        """Return an error without secrets in it."""
        return said_error(info, self.text, self.said)

    def _saying(self) -> Redactor:
        return Redactor(self.rules, _named, lambda text: self._replace(text, _named))

    # -- what is refused ---------------------------------------------------------------------------------

    def refuse_in_context(self, staged: Mapping[str, bytes | None]) -> None:
        """Raise `ContextError` (`secret_in_context`) when a write holds a secret or a placeholder."""
        if not self._refuses():
            return
        for key, data in staged.items():
            if data is None or not (self._may_hold_unseen(data) or self.rules.is_secret(key)):
                continue
            for path, _ in self._found({key: canonical.decode(data)}):
                raise ContextError(
                    f"the context may hold no secret, and {path} is one",
                    code=Code.SECRET_IN_CONTEXT,
                    details={"path": path},
                    hint="leave it out, read it where it is used, or list its name or path in secrets.allow",
                )

    @property
    def knows_some(self) -> bool:
        """True when the value of a secret is known, so that everything stored has to be searched for it."""
        return bool(self._needles)

    def refuse_in_log(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Raise `StateError` (`secret_in_event`) when bytes that are about to be stored hold a known value.

        Each item is a name for the error, and the bytes. It is the last check: secrets were replaced before.
        """
        for what, data in items:
            if any(needle in data for needle in self._needles) and (path := self._path_of_known(data)):
                raise StateError(
                    f"{what} would hold a secret at {path}, and was not written",
                    code=Code.SECRET_IN_EVENT,
                    details={"path": path},
                    hint="no secret may be part of a fact key, an idempotency key or the plan",
                )

    def _path_of_known(self, data: bytes) -> str | None:
        try:
            value = canonical.decode(data)
        except CodecError:
            value = data.decode("latin-1")
        return next((path for path, known in self._found(value) if known), None)

    def _found(self, value: Any) -> list[tuple[str, bool]]:
        """Return the paths of the secrets and placeholders in a JSON value, in the order of the walk.

        The second is true for a value that is known to be secret, whatever its name. The value is modified.
        """
        seen: list[tuple[str, bool]] = []

        def note(name: str, text: str, *, known: bool = False) -> str:
            del text
            seen.append((path_text(redactor.at), known))
            return placeholder_text(safe_name(name), _NOBODY)

        def known(text: str) -> str:
            return self._replace(text, lambda name, item: note(name, item, known=True))

        redactor = Redactor(
            self.rules,
            note,
            known,
            known_first=True,
            met=lambda: seen.append((path_text(redactor.at), False)),
        )
        redactor.value(value)
        return seen

    # -- what is known -----------------------------------------------------------------------------------

    def _may_hold(self, data: bytes) -> bool:
        """Say whether encoded JSON could hold a secret: a cheap test before the search."""
        if data in self._clean:
            return False
        if self._may_hold_unseen(data):
            return True
        if len(data) <= _SMALL and len(self._clean) < _MOST_CLEAN:
            self._clean.add(data)
        return False

    def _may_hold_unseen(self, data: bytes) -> bool:
        """Say the same without a cache, for bytes that hardly occur twice."""
        if self._needles and any(needle in data for needle in self._needles):
            return True
        return self.rules.may_hold(data)

    def _placeholder(self, name: str, text: str, *, base: str | None = None, verbatim: bool = False) -> str:
        name = safe_name(name)
        mac = _mac_of_name(name) if self.rules.is_stable(base or name) else self._mac(name, text)
        value = Value(text, verbatim)
        held = self._values.setdefault((name, mac), value)
        if held is not None and held != value:
            self._values[name, mac] = None  # two values of one stable name: nobody knows which is meant
        return placeholder_text(name, mac)

    def _mac(self, name: str, text: str) -> str:
        data = b"%b\0%b" % (name.encode(), text.encode("utf-8", "surrogatepass"))
        return blake3(data, key=self._key).hexdigest(length=16)

    def _learn(self, name: str, text: str, *, least: int) -> None:
        if len(text) < least or "$secret" in text:
            return
        for index, form in enumerate(encoded(text)):
            if len(form) >= least and form not in self._forms:
                self._forms[form] = name if index == 0 else f"{name}.{index}"
                self._placeholder(self._forms[form], form, base=name, verbatim=index > 0)
        for core in cores(text):
            self._cores.setdefault(core, f"{name}.base64")
        self._forms = dict(sorted(self._forms.items(), key=lambda item: -len(item[0])))
        texts = (*self._forms, *self._cores)
        self._needles = tuple(
            dict.fromkeys(canonical.encode(text)[1:-1] for text in texts if _is_well_formed(text))
        )
        self._clean.clear()

    def _hide_sent(self, name: str, text: str) -> str:
        made = self._placeholder(name, text)
        self._learn(name, text, least=SHORTEST_FOUND)
        return made

    def _hide_received(self, name: str, text: str) -> str:
        self._captured = True
        return self._hide_sent(name, text)

    def _hide_known(self, text: str) -> str:
        return self._replace(text, self._form)

    def _form(self, name: str, text: str) -> str:
        index = name.rpartition(".")[2]
        return self._placeholder(name, text, base=name.removesuffix(f".{index}"), verbatim=index.isdigit())

    def _replace(self, text: str, hide: Hide) -> str:
        """Replace every form of a known value in a text."""
        pieces = [text]
        for form, name in self._forms.items():
            if form in text:
                pieces = _split(pieces, form, hide(name, form))
        for core, name in self._cores.items():
            if core in text:
                pieces = _split_runs(pieces, core, lambda run, name=name: hide(name, run))  # type: ignore[misc]
        return "".join(pieces)


def _is_well_formed(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _mac_of_name(name: str) -> str:
    return blake3(name.encode(), derive_key_context=_NAME_ONLY).hexdigest(length=16)


def _named(name: str, text: str) -> str:
    """Return a placeholder whose hash depends on the name alone, so that a replay without a key has the same."""
    del text
    name = safe_name(name)
    return placeholder_text(name, _mac_of_name(name))


def _split(pieces: list[str], form: str, shown: str) -> list[str]:
    """Replace a form in every other piece; the pieces between are placeholders and stay."""
    after: list[str] = []
    for index, piece in enumerate(pieces):
        if index % 2:
            after.append(piece)
            continue
        for part in piece.split(form):
            after += part, shown
        after.pop()
    return after


def _split_runs(pieces: list[str], core: str, show: Callable[[str], str]) -> list[str]:
    after: list[str] = []
    for index, piece in enumerate(pieces):
        if index % 2:
            after.append(piece)
            continue
        at = 0
        for begin, end in spans(piece, core):
            after += piece[at:begin], show(piece[begin:end])
            at = end
        after.append(piece[at:])
    return after
