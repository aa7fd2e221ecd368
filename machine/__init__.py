"""A deterministic replay engine: record a run once, replay it anywhere, byte for byte.

A run is a pure function of its manifest, its plan and its facts. This module has the names that most programs need;
`machine.errors`, `machine.config`, `machine.results`, `machine.stores` and `machine.testing` have the others. Each
name is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from machine.lazy_loading import lazy_names

if TYPE_CHECKING:
    from machine import aio as aio
    from machine import config as config
    from machine import errors as errors
    from machine import results as results
    from machine import stores as stores
    from machine import testing as testing
    from machine.catalogue import Catalogue as Catalogue
    from machine.config import ExponentialBackoff as ExponentialBackoff
    from machine.config import FixedBackoff as FixedBackoff
    from machine.config import RetryPolicy as RetryPolicy
    from machine.config import RunConfig as RunConfig
    from machine.engine.new_run_id import new_run_id as new_run_id
    from machine.engine.recorder import Recorder as Recorder
    from machine.engine.reporter import Reporter as Reporter
    from machine.engine.run_result import RunResult as RunResult
    from machine.engine.scan import scan as scan
    from machine.errors import Failure as Failure
    from machine.errors import IoError as IoError
    from machine.errors import MachineError as MachineError
    from machine.events import DomainEvent as DomainEvent
    from machine.ignore import Ignore as Ignore
    from machine.io.decorated_step import step as step
    from machine.io.effect_resolution import UncertainEffect as UncertainEffect
    from machine.io.http_message import HttpResponse as HttpResponse
    from machine.io.provider import IoProvider as IoProvider
    from machine.io.transport import BaseTransport as BaseTransport
    from machine.io.transport import Transport as Transport
    from machine.io.waits import Approval as Approval
    from machine.kernel.context import Context as Context
    from machine.plan import Plan as Plan
    from machine.recordings.blame import blame as blame
    from machine.recordings.bundle import export_run as export_run
    from machine.recordings.bundle import import_bundle as import_bundle
    from machine.recordings.bundle import open_bundle as open_bundle
    from machine.recordings.diff import diff_runs as diff_runs
    from machine.recordings.output_reader import artifacts as artifacts
    from machine.recordings.output_reader import read_artifact as read_artifact
    from machine.recordings.replay import ReplayResult as ReplayResult
    from machine.recordings.stream_reader import read_stream as read_stream
    from machine.secrets.policy import SecretPolicy as SecretPolicy
    from machine.secrets.secret_value import Secret as Secret
    from machine.state import State as State
    from machine.state import StateMeta as StateMeta
    from machine.state import StateOutcome as StateOutcome
    from machine.stores import Store as Store
    from machine.stores import open_store as open_store
    from machine.sync import apply as apply
    from machine.sync import approve as approve
    from machine.sync import cancel as cancel
    from machine.sync import compare as compare
    from machine.sync import continue_run as continue_run
    from machine.sync import dry_run as dry_run
    from machine.sync import fork as fork
    from machine.sync import pause as pause
    from machine.sync import reject as reject
    from machine.sync import replay as replay
    from machine.sync import resolve as resolve
    from machine.sync import resume as resume
    from machine.sync import retry as retry
    from machine.sync import run as run
    from machine.sync import run_schedules as run_schedules
    from machine.sync import schedules as schedules
    from machine.sync import signal as signal
    from machine.sync import verify as verify
    from machine.sync import waiting as waiting
    from machine.sync import work as work

_MODULES: Final = ("aio", "config", "errors", "results", "stores", "testing")

_HOMES: Final = {
    **{name: f"machine.{name}" for name in _MODULES},
    "Catalogue": "machine.catalogue",
    **dict.fromkeys(("ExponentialBackoff", "FixedBackoff", "RetryPolicy", "RunConfig"), "machine.config"),
    "Recorder": "machine.engine.recorder",
    "Reporter": "machine.engine.reporter",
    "new_run_id": "machine.engine.new_run_id",
    "RunResult": "machine.engine.run_result",
    "scan": "machine.engine.scan",
    **dict.fromkeys(("Failure", "IoError", "MachineError"), "machine.errors"),
    "DomainEvent": "machine.events",
    "Ignore": "machine.ignore",
    "step": "machine.io.decorated_step",
    "UncertainEffect": "machine.io.effect_resolution",
    "HttpResponse": "machine.io.http_message",
    "IoProvider": "machine.io.provider",
    **dict.fromkeys(("BaseTransport", "Transport"), "machine.io.transport"),
    "Approval": "machine.io.waits",
    "Context": "machine.kernel.context",
    "Plan": "machine.plan",
    "blame": "machine.recordings.blame",
    **dict.fromkeys(("export_run", "import_bundle", "open_bundle"), "machine.recordings.bundle"),
    "diff_runs": "machine.recordings.diff",
    "ReplayResult": "machine.recordings.replay",
    **dict.fromkeys(("artifacts", "read_artifact"), "machine.recordings.output_reader"),
    "read_stream": "machine.recordings.stream_reader",
    "SecretPolicy": "machine.secrets.policy",
    "Secret": "machine.secrets.secret_value",
    **dict.fromkeys(("State", "StateMeta", "StateOutcome"), "machine.state"),
    **dict.fromkeys(("Store", "open_store"), "machine.stores"),
    **dict.fromkeys(
        (
            *(
                "apply",
                "approve",
                "cancel",
                "compare",
                "continue_run",
                "dry_run",
                "fork",
                "pause",
                "reject",
                "replay",
                "resolve",
                "resume",
                "run",
            ),
            *("retry", "run_schedules", "schedules", "signal", "verify", "waiting", "work"),
        ),
        "machine.sync",
    ),
}


_MOVED: Final = {
    "config": "BuildProvenance Durability EventProfile FanOutJoin IoMode RunManifest UndeclaredIo",
    "errors": (
        "BundleError CanonicalError Code CodecError ConfigError ContextError ErrorCategory ErrorInfo IdError "
        "LogError PlanError RunError SealError SecretKeyError StateError StoreError UsageError"
    ),
    "results": (
        "Blame Bundle CompareResult ComparedState Divergence DryEffect DryRun DryState EffectWait ExecResult "
        "FileContent ForkResult ForkedFact Graph IoResult Leak PlanWait Race RunDiff "
        "SchedulesResult Undeclared VerifyResult"
    ),
}
"""The former names of this module, each with the module that has it now."""

_RENAMED: Final = {
    "Concurrency": "machine.errors.ConcurrencyError",
    "Corruption": "machine.errors.CorruptionError",
    "IoOther": "machine.errors.OtherIoError",
    "MissingFact": "machine.errors.MissingFactError",
    "MissingFactKey": "machine.errors.MissingFactKeyError",
    "NotFound": "machine.errors.NotFoundError",
    "RateLimited": "machine.errors.RateLimitedError",
    "StoreOther": "machine.errors.OtherStoreError",
}

__all__ = [*sorted({*_HOMES} - {*_MODULES} | {"aio"})]  # noqa: PLE0604 - the table above is the one list of public names

__getattr__, __dir__ = lazy_names(
    __name__,
    _HOMES,
    {name: f"machine.{home}.{name}" for home, names in _MOVED.items() for name in names.split()} | _RENAMED,
)
