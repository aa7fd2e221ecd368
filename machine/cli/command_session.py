"""The common part of every command: shared options, and access to the store, the run and the plan."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import attrs
from cyclopts import Parameter
from cyclopts.validators import Number

from machine.cli.output import Output
from machine.default_store import default_url
from machine.errors import BundleError, Code, NotFoundError, RunError, UsageError

if TYPE_CHECKING:
    from machine.config import Target
    from machine.recordings.bundle import Bundle
    from machine.stores.base import Store
    from machine.target import Loaded

_LAST: Final = "@last"
_RUN_ID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_BUNDLE_ENDINGS: Final = (".run", ".run.gz", ".jsonl")


@attrs.frozen
class Session:
    """One invocation, with the options that all commands share."""

    store: str | None = None
    as_json: bool = False
    debug: bool = False
    out: Output = attrs.field(factory=Output)

    @property
    def store_url(self) -> str:
        """The store in use: `--store`, else `$MACHINE_STORE`, else the default."""
        return self.store or default_url()

    def open_store(self, *, create: bool = False) -> Store:
        """Return the store; only a command that starts or imports a run creates it. A bundle is read-only."""
        from machine.recordings.bundle_line_reader import is_bundle  # noqa: PLC0415 - --help must not pay for it
        from machine.stores import open_store  # noqa: PLC0415 - the same

        if is_bundle(self.store_url):
            if create:
                raise _read_only(self.store_url)
            return _opened(self.store_url).store
        return open_store(self.store_url, create=create)

    @contextlib.contextmanager
    def store_when_needed(self) -> Iterator[Callable[[], Store]]:
        """Yield a function that returns the store, which is opened when it is first called."""
        with contextlib.ExitStack() as stack:
            yield functools.cache(lambda: stack.enter_context(self.open_store()))

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[tuple[Store, str]]:
        """Yield the run that `name` means and a store to read it from, in memory for the path of a bundle.

        Raises what `run_id` raises, and `BundleError`.
        """
        if names_bundle(name):
            with _opened(name) as bundle:
                yield bundle.store, bundle.run_id
        else:
            with self.open_store() as store:
                yield store, self.run_id(store, name)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[tuple[Store, str]]:
        """Yield the run that `name` means and the store to change it in.

        Raises what `run_id` raises, and `BundleError` (`bundle_read_only`) for a bundle.
        """
        if names_bundle(name):
            raise _read_only(name)
        with self.open_to_write() as store:
            yield store, self.run_id(store, name)

    def open_to_write(self) -> Store:
        """Return a store to change runs in. Raises `BundleError` (`bundle_read_only`) for a bundle."""
        from machine.recordings.bundle_line_reader import is_bundle  # noqa: PLC0415 - --help must not pay for it

        if is_bundle(self.store_url):
            raise _read_only(self.store_url)
        return self.open_store()

    def run_id(self, store: Store, name: str) -> str:
        """Return the id of the run that `name` means: an id, a unique prefix of one, or `@last`.

        Raises `NotFoundError` (`run_not_found`) and `UsageError` (`run_ambiguous`).
        """
        if name == _LAST:
            rows = store.list_runs(limit=1).rows
            if not rows:
                raise NotFoundError(
                    f"there is no run in {store.url}",
                    code=Code.RUN_NOT_FOUND,
                    hint="machine run TARGET starts one",
                )
            from machine.engine.children import root_of  # noqa: PLC0415 - --help must not pay for it

            return root_of(store, rows[0].run_id, unfinished=False)  # and no child of it, which came later
        prefix = name.lower()
        found = store.find_runs(prefix, limit=4) if prefix else []
        if prefix in found:
            return prefix
        if not found:
            raise NotFoundError(
                f"there is no run {name!r} in {store.url}",
                code=Code.RUN_NOT_FOUND,
                details={"run": name, "store": store.url},
                hint="machine runs lists them",
            )
        if len(found) > 1:
            few = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")  # noqa: PLR2004
            raise UsageError(
                f"more than one run begins with {name!r}: {few}",
                code=Code.RUN_AMBIGUOUS,
                details={"run": name, "candidates": found},
                hint="give a longer prefix, or @last for the newest",
            )
        return found[0]

    def load(self, spec: str, directory: str | None = None) -> Loaded:
        """Return the plan that a target names; what its module prints goes to stderr."""
        from machine.target import load  # noqa: PLC0415 - --help must not pay for it

        with self.user_code():
            return load(spec, directory)

    def load_recorded(self, store: Store, run_id: str, override: str | None) -> Loaded:
        """Return the plan of a run: `override`, else the target recorded with it."""
        if override is not None:
            return self.load(override)
        target = self.recorded_target(store, run_id)
        return self.load(target.spec, target.directory)

    def recorded_target(self, store: Store, run_id: str) -> Target:
        """Return the origin of a run's plan. Raises `UsageError` when the run has none."""
        from machine.engine import run_reader  # noqa: PLC0415 - --help must not pay for it
        from machine.recordings.golden_origin import is_test  # noqa: PLC0415 - the same

        entry, _ = run_reader.first_entry(store, run_id)
        built = run_reader.provenance_of(store, entry)
        if built is None or built.target is None:
            raise UsageError(
                f"run {run_id} does not say where its plan came from",
                hint=_way_to_plan(self, store, run_id),
            )
        if is_test(built.target.spec):
            raise UsageError(
                f"run {run_id} was recorded by a test, {built.target.spec}, and only the test has its plan",
                hint="machine replay GOLDEN has pytest replay it; for a plan elsewhere: --target TARGET",
            )
        return built.target

    @contextlib.contextmanager
    def user_code(self, what: str = "", hint: str | None = None) -> Iterator[None]:
        """Redirect what user code prints to stderr: stdout holds only this command's data.

        A handler that exits the program ends only `what`, with `RunError` (`handler_error`).
        """
        with contextlib.redirect_stdout(sys.stderr):
            try:
                yield
            except SystemExit as exc:
                from machine.termination import Terminated  # noqa: PLC0415 - it needs asyncio, and --help does not

                if isinstance(exc, Terminated) or not what:
                    raise
                text = f"{what} stopped: a task of a handler called sys.exit({exc.code!r})"
                raise RunError(text, code=Code.HANDLER_ERROR, hint=hint) from exc

    def command(self, *words: str) -> str:
        """Return a command line to suggest, on the same store as this one."""
        store = ["--store", self.store] if self.store else []
        return shlex.join(["machine", *words, *store])

    def go_on(
        self, run: str, fork_at: int | None, target: str | None = None, limit: str | None = None
    ) -> None:
        """Print the command that continues from a failed state, or past a limit, if there is one.

        A run in a bundle is forked: only a store can say that a run has been retried.
        """
        if fork_at is not None:
            named = ["--target", target] if target else []
            more = [] if limit is None else ["--limit", f"{limit}=MORE"]
            words = "once it is repaired" if limit is None else "to go on"
            how = ["fork", run, "--at", str(fork_at)] if names_bundle(run) else ["retry", run]
            self.note(words, self.command(*how, *more, *named))

    def note(self, name: str, text: str) -> None:
        """Print one remark on stderr, unless the output is for a program."""
        if not self.as_json:
            self.out.line((f"{name}: ", "dim"), text, err=True)


