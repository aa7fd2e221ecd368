"""Progress of a run: a line for each attempt that ended and, on a terminal, a live status display.

All of it goes to stderr. A reader who goes away must not stop the run, so a failure to print ends the printing.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from machine.cli import interrupt
from machine.cli.output import STYLES, Cell, Output, clean, console_of, duration, on_terminal
from machine.cli.state_text import skipped_text
from machine.engine.reporter import Reporter, held_text, unused_text
from machine.errors import Code, ConcurrencyError, ErrorInfo
from machine.events import (
    Entry,
    FactRecorded,
    StateCompleted,
    StateEntered,
    StateFailed,
    StateSkipped,
    WaitBegun,
)
from machine.plan import Graph
from machine.waits import WAITED_FOR
from machine.watch.watch import Undeclared

_WORTH_SAYING = 1.0
"""A wait of fewer seconds than this is not announced in plain lines."""

_MOST_SHOWN = 6
"""The most states in progress that are shown; the rest are counted."""


@attrs.define
class _UnderWay:
    """The status of a state that has an attempt, or waits before the next one."""

    attempt: int = 0
    since_ms: int = 0
    facts: int = 0
    doing: str = "running"
    began: float = attrs.field(factory=time.monotonic)


class Progress(Reporter):
    """A reporter that counts entries and prints nothing."""

    in_any_thread = True

    def __init__(self) -> None:
        self.run_id: str | None = None
        self.recorded = 0
        self.forks = False
        """True for a new fork: the fork, and no crash, interrupted the attempts that are open."""
        self._failures: dict[str, tuple[ErrorInfo, str]] = {}
        self._position: dict[str, int] = {}
        self._under_way: dict[str, _UnderWay] = {}
        self._waits: dict[str, tuple[str, str]] = {}
        """The state and the object, in words, of each wait that is open, by its key."""
        self.undeclared_io: dict[tuple[str, str, int, str], Undeclared] = {}
        """I/O that bypassed `io`, once for each state and source line."""

    def starting(self, run_id: str, graph: Graph) -> None:
        """Note the run's id and the order of its states."""
        interrupt.arm()
        self.run_id = run_id
        self._position = {state_id: index for index, state_id in enumerate(graph.order, 1)}
        self.say("run", ((run_id, ""), (f"  {graph.op_id} version {graph.version}", "dim")))

    def leased(self, why: ConcurrencyError, seconds: float) -> None:
        """Report that the run waits for a lease to expire, and why."""
        self.warn(f"{why.message}; waiting {duration(seconds * 1000)} for that")

    def waiting(self, state_id: str, seconds: float) -> None:
        """Note a wait before the next attempt."""
        self._under_way[state_id] = _UnderWay(doing=f"retries in {duration(seconds * 1000)}")
        if seconds >= _WORTH_SAYING:
            took = duration(seconds * 1000)
            self.attempt_ended(state_id, "waiting", took, ("before the next attempt",))

    def undeclared(self, state_id: str, what: Undeclared) -> None:
        """Note I/O that bypasses `io`, and warn of it the first time."""
        place = (state_id, what.file, what.line, what.remedy)
        if place not in self.undeclared_io:
            self.undeclared_io[place] = what
            self.warn(f"{state_id} {what}")

    def held(self, state_id: str, seconds: float) -> None:
        """Warn of a handler that blocked the event loop."""
        self.warn(held_text(state_id, seconds))

    def unused_answers(self, names: Sequence[str], waits: Sequence[str]) -> None:
        """Warn of answers given in advance that no wait has taken."""
        self.warn(unused_text(names, waits))

    def undeclared_json(self) -> list[dict[str, Any]]:
        """Return the I/O that bypassed `io` as JSON."""
        return [{"state_id": place[0], **attrs.asdict(what)} for place, what in self.undeclared_io.items()]

    def warn(self, text: str) -> None:
        """Print a warning; this class prints none."""

    def entry(self, entry: Entry) -> None:
        """Count an entry, and report it when it ends an attempt."""
        self.recorded += 1
        if isinstance(entry.event, FactRecorded):
            self._waits.pop(entry.event.key, None)
        match entry.event:
            case StateEntered(state_id, attempt):
                self._under_way[state_id] = _UnderWay(attempt, entry.ts_millis)
            case FactRecorded(state_id=state_id) if state_id in self._under_way:
                self._under_way[state_id].facts += 1
            case WaitBegun(key=key, namespace=namespace, state_id=state_id):
                self._waits[key] = state_id, WAITED_FOR[namespace]
            case StateCompleted(state_id):
                self._tell(state_id, "completed", *self._ended(state_id, entry))
            case StateFailed(state_id, error):
                trace = entry.info.get("trace")
                self._failures[state_id] = error, trace if isinstance(trace, str) else ""
                if entry.event.suspended:
                    waits = [what for place, what in self._waits.values() if place == state_id]
                    text = f"for {', '.join(waits) or 'what it waited for before'}"
                    self._tell(state_id, "waits", *self._ended(state_id, entry), text)
                elif error.code in {Code.ATTEMPT_INTERRUPTED, Code.RUN_CANCELLED, Code.LIMIT_EXCEEDED}:
                    self._tell(state_id, "interrupted", *self._ended(state_id, entry), error.message)
                elif error.code == Code.ORPHAN_ATTEMPT_RECOVERED:
                    why = "the fork begins within" if self.forks else "a crash interrupted"
                    self._tell(
                        state_id, "made again" if self.forks else "recovered", "-", f"{why} its last attempt"
                    )
                else:
                    self._tell(
                        state_id, "failed", *self._ended(state_id, entry), f"{error.code}: {error.message}"
                    )
            case StateSkipped(state_id, reason):
                self._tell(state_id, "skipped", "-", skipped_text(reason))
            case _:
                return

    def trace_of(self, error: ErrorInfo) -> str:
        """Return the source location of an attempt's error, empty when no attempt has it."""
        return next((trace for failed, trace in self._failures.values() if failed == error), "")

    def say(self, name: str, cells: tuple[Cell, ...]) -> None:
        """Print a line that is not about a state; this class prints none."""

    def attempt_ended(self, state_id: str, status: str, took: str, notes: tuple[str, ...]) -> None:
        """Print the line of an attempt that ended; this class prints none."""

    def _ended(self, state_id: str, entry: Entry) -> tuple[str, ...]:
        attempt = self._under_way.get(state_id) or _UnderWay(since_ms=entry.ts_millis)
        notes = [duration(max(entry.ts_millis - attempt.since_ms, 0))]
        if attempt.facts:
            notes.append(f"{attempt.facts} fact{'s' if attempt.facts > 1 else ''}")
        if attempt.attempt:
            notes.append(f"attempt {attempt.attempt}")
        return tuple(notes)

    def _tell(self, state_id: str, status: str, took: str, *notes: str) -> None:
        self._under_way.pop(state_id, None)
        self.attempt_ended(state_id, status, took, notes)


