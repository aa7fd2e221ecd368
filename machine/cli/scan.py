"""`scan`: search for secrets in runs, bundles and other files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from machine.cli import error_report
from machine.cli.command_session import Injected, Quiet, Session, names_bundle, names_directory
from machine.cli.error_report import Exit
from machine.cli.many_recorded_runs import Every
from machine.cli.output import clean
from machine.cli.progress import counting
from machine.engine.scan import Seen, leaks_in_file, leaks_in_run
from machine.engine.scan_file import Leak
from machine.errors import Code, MachineError, NotFoundError, UsageError
from machine.recordings.bundle import open_bundle
from machine.recordings.bundle_line_reader import is_bundle
from machine.secrets.store_key import MOST_BYTES, holds_key
from machine.stores.base import Store

_MOST_TOLD: Final = 10_000
"""The most findings that are listed; further ones are counted."""

_PAGE: Final = 1000
STORE_KEY: Final = "store_key"
"""The rule by which a key file is found."""


_ADVICE: Final = {
    "key": "never share a key file, and replace one that was shared with `machine secrets rotate-key`",
    "run": "replace each credential where it was issued, because the recording still has it; in new runs "
    "SecretPolicy(names=[...]) redacts it, and allow=[...] declares that it is no secret",
    "file": "replace each credential where it was issued, and remove it from its file",
}


def scan(*what: str, every: Every = False, quiet: Quiet = False, session: Injected) -> int:
    """Find what looks like a secret in runs, bundles and other files.

    In a run, the events and everything they name are searched, by the rules of its own configuration; in any
    other file, its bytes. Placeholders are not secrets, and sealed secrets are not opened. A secret itself is
    never printed: only its location, the rule that found it and its length.

    Exit code 1 means that something was found, 3 that a run or a bundle is damaged; all others are searched
    nevertheless. The key file of a store is found too, and the last line says what to do next.

    Parameters
    ----------
    what
        The runs, each by its id, the beginning of it, @last, or the path of a bundle; the path of any other
        file; or a directory: every file in it and below, except those of git.
    """
    if not what and not every:
        raise UsageError("name a run, a file or a directory", hint="--all takes every run of the store")
    with session.store_when_needed() as store:
        items = list(dict.fromkeys(_items(session, what, store, every=every)))
        report = _Report(session, many=len(items) != 1)
        with counting("scanning", sum(item.size for item in items), quiet=quiet or session.as_json) as step:
            for item in items:
                report.add(item, item.leaks(store, report.seen, step))
        return report.told()


_Step = Callable[[int], object]


@attrs.frozen
class _Item:
    """One item to search: a run of the store, a bundle, or another file."""

    name: str
    size: int
    """Size in events or bytes."""
    is_run: bool
    is_file: bool

    def leaks(self, store: Callable[[], Store], seen: Seen, step: _Step) -> Iterator[Leak]:
        """Yield the leaks in it."""
        if self.is_run:
            yield from leaks_in_run(self.name, store=store(), seen=seen, step=step)
        elif self.is_file:
            try:
                with Path(self.name).open("rb") as file:
                    if holds_key(Path(self.name).name, file.read(MOST_BYTES + 1)):
                        yield Leak(self.name, "offset 0", STORE_KEY, self.size)
                    file.seek(0)
                    for leak in leaks_in_file(file, step=step):
                        yield attrs.evolve(leak, where=self.name)
            except OSError as exc:
                raise UsageError(f"{self.name} cannot be read: {exc.strerror}") from None
        else:
            with open_bundle(self.name) as bundle:
                yield from leaks_in_run(bundle.run_id, store=bundle.store)
            step(self.size)


def _items(
    session: Session, names: Sequence[str], store: Callable[[], Store], *, every: bool
) -> Iterator[_Item]:
    """Yield the items that the names mean. Raises `UsageError`, `NotFoundError` or `BundleError`."""
    for name in names:
        if names_directory(name):
            yield from map(_file, _files_in(name))
        elif names_bundle(name):
            yield _file(name)
        else:
            run_id = session.run_id(store(), name)
            yield _Item(run_id, store().head_seq(run_id), is_run=True, is_file=False)
    if every:
        yield from _runs_of(store())


def _file(path: str) -> _Item:
    # anything else, such as a pipe, is refused when it is opened as a bundle
    is_file = Path(path).is_file() and not is_bundle(path)
    return _Item(path, Path(path).stat().st_size if Path(path).exists() else 0, is_run=False, is_file=is_file)


def _files_in(directory: str) -> Iterator[str]:
    for folder, inner, names in os.walk(directory):
        inner[:] = sorted(name for name in inner if name != ".git")
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield os.path.normpath(path)


def _runs_of(store: Store) -> Iterator[_Item]:
    page = store.list_runs(limit=_PAGE)
    if not page.rows:
        raise NotFoundError(f"there is no run in {store.url}", code=Code.RUN_NOT_FOUND)
    while True:
        yield from (_Item(row.run_id, row.head_seq, is_run=True, is_file=False) for row in page.rows)
        if page.cursor is None:
            return
        page = store.list_runs(limit=_PAGE, cursor=page.cursor)


@attrs.define
class _Report:
    """The findings, and the items that could not be read."""

    session: Session
    many: bool
    seen: Seen = attrs.field(factory=dict)
    scanned: int = 0
    found: list[tuple[_Item, Leak]] = attrs.field(factory=list)
    more: int = 0
    failed: list[tuple[_Item, MachineError]] = attrs.field(factory=list)

    def add(self, item: _Item, leaks: Iterator[Leak]) -> None:
        """Add the leaks of an item; an error in it is noted, or raised if it is the only item."""
        try:
            for leak in leaks:
                if len(self.found) < _MOST_TOLD:
                    self.found.append((item, leak))
                else:
                    self.more += 1
        except MachineError as exc:
            if not self.many:
                raise
            self.failed.append((item, exc))
        self.scanned += 1

    def told(self) -> int:
        """Print the report, and return the exit code."""
        if self.session.as_json:
            self.session.out.json(self._json())
        else:
            self._print()
        codes = [error_report.exit_of(exc) for _, exc in self.failed]
        return max([Exit.FAILED if self.found else Exit.OK, *codes])

    def _next(self) -> str | None:
        """Return the next step for the findings, or None without any."""
        kinds = [
            "key" if leak.rule == STORE_KEY else "file" if item.is_file else "run"
            for item, leak in self.found
        ]
        return "; ".join(text for kind, text in _ADVICE.items() if kind in kinds) or None

    def _json(self) -> dict[str, Any]:
        return {
            "scanned": self.scanned,
            "found": [{"in": item.name, **attrs.asdict(leak)} for item, leak in self.found],
            "more": self.more,
            "failed": [{"in": item.name, "error": error_report.as_json(exc)} for item, exc in self.failed],
            "next": self._next(),
        }

    def _print(self) -> None:
        session = self.session
        if self.found:
            rows = [self._row(item, leak) for item, leak in self.found]
            session.out.table(["WHERE", "RULE", "LENGTH", "PATH"], rows)
        for item, exc in self.failed:
            session.out.line(
                (f"error[{exc.code}]", "bold red"), f": {clean(f'{item.name}: {exc.message}')}", err=True
            )
        if self.more:
            session.note("note", f"{self.more:,} more were found")
        if not self.found:
            session.note("note", "nothing that looks like a secret was found")
        if self.many:
            session.note("scanned", f"{self.scanned:,}, of which {len(self.failed):,} could not be read")
        if (advice := self._next()) is not None:
            session.note("next", advice)

    def _row(self, item: _Item, leak: Leak) -> tuple[str, str, str, str]:
        where = f"{item.name} {leak.where}" if self.many and not item.is_file else leak.where
        path = leak.path if item.is_file or not leak.offset else f"{leak.path} at {leak.offset}"
        return clean(where), clean(leak.rule), f"{leak.length:>6}", clean(path)
