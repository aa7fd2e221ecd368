"""Options of golden runs, from the command line and from the marker of a test.

Every pytest session with the plugin loads this module, so it imports only pytest. It uses plain dataclasses
where the rest of the package uses attrs, which a suite without golden tests need not load.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import pytest

MARKER: Final = (
    "golden(path=None, max_age=None, status=None, live_ignore=(), allow=()): options of a golden run: its file, "
    "relative to the test's; the age at which it fails ('30d'); the status it ends with when that is not "
    "completed; JSON Pointers into the context that --golden=verify-live does not compare; what its handlers may "
    "do without io"
)

_UNITS: Final = {"w": 7 * 86400, "d": 86400, "h": 3600, "m": 60, "s": 1}
_AGE: Final = re.compile(r"(\d{1,9})([smhdw])")
_STATUSES: Final = ("completed", "failed")
_FALSE: Final = frozenset({"", "0", "false", "no"})


class Mode(StrEnum):
    """The action for the golden of a check."""

    REPLAY = "replay"
    RECORD_MISSING = "record-missing"
    RECORD = "record"
    VERIFY_LIVE = "verify-live"


class How(StrEnum):
    """The way in which a golden that fails is recorded again."""

    LIVE = "update"
    """All calls are made again."""
    FACTS = "accept"
    """All calls are answered from the golden, and nothing is sent."""
    CHANGED = "update-changed"
    """Calls that are as they were are answered from the golden, and only the others are made."""


@dataclass(frozen=True)
class Options:
    """The options of the command line, checked as a whole; `max_age` is in seconds."""

    mode: Mode
    how: How
    update: bool
    review: bool
    max_age: int | None
    orphans: str
    allow_deletion: bool

    @property
    def writes(self) -> bool:
        """True when goldens may be recorded."""
        return self.update or self.review or self.mode in {Mode.RECORD, Mode.RECORD_MISSING}


@dataclass(frozen=True)
class Asked:
    """The options of a test's markers; `max_age` is in seconds."""

    path: str | None = None
    max_age: int | None = None
    status: str | None = None
    live_ignore: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()


def parsed_age(text: str) -> int:
    """Return an age such as `30d` in seconds; the units are s, m, h, d and w. Raises `ValueError`."""
    found = _AGE.fullmatch(text) if isinstance(text, str) else None
    if found is None or not int(found[1]):
        raise ValueError(f"{text!r} is not an age: a whole number and one of s, m, h, d, w, as in 30d")
    return int(found[1]) * _UNITS[found[2]]


def age_text(seconds: int) -> str:
    """Return an age in the largest unit of which it has at least one, rounded down."""
    unit = next((unit for unit, size in _UNITS.items() if seconds >= size), "s")
    return f"{seconds // _UNITS[unit]}{unit}"


