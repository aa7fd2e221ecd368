"""The `rec` of a handler that is a plain function: its methods are called plainly, from the handler's thread."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from anyio import from_thread
from anyio.lowlevel import EventLoopToken

from machine.engine.output_writer import comes_in_pieces, pieces_from
from machine.engine.recorder import Recorder
from machine.io.blocking_io import Blocking
from machine.io.lent_work import LentWork, handed_to_loop


class BlockingRecorder(Blocking):
    """A recorder for one worker thread, in which an iterator that makes an artifact runs too."""

    def __init__(self, target: Recorder, token: EventLoopToken, lent: LentWork | None = None) -> None:
        super().__init__(target, token, lent)
        self._recorder = target

    def artifact(self, name: str, data: Any, kind: str = "output") -> str:
        """Store an artifact of the run under a name and return its id (see `Recorder.artifact`)."""
        recorder, loop = self._recorder, self._on_loop
        writer = loop(functools.partial(recorder.begin_artifact, name, kind))
        if comes_in_pieces(data):
            for piece in pieces_from(data):
                loop(functools.partial(writer.feed, piece))
            form = "pieces"
        else:
            form = loop(functools.partial(writer.value, data))
        with handed_to_loop(self._lent):
            return from_thread.run(functools.partial(recorder.end_artifact, writer, form), token=self._token)

    def _on_loop(self, call: Callable[[], Any]) -> Any:
        with handed_to_loop(self._lent):
            return from_thread.run_sync(call, token=self._token)
