"""The value that `io.secret` returns, and the namespace of its calls."""

from __future__ import annotations

from typing import Final

SECRET: Final = "secret"  # noqa: S105 - the name of a namespace
"""The namespace of `io.secret`."""


class Secret(str):
    """A secret that `io.secret` read: the text of its value, whose `repr` does not show it.

    Use it as any string. In a replay without the key of the store it is the text of its placeholder.
    """

    __slots__ = ("name",)

    name: str
    """The name it was read under."""

    @classmethod
    def of(cls, name: str, value: str) -> Secret:
        """Return the secret of a name and a value."""
        made = cls(value)
        made.name = name
        return made

    def __repr__(self) -> str:
        return f"Secret({self.name!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return (Secret.of, (self.name, str(self)))
