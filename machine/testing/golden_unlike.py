"""The failure of a check, as a value: what is unlike its golden."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from machine.testing.golden_session import Ending


@attrs.frozen
class Unlike:
    """A failed check: a sentence, and the lines shown below it.

    `cause` is equal for all failures of one cause; `age` is that of the golden, in seconds. `alike` is equal
    for all failures that one report covers, empty for one that needs its own. `acceptable` is False when
    recording again would give the same, and `calls` is True for a call that the golden has no answer to. `whole`
    has the lines of every difference, and is empty unless the session reviews failures.
    """

    ending: Ending
    title: str
    lines: Sequence[str] = ()
    cause: str = ""
    age: int | None = None
    alike: str = ""
    acceptable: bool = True
    calls: bool = False
    whole: Sequence[str] = ()
