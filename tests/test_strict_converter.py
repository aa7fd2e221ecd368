"""A value that is no object where a class is read is told in our words, whatever Python says of it."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import attrs
import pytest

from machine.codec import _converter as codec_converter
from machine.errors import ErrorInfo
from machine.strict_converter import problems_of, strict_converter


@attrs.frozen
class Needs:
    name: str
    size: int = 0


@attrs.frozen
class Optional:
    size: int = 0


@attrs.frozen
class Nothing:
    """A class without a field."""


@dataclasses.dataclass
class Data:
    size: int = 0


class Typed(typing.TypedDict, total=False):
    size: int


@attrs.frozen
class Inner:
    inner: Optional = Optional()


@attrs.frozen
class Refuses:
    size: int = 0

    def __attrs_post_init__(self) -> None:
        raise TypeError("argument of type 'int' is not iterable")


def problems(value: Any, kind: Any, converter: Any = None) -> list[str]:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever cattrs makes of it
        (converter or strict_converter()).structure(value, kind)
    return problems_of(caught.value)


@pytest.mark.parametrize("kind", [Needs, Optional, Nothing, Data, Typed, ErrorInfo])
@pytest.mark.parametrize(
    "value", [None, True, 5, 1.5, "size", b"size", [], ["size"], [["size", 1]], {1}, object()]
)
def test_what_is_no_object_is_named_by_its_type(kind: Any, value: Any) -> None:
    converter = codec_converter() if kind is ErrorInfo else None
    assert problems(value, kind, converter) == [f"expected object, got {type(value).__name__} @ $"]


def test_it_is_told_where_it_is() -> None:
    assert problems({"inner": 5}, Inner) == ["expected object, got int @ $.inner"]
    assert problems([{}, "x"], list[Optional]) == ["expected object, got str @ $[1]"]


def test_the_words_of_a_class_are_left_as_they_are() -> None:
    assert problems({}, Refuses) == ["argument of type 'int' is not iterable @ $"]
