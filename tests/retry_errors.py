"""Exceptions that the retry policies of tests name."""

from __future__ import annotations


class Flaky(Exception):  # noqa: N818 - a plain name for tests
    """A failure that may go away."""


class VeryFlaky(Flaky):
    """A kind of it."""


class Broken(Exception):  # noqa: N818 - a plain name for tests
    """A failure that stays."""