class Lines(Progress):
    """A reporter that prints one short line for each attempt that ended."""

    def __init__(self) -> None:
        super().__init__()
        self._width = 0
        self._silent = False

    def starting(self, run_id: str, graph: Graph) -> None:
        """Find the width of the names."""
        self._width = max((len(_short_name(state_id)) for state_id in graph.order), default=0)
        super().starting(run_id, graph)

    def say(self, name: str, cells: tuple[Cell, ...]) -> None:
        """Print a line that is not about a state."""
        self.print((f"{name} ", "dim"), *cells)

    def warn(self, text: str) -> None:
        """Print a warning."""
        self.print(("warning: ", "yellow"), clean(text))

    def attempt_ended(self, state_id: str, status: str, took: str, notes: tuple[str, ...]) -> None:
        """Print the line of an attempt that ended."""
        total = len(self._position)
        count = f"{self._position.get(state_id, 0):>{len(str(total))}}/{total}"
        self.print(
            (f"  {count}  ", "dim"),
            f"{_short_name(state_id):<{self._width}}  ",
            (f"{status:<9}", STYLES.get(status, "yellow")),
            f"  {took:>5}",
            ("".join(f"  {clean(note)}" for note in notes), "dim" if status != "failed" else ""),
        )

    def print(self, *cells: Cell) -> None:
        """Print one line on stderr, as long as it has a reader."""
        if not self._silent:
            try:
                Output().line(*cells, err=True)
            except OSError:
                self._silent = True


