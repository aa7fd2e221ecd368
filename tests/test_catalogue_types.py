"""Type checkers know the payload classes: a stub states them, made from the table and compared with it.

`MACHINE_WRITE_STUB=1 pytest tests/test_catalogue_types.py` writes it anew.
"""

from __future__ import annotations

import os
import types
import typing
from pathlib import Path

import attrs
import pytest

import machine
from machine.catalogue import STANDARD, Count, Custom, Ratio, Time
from machine.catalogue.field_types import field_types

STUB = Path(machine.__file__).parent / "catalogue" / "__init__.pyi"
HEAD = """\
# The catalogue as type checkers see it. tests/test_catalogue_types.py makes it, and compares it with the table.
# ruff: noqa: PYI021
# fmt: off

from typing import Any, Literal

import attrs

from machine.catalogue.field_types import Count as Count
from machine.catalogue.field_types import Ratio as Ratio
from machine.catalogue.field_types import Time as Time
from machine.catalogue.markdown import render_markdown as render_markdown
from machine.catalogue.payload_parts import ErrorInfo as ErrorInfo
from machine.catalogue.payload_parts import ModelTelemetry as ModelTelemetry
from machine.catalogue.payload_parts import Parent as Parent
from machine.catalogue.payload_parts import Provenance as Provenance
from machine.catalogue.registry import Catalogue as Catalogue
from machine.catalogue.registry import Custom as Custom
from machine.catalogue.registry import Kind as Kind
from machine.catalogue.registry import Level as Level

STANDARD: Catalogue
"""


def hint_text(hint):
    """Return a type as it is written; an id may be given as plain text, which is checked when it is emitted."""
    if hint in (typing.Any, Count, Ratio, Time):
        return {typing.Any: "Any", Count: "Count", Ratio: "Ratio", Time: "Time"}[hint]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " | ".join("None" if arg is type(None) else hint_text(arg) for arg in args)
    if origin is typing.Literal:
        return f"Literal[{', '.join(f'{chr(34)}{arg}{chr(34)}' for arg in args)}]"
    if origin is not None:
        inner = ", ".join("..." if arg is ... else hint_text(arg) for arg in args)
        return f"{origin.__name__}[{inner}]"
    return "str" if issubclass(hint, str) else hint.__name__


def stub():
    parts = [HEAD]
    for kind in STANDARD:
        payload = kind.payload
        if payload.__module__ != "machine.catalogue":
            continue  # a class statement, which the stub imports
        lines = ["@attrs.frozen", f"class {payload.__name__}:", f'    """{payload.__doc__}"""\n']
        defaults = {field.name: field.default for field in attrs.fields(payload)}
        for name, hint in field_types(payload).items():
            assert defaults[name] in (attrs.NOTHING, None)
            lines.append(
                f"    {name}: {hint_text(hint)}{'' if defaults[name] is attrs.NOTHING else ' = None'}"
            )
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def test_the_stub_is_what_the_table_says():
    text = stub()
    if os.environ.get("MACHINE_WRITE_STUB"):
        STUB.write_text(text, encoding="utf-8")
    assert STUB.read_text(encoding="utf-8") == text


def test_the_stub_states_every_name():
    names = {kind.payload.__name__ for kind in STANDARD} | {"STANDARD", "Catalogue", "Kind", "Level"}
    text = STUB.read_text(encoding="utf-8")
    for name in names:
        assert f"class {name}:" in text or f" as {name}\n" in text or f"{name}: " in text


@pytest.mark.parametrize("payload", [Custom, *(kind.payload for kind in STANDARD)])
def test_every_payload_is_importable(payload):
    import machine.catalogue

    assert getattr(machine.catalogue, payload.__name__) is payload
