"""Replays in forked copies of one process that has already loaded the plan.

No replay sees what another has left in modules. The process is killed with all its copies, and reaped, before
anything else is done.
"""

from __future__ import annotations

import os
import signal
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import attrs
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from machine import canonical, codec
from machine.config import Target, UndeclaredIo
from machine.errors import Code, CodecError, RunError
from machine.io.running_programs import noted
from machine.recordings.bundle import export_to
from machine.recordings.replay import ReplayResult
from machine.recordings.schedule_orders import Order
from machine.stores.base import Store

_LONGEST_LINE = 1 << 30
_LAST_LINES = 5


@asynccontextmanager
async def in_copies(
    run_id: str, store: Store, target: Target, undeclared_io: UndeclaredIo | str | None
) -> AsyncIterator[Copies]:
    """Return a context in which replays run in copies of a process that has loaded the plan of `target`."""
    with tempfile.TemporaryDirectory(prefix="machine-schedules-") as place:
        bundle = Path(place, "bundle.run")
        export_to(run_id, bundle, store=store)
        job = {
            "bundle": str(bundle),
            "target": {"spec": target.spec, "directory": target.directory},
            "undeclared_io": undeclared_io,
        }
        copies = Copies(job, Path(place, "stderr"))
        try:
            yield copies
        finally:
            await copies.end()


@attrs.define
class Copies:
    """A process that runs each replay of a job in a copy of itself; it is started on first use."""

    job: dict[str, Any]
    stderr: Path
    _process: Process | None = None
    _noted: ExitStack = attrs.field(factory=ExitStack)
    _answers: BufferedByteReceiveStream | None = None

    async def replayed(self, order: Order) -> ReplayResult:
        """Replay in one order. Raises `RunError` when the process ends without an answer."""
        answer = await self._asked({"order": list(order)})
        if answer is None:
            told = self.stderr.read_text(errors="replace").strip().splitlines()[-_LAST_LINES:]
            raise RunError(
                "the process that replays ended by itself" + "".join(f" / {line}" for line in told),
                code=Code.HANDLER_ERROR,
            )
        if "problem" in answer:
            raise RunError(answer["problem"], code=Code.HANDLER_ERROR)
        if answer["last"]:
            await self.end()
        return codec.from_json(answer["result"], ReplayResult)

    async def end(self) -> None:
        """Kill the process and all its copies."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await process.aclose()
            self._noted.close()

    async def _asked(self, question: dict[str, Any]) -> dict[str, Any] | None:
        if self._process is None:
            await self._start()
            await self._say(self.job)
        await self._say(question)
        assert self._answers is not None
        try:
            line = await self._answers.receive_until(b"\n", _LONGEST_LINE)
            answer: dict[str, Any] = canonical.decode(line)
        except (anyio.IncompleteRead, anyio.EndOfStream, CodecError):
            return None
        return answer

    async def _start(self) -> None:
        with self.stderr.open("wb") as stderr, anyio.CancelScope(shield=True):
            # shielded: the process must not be lost between its start and whoever will kill it
            started = self._noted.enter_context(noted())
            process = self._process = await anyio.open_process(
                [sys.executable, "-m", "machine.recordings.fork_server_child"],
                stderr=stderr,
                env={**os.environ, **where_this_package_is()},
                start_new_session=True,
            )
            started(process.pid)
        assert process.stdout is not None
        self._answers = BufferedByteReceiveStream(process.stdout)

    async def _say(self, value: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(anyio.BrokenResourceError):  # the missing answer says so
            await self._process.stdin.send(canonical.encode(value) + b"\n")


def where_this_package_is() -> dict[str, str]:
    """Return the variables by which another process finds this package in any working directory."""
    root = str(Path(__file__).parents[2])
    if root in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), root]))}
