"""The JSON object of a result: its fields by name, and nested results by their own `to_json`."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import attrs


def fields_json(result: Any, *names: str) -> dict[str, Any]:
    """Return a result as a JSON object with these fields and properties; by default with all its fields."""
    chosen = names or [field.name for field in attrs.fields(type(result))]
    return {name: _json(getattr(result, name)) for name in chosen}


def _json(value: Any) -> Any:
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, StrEnum):
        return value.value
    return [_json(item) for item in value] if isinstance(value, list | tuple) else value
