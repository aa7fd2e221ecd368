"""The sorted entries of a snapshot, which handlers in several threads share."""

from __future__ import annotations

from machine.kernel.snapshot_value import Value
from machine.kernel.sorted_entries import SortedEntries


class MadeMeanwhile(SortedEntries):
    """Entries that another thread makes right after the earlier ones were read for the first time."""

    @property
    def _earlier(self):
        given, self.__dict__["given"] = self.__dict__["given"], None
        return given

    @_earlier.setter
    def _earlier(self, value):
        self.__dict__["given"] = value


def test_entries_that_another_thread_makes_meanwhile_are_the_same():
    entries = MadeMeanwhile({"b": Value.of(b"1")}, {"a": Value.of(b"2")})
    assert list(entries.made(list)) == ["a", "b"]


def test_changes_of_entries_that_another_thread_makes_meanwhile_are_not_lost():
    after = MadeMeanwhile({"b": Value.of(b"1")}, {"a": Value.of(b"2")}).changed({"c": Value.of(b"3")})
    assert list(after.made(list)) == ["a", "b", "c"]