def _way_to_plan(session: Session, store: Store, run_id: str) -> str:
    """Return the way to the plan of a run that does not say where it came from."""
    from machine.engine.children import root_of  # noqa: PLC0415 - --help must not pay for it

    root, named = root_of(store, run_id, unfinished=False), "name the plan with --target TARGET"
    if root == run_id:
        return named
    resumes, replays = session.command("resume", root), session.command("replay", "--deep", root)
    return f"it is a child of run {root}: {resumes} drives it, {replays} replays it; or {named}"


def names_run(name: str) -> bool:
    """Return whether a name is a run of a store: its id, or the last one."""
    return name == _LAST or _RUN_ID.fullmatch(name) is not None


def names_bundle(name: str) -> bool:
    """Return whether a run's name is the path of a bundle: by its form, or because such a file exists."""
    if names_run(name):
        return False
    looks_so = os.sep in name or "/" in name or name.endswith(_BUNDLE_ENDINGS)
    return looks_so or (os.path.exists(name) and not os.path.isdir(name))  # noqa: PTH110, PTH112 - cannot be a path


def names_directory(name: str) -> bool:
    """Return whether a run's name is a directory, which means the bundles in it."""
    if names_run(name):
        return False
    return os.path.isdir(name)  # noqa: PTH112 - False for what cannot be a path


def _opened(path: str) -> Bundle:
    from machine.recordings.bundle import open_bundle  # noqa: PLC0415 - --help must not pay for it

    return open_bundle(path)


def _read_only(path: str) -> BundleError:
    return BundleError(
        "a bundle is read-only: the changes of this command would be lost",
        path=path,
        code=Code.BUNDLE_READ_ONLY,
        hint=f"{shlex.join(['machine', 'import', path])} puts it into a store; then name the run by its id",
    )


Injected: TypeAlias = Annotated[Session, Parameter(parse=False)]
"""The annotation of a command's `session`: handed over, not parsed."""

Flag: TypeAlias = Annotated[bool, Parameter(negative="", show_default=False)]
"""The annotation of an option without a value."""

ConfigFile: TypeAlias = Annotated[Path | None, Parameter(help="A JSON file with the fields of RunConfig.")]
"""The annotation of the option for a configuration."""

Quiet: TypeAlias = Annotated[Flag, Parameter(help="Do not show progress.")]
"""The annotation of the option for less output."""

RunOrBundle: TypeAlias = Annotated[
    str, Parameter(help="The run: its id, the beginning of it, @last, or the path of a bundle.")
]
"""The annotation of a run that is only read."""

Jobs: TypeAlias = Annotated[
    int | None,
    Parameter(
        name=("--jobs", "-j"),
        validator=Number(gte=1),
        help="How many processes share the work when there is more than one run: as many as there are cores by "
        "default. With 1 it is done in this process.",
    ),
]
"""The annotation of the option for how many processes there may be."""

LimitOption: TypeAlias = Annotated[
    tuple[str, ...],
    Parameter(
        negative="",
        show_default=False,
        help="NAME=VALUE: end the run limit_exceeded once it has used so much: attempts, states, facts, "
        "wall_seconds, tokens or cost (US dollars); cleanup is the time in seconds that cleanup states have. "
        "May be given more than once.",
    ),
]
"""The annotation of the option for a limit of a run."""

Repeated: TypeAlias = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]
"""The annotation of an option that may be given more than once."""

JsonText: TypeAlias = Annotated[str, Parameter(allow_leading_hyphen=True, show_default=False)]
"""The annotation of an option that takes JSON, which may be a negative number."""