def _age(text: str) -> int:
    try:
        return parsed_age(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def add_options(parser: pytest.Parser) -> None:
    """Add the options of golden runs to pytest."""
    group = parser.getgroup("golden", "golden runs (machine)")
    group.addoption(
        "--golden",
        choices=[mode.value for mode in Mode],  # plain text: execnet sends it to the workers of pytest-xdist
        default=Mode.REPLAY.value,
        metavar="MODE",
        help=f"what to do with golden runs: {', '.join(Mode)}. The default replays, and a missing golden fails",
    )
    group.addoption(
        "--golden-update",
        action="store_true",
        help="record again, for real, the goldens that fail, where the run ends as it should",
    )
    group.addoption(
        "--golden-accept",
        action="store_true",
        help="write anew the goldens that fail, with today's code on the recorded answers: no call is made, and "
        "nothing is sent. For changes in code that calls nothing",
    )
    group.addoption(
        "--golden-update-changed",
        action="store_true",
        help="as --golden-update, but make only the calls that have changed; the golden answers all others",
    )
    group.addoption(
        "--golden-review",
        action="store_true",
        help="show each change and ask before it is recorded as --golden-update does, or as --golden-accept or "
        "--golden-update-changed if that is given too",
    )
    group.addoption(
        "--golden-max-age",
        type=_age,
        metavar="AGE",
        help="fail goldens that were recorded longer ago: a number and one of s, m, h, d, w, as in 30d",
    )
    group.addoption(
        "--golden-orphans",
        choices=["fail", "warn", "ignore"],
        help="what to do about goldens that no test uses (default: fail when CI is set, else warn)",
    )
    group.addoption(
        "--golden-allow-deletion",
        action="store_true",
        help="delete goldens that no test uses, and only those",
    )


def options_of(config: pytest.Config) -> Options:
    """Return the options of the command line. Raises `pytest.UsageError` if they contradict each other."""
    get = config.getoption
    orphans = get("golden_orphans") or ("warn" if os.environ.get("CI", "").lower() in _FALSE else "fail")
    asked = [how for how in How if get(f"golden_{how.replace('-', '_')}")]
    review = get("golden_review")
    options = Options(
        mode=Mode(get("golden")),
        how=asked[0] if asked else How.LIVE,
        update=bool(asked) and not review,
        review=review,
        max_age=get("golden_max_age"),
        orphans=orphans,
        allow_deletion=get("golden_allow_deletion"),
    )
    if len(asked) > 1:
        names = " and ".join(f"--golden-{how}" for how in asked)
        raise pytest.UsageError(f"{names} record in different ways: give one of them")
    if How.LIVE in asked and options.review:
        raise pytest.UsageError("--golden-update does not ask and --golden-review does: give one of them")
    accepts = f"--golden-{options.how}" if options.update else "--golden-review"
    if (options.update or options.review) and options.mode is not Mode.REPLAY:
        raise pytest.UsageError(f"{accepts} replays first: it does not go with --golden={options.mode}")
    if options.allow_deletion and options.orphans == "ignore":
        raise pytest.UsageError(
            "--golden-allow-deletion needs orphans to be looked for: not --golden-orphans=ignore"
        )
    if options.review:
        _check_can_ask(config)
    return options


def _check_can_ask(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or config.getoption("dist", "no") != "no":
        raise pytest.UsageError("--golden-review asks on the terminal, which workers do not have: add -n 0")
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend(in_=True)  # pytest itself resumes it before anything is collected
    if not sys.stdin.isatty():
        raise pytest.UsageError(
            "--golden-review asks on the terminal, and stdin is none: use --golden-update, and look at the "
            "changes with your version control"
        )


def asked_of(item: pytest.Item) -> Asked:
    """Return the options of a test's markers, the nearest first. Raises `ValueError` for an invalid one."""
    said: dict[str, Any] = {}
    for mark in item.iter_markers("golden"):
        unknown = sorted(set(mark.kwargs) - set(Asked.__dataclass_fields__))
        if mark.args or unknown:
            wrong = ", ".join(unknown) or "arguments without a name"
            raise ValueError(
                f"@pytest.mark.golden takes {', '.join(Asked.__dataclass_fields__)}, not {wrong}"
            )
        said = {**mark.kwargs, **said}
    path, age, status, ignored = (said.get(name) for name in ("path", "max_age", "status", "live_ignore"))
    allowed = said.get("allow", ())
    if path is not None and not str(path).endswith(".run"):
        raise ValueError(f"the path of a golden ends in .run, not as {str(path)!r} does")
    if status is not None and status not in _STATUSES:
        raise ValueError(f"the status of a golden is one of {', '.join(_STATUSES)}, not {status!r}")
    if isinstance(ignored, str) or not all(
        isinstance(each, str) and each[:1] == "/" for each in ignored or ()
    ):
        raise ValueError(f"live_ignore lists JSON Pointers, as in ['/taken_at'], not {ignored!r}")
    if allowed:
        _check_allowed(allowed)
    return Asked(
        path=None if path is None else str(path),
        max_age=None if age is None else parsed_age(age),
        status=status,
        live_ignore=tuple(ignored or ()),
        # whoever may connect may send anything over that connection
        allow=(*allowed, *(("socket.send",) if "socket.connect" in allowed else ())),
    )


def _check_allowed(allowed: Any) -> None:
    from machine.watch.audit_hook import ACTS  # noqa: PLC0415 - the same
    from machine.watch.entry_points import ENTRY_POINTS  # noqa: PLC0415 - the same
    from machine.watch.nondeterministic_calls import AMBIENT  # noqa: PLC0415 - only a test that names something needs the tables
    from machine.watch.open_handles import open_handles  # noqa: PLC0415 - the same

    known = {*ACTS, *(ambient.name for ambient in AMBIENT), *(point.name for point in ENTRY_POINTS)}
    known.update(handle.name for handle in open_handles().values())
    each = [allowed] if isinstance(allowed, str) else list(allowed)
    wrong = [name for name in each if name not in known]
    if isinstance(allowed, str) or wrong:
        raise ValueError(
            f"allow lists what is looked for, by its name in docs/undeclared-io.md, as in "
            f"['open', 'tempfile.mkstemp'], not {allowed if isinstance(allowed, str) else wrong[0]!r}"
        )