class Moving(Lines):
    """A reporter that prints the same lines and, below them, a live line for each state in progress."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._spinner = Spinner("dots")
        self._live = Live(
            get_renderable=self._now,
            console=console,
            transient=True,
            refresh_per_second=12,
            redirect_stdout=False,
        )

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show the live line for the duration of the context."""
        with self._live:
            yield

    def print(self, *cells: Cell) -> None:
        """Print one line above the live one."""
        text = Text.assemble(*cells)
        text.rstrip()
        self._console.print(text, soft_wrap=True)

    def _now(self) -> Table | Text:
        # the display is refreshed by a thread of its own
        under_way = list(self._under_way.items())
        if not under_way:
            return self._awaited()
        table = Table.grid(padding=(0, 2, 0, 0))
        for state_id, attempt in under_way[:_MOST_SHOWN]:
            place = f"{self._position.get(state_id, 0)}/{len(self._position)}"
            facts = attempt.facts
            table.add_row(
                self._spinner,
                Text(place, style="dim", justify="right"),
                Text(_short_name(state_id)),
                Text(attempt.doing, style="cyan"),
                Text(duration((time.monotonic() - attempt.began) * 1000), justify="right"),
                Text(f"{facts} fact{'s' if facts > 1 else ''}" if facts else "", style="dim"),
            )
        if len(under_way) > _MOST_SHOWN:
            table.add_row("", "", Text(f"and {len(under_way) - _MOST_SHOWN} more", style="dim"))
        return table

    def _awaited(self) -> Table | Text:
        """Return the line of a run that waits for external input in this process."""
        waits = dict.fromkeys(
            f"{what} in {_short_name(state_id)}" for state_id, what in self._waits.copy().values()
        )
        if not waits:
            return Text("")
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_row(
            self._spinner,
            Text(f"waits for {', '.join(waits)}", style="yellow"),
            Text("Ctrl-C leaves it", "dim"),
        )
        return table


def _short_name(state_id: str) -> str:
    return state_id.partition(".")[2]


@contextlib.contextmanager
def watching(*, quiet: bool) -> Iterator[Progress]:
    """Yield the reporter that suits stderr, shown for the duration of the context."""
    with interrupt.disarmed_after():
        if quiet:
            yield Progress()
        elif on_terminal(sys.stderr):
            moving = Moving(console_of(sys.stderr))
            with moving.shown():
                yield moving
        else:
            yield Lines()


@contextlib.contextmanager
def watching_quietly(*, quiet: bool) -> Iterator[Progress]:
    """Yield the reporter of a replay: it shows only warnings and, on a terminal, a line on the current state.

    With `quiet` it shows nothing.
    """
    with interrupt.disarmed_after():
        if quiet:
            yield Progress()
        elif not on_terminal(sys.stderr):
            yield _Warnings()
        else:
            passing = _Passing(console_of(sys.stderr))
            with passing.shown():
                yield passing


@contextlib.contextmanager
def doing(what: str, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show the current activity in a live line, on a terminal; yield a function that changes it."""
    if quiet or not on_terminal(sys.stderr):
        yield lambda _: None
    else:
        console = console_of(sys.stderr)
        with console.status(clean(what)) as status:
            yield lambda text: status.update(clean(text))


@contextlib.contextmanager
def counting(what: str, total: int, *, quiet: bool) -> Iterator[Callable[[int], object]]:
    """Show on a terminal how much of `total` is done; yield a function that reports progress."""
    if quiet or not on_terminal(sys.stderr):
        yield lambda _: None
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415 - as below
    from rich.progress import Progress as Bars  # noqa: PLC0415 - only a user at a terminal pays for it

    console = console_of(sys.stderr)
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn()
    with Bars(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:
        task = bars.add_task(clean(what), total=total)
        yield lambda part: bars.advance(task, part)


class _Warnings(Lines):
    def say(self, name: str, cells: tuple[Cell, ...]) -> None:
        """Print nothing: only I/O that bypasses `io` deserves a line."""

    def attempt_ended(self, state_id: str, status: str, took: str, notes: tuple[str, ...]) -> None:
        """Print nothing, for the same reason."""


class _Passing(Moving):
    def print(self, *cells: Cell) -> None:
        """Print nothing: the live line is enough."""

    def warn(self, text: str) -> None:
        """Print a warning above the live line."""
        Moving.print(self, ("warning: ", "yellow"), clean(text))
