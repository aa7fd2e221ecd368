"""Results of the functions of `machine` and of calls of `io`, in addition to the names of `machine` itself.

Each name is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from machine.lazy_loading import lazy_names

if TYPE_CHECKING:
    from machine.engine.answers import GivenAnswer as GivenAnswer
    from machine.engine.answers import SentSignal as SentSignal
    from machine.engine.dry_report import DryEffect as DryEffect
    from machine.engine.dry_report import DryNeed as DryNeed
    from machine.engine.dry_report import DryState as DryState
    from machine.engine.dry_run import DryRun as DryRun
    from machine.engine.open_wait_info import OpenWaitInfo as OpenWaitInfo
    from machine.engine.scan_file import Leak as Leak
    from machine.engine.work import WorkReporter as WorkReporter
    from machine.engine.work import WorkResult as WorkResult
    from machine.io.call_identity import IoResult as IoResult
    from machine.io.child_runs import ChildResult as ChildResult
    from machine.io.exec import ExecResult as ExecResult
    from machine.io.files import FileContent as FileContent
    from machine.io.waits import Approval as Approval
    from machine.plan import Graph as Graph
    from machine.recordings.blame import Blame as Blame
    from machine.recordings.bundle import Bundle as Bundle
    from machine.recordings.compare_with_code import ComparedState as ComparedState
    from machine.recordings.compare_with_code import CompareResult as CompareResult
    from machine.recordings.diff import RunDiff as RunDiff
    from machine.recordings.divergence import Divergence as Divergence
    from machine.recordings.fork import ForkedFact as ForkedFact
    from machine.recordings.fork import ForkResult as ForkResult
    from machine.recordings.output_reader import RunArtifact as RunArtifact
    from machine.recordings.schedules import Race as Race
    from machine.recordings.schedules import SchedulesResult as SchedulesResult
    from machine.recordings.stream_reader import StreamItem as StreamItem
    from machine.recordings.verify import VerifyResult as VerifyResult
    from machine.waits import ApprovalWait as ApprovalWait
    from machine.waits import ChildWait as ChildWait
    from machine.waits import EffectWait as EffectWait
    from machine.waits import PauseWait as PauseWait
    from machine.waits import PlanWait as PlanWait
    from machine.waits import SignalWait as SignalWait
    from machine.waits import TimerWait as TimerWait
    from machine.watch.watch import Undeclared as Undeclared

_HOMES: Final = {
    **dict.fromkeys(("DryEffect", "DryNeed", "DryState"), "machine.engine.dry_report"),
    "DryRun": "machine.engine.dry_run",
    **dict.fromkeys(("GivenAnswer", "SentSignal"), "machine.engine.answers"),
    "OpenWaitInfo": "machine.engine.open_wait_info",
    "Leak": "machine.engine.scan_file",
    **dict.fromkeys(
        ("ApprovalWait", "ChildWait", "EffectWait", "PauseWait", "PlanWait", "SignalWait", "TimerWait"),
        "machine.waits",
    ),
    "ChildResult": "machine.io.child_runs",
    "ExecResult": "machine.io.exec",
    "FileContent": "machine.io.files",
    "IoResult": "machine.io.call_identity",
    "Approval": "machine.io.waits",
    "Graph": "machine.plan",
    "Blame": "machine.recordings.blame",
    "Bundle": "machine.recordings.bundle",
    **dict.fromkeys(("CompareResult", "ComparedState"), "machine.recordings.compare_with_code"),
    "RunDiff": "machine.recordings.diff",
    "Divergence": "machine.recordings.divergence",
    **dict.fromkeys(("ForkResult", "ForkedFact"), "machine.recordings.fork"),
    **dict.fromkeys(("Race", "SchedulesResult"), "machine.recordings.schedules"),
    "RunArtifact": "machine.recordings.output_reader",
    "StreamItem": "machine.recordings.stream_reader",
    "VerifyResult": "machine.recordings.verify",
    **dict.fromkeys(("WorkReporter", "WorkResult"), "machine.engine.work"),
    "Undeclared": "machine.watch.watch",
}

__all__ = [*sorted(_HOMES)]  # noqa: PLE0604 - the table above is the one list of these names

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
