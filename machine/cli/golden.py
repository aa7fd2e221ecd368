"""`golden reseal`: the way out after a merge of goldens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine.cli import error_report, many_recorded_runs, replay_test_goldens, worker_pool
from machine.cli.command_session import Injected, Jobs, Session
from machine.cli.error_report import Exit
from machine.cli.output import clean
from machine.cli.recorded_run_item import Item, Outcome, Replaying
from machine.cli.replay_compare_verify import tell_replay
from machine.errors import MachineError, UsageError
from machine.recordings.bundle_writer import write_bundle
from machine.recordings.replay import ReplayResult
from machine.recordings.reseal import resealed


def reseal(*paths: str, target: str | None = None, jobs: Jobs = None, session: Injected) -> int:
    """Compute the sums of merged goldens again, and replay them.

    A golden of version 2 has a sum for each block, and at its end the digest of the run and a hash of the file.
    After a merge, or an edit by hand, these do not fit. This command computes them again, and then replays the
    golden with today's code, without an external call: one that is not identical is put back as it was, and the
    exit code is not 0. Conflicts have to be resolved before: a file that still has a marker is refused.

    Parameters
    ----------
    paths
        The goldens, or folders: every bundle in them and below.
    target
        The plan to replay against. Otherwise the one that the golden was made with: the test that recorded it,
        which pytest runs, or the target of its run.
    """
    if not paths:
        raise UsageError(
            "name the goldens to reseal", hint="machine golden reseal fixtures does a whole folder"
        )
    folders = [many_recorded_runs.bundles_in(path) if Path(path).is_dir() else [path] for path in paths]
    work = _Work(session)
    work.seal([file for files in folders for file in files])
    try:
        work.replay(target, jobs)
    finally:  # Ctrl-C
        work.put_back()
    return work.told()


class _Work:
    """The files of one command: those that were written are put back unless they replay."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._items: list[Item] = []
        self._before: dict[str, bytes] = {}
        self._report: dict[str, list[Any]] = {"resealed": [], "unchanged": [], "failed": []}
        self._worst = int(Exit.OK)

    def seal(self, files: Sequence[str]) -> None:
        """Write each file anew, where that changes it."""
        for file in files:
            try:
                data = resealed(file)
                before = Path(file).read_bytes()
                if data != before:
                    write_bundle(file, [data])
                    self._before[file] = before
                self._items.append(Item(file, path=file))
            except MachineError as exc:
                self._fail(file, int(error_report.exit_of(exc)), error_report.as_json(exc))

    def replay(self, target: str | None, jobs: int | None) -> None:
        """Replay all of them."""
        tests = replay_test_goldens.of_tests(self._items) if target is None else {}
        look = Replaying(self._session, target, None)
        workers = min(jobs or worker_pool.cores(), len(self._items))
        for index, outcome in many_recorded_runs.looked_at(look, self._items, workers, tests):
            file = self._items[index].name
            if outcome.exit:
                self._refuse(file, outcome)
                continue
            word = "unchanged" if self._before.pop(file, None) is None else "resealed"
            self._report[word].append(file)
            if not self._session.as_json:
                self._session.out.line(f"{word}  {clean(file)}")

    def put_back(self) -> None:
        """Write the files that do not replay as they were."""
        for file, before in self._before.items():
            write_bundle(file, [before])
        self._before.clear()

    def told(self) -> int:
        """Print the report for programs, and return the exit code."""
        if self._session.as_json:
            self._session.out.json(self._report)
        return self._worst

    def _refuse(self, file: str, outcome: Outcome) -> None:
        error, result = outcome.error, outcome.result
        if error is None:
            assert isinstance(result, ReplayResult)
            error = {"code": "diverged", "message": "it does not replay", "result": result.to_json()}
        self._fail(file, outcome.exit, error)
        if outcome.error is None and not self._session.as_json and isinstance(result, ReplayResult):
            tell_replay(self._session, result)

    def _fail(self, file: str, code: int, error: Any) -> None:
        self._worst = max(self._worst, code)
        self._report["failed"].append({"file": file, "error": error})
        if self._session.as_json:
            return
        self._session.out.line(("failed", "bold red"), f"  {clean(file)}: left as it was")
        self._session.out.line(clean(f"  {error['message']}"))
        if error.get("hint"):
            self._session.out.line(clean(f"  hint: {error['hint']}"))
