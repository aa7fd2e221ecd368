"""A deterministic replay engine: record a run once, replay it anywhere, byte for byte.

A run is a pure function of its manifest, its plan and its facts. This module is the whole public face; each name
is loaded when it is first used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from machine import aio as aio
    from machine.catalogue import Catalogue as Catalogue
    from machine.config import BuildProvenance as BuildProvenance
    from machine.config import Durability as Durability
    from machine.config import EventProfile as EventProfile
    from machine.config import ExponentialBackoff as ExponentialBackoff
    from machine.config import FanOutJoin as FanOutJoin
    from machine.config import FixedBackoff as FixedBackoff
    from machine.config import IoMode as IoMode
    from machine.config import RetryPolicy as RetryPolicy
    from machine.config import RunConfig as RunConfig
    from machine.config import RunManifest as RunManifest
    from machine.config import UndeclaredIo as UndeclaredIo
    from machine.engine.dry_run import DryEffect as DryEffect
    from machine.engine.dry_run import DryRun as DryRun
    from machine.engine.dry_run import DryState as DryState
    from machine.engine.dry_run import MissedKey as MissedKey
    from machine.engine.recorder import Recorder as Recorder
    from machine.engine.reporter import Reporter as Reporter
    from machine.engine.run_id import new_run_id as new_run_id
    from machine.engine.runs import RunResult as RunResult
    from machine.engine.scan import Leak as Leak
    from machine.engine.scan import scan as scan
    from machine.errors import BundleError as BundleError
    from machine.errors import CanonicalError as CanonicalError
    from machine.errors import Code as Code
    from machine.errors import CodecError as CodecError
    from machine.errors import Concurrency as Concurrency
    from machine.errors import ConfigError as ConfigError
    from machine.errors import ContextError as ContextError
    from machine.errors import Corruption as Corruption
    from machine.errors import ErrorCategory as ErrorCategory
    from machine.errors import ErrorInfo as ErrorInfo
    from machine.errors import Failure as Failure
    from machine.errors import IdError as IdError
    from machine.errors import IoError as IoError
    from machine.errors import IoOther as IoOther
    from machine.errors import LogError as LogError
    from machine.errors import MachineError as MachineError
    from machine.errors import MissingFact as MissingFact
    from machine.errors import MissingFactKey as MissingFactKey
    from machine.errors import NotFound as NotFound
    from machine.errors import PlanError as PlanError
    from machine.errors import RateLimited as RateLimited
    from machine.errors import RunError as RunError
    from machine.errors import SealError as SealError
    from machine.errors import SecretKeyError as SecretKeyError
    from machine.errors import StateError as StateError
    from machine.errors import StoreError as StoreError
    from machine.errors import StoreOther as StoreOther
    from machine.errors import Transport as Transport
    from machine.errors import UsageError as UsageError
    from machine.events import DomainEvent as DomainEvent
    from machine.events import EffectWait as EffectWait
    from machine.events import PlanWait as PlanWait
    from machine.io.exec import ExecResult as ExecResult
    from machine.io.files import FileContent as FileContent
    from machine.io.http import HttpResponse as HttpResponse
    from machine.io.outcome import UncertainEffect as UncertainEffect
    from machine.io.provider import IoProvider as IoProvider
    from machine.io.provider import IoResult as IoResult
    from machine.io.undeclared import Undeclared as Undeclared
    from machine.kernel.context import Context as Context
    from machine.plan import Graph as Graph
    from machine.plan import Plan as Plan
    from machine.plan import State as State
    from machine.plan import StateMeta as StateMeta
    from machine.plan import StateOutcome as StateOutcome
    from machine.replay.blame import Blame as Blame
    from machine.replay.blame import blame as blame
    from machine.replay.bundle import Bundle as Bundle
    from machine.replay.bundle import export_run as export_run
    from machine.replay.bundle import import_bundle as import_bundle
    from machine.replay.bundle import open_bundle as open_bundle
    from machine.replay.compare import ComparedState as ComparedState
    from machine.replay.compare import CompareResult as CompareResult
    from machine.replay.diff import RunDiff as RunDiff
    from machine.replay.diff import diff_runs as diff_runs
    from machine.replay.divergence import Divergence as Divergence
    from machine.replay.fork import ForkedFact as ForkedFact
    from machine.replay.fork import ForkResult as ForkResult
    from machine.replay.reproduce import ReplayResult as ReplayResult
    from machine.replay.schedules import Race as Race
    from machine.replay.schedules import SchedulesResult as SchedulesResult
    from machine.replay.verify import VerifyResult as VerifyResult
    from machine.secrets.policy import SecretPolicy as SecretPolicy
    from machine.secrets.secret import Secret as Secret
    from machine.stores import Store as Store
    from machine.stores import open_store as open_store
    from machine.sync import cancel as cancel
    from machine.sync import compare as compare
    from machine.sync import dry_run as dry_run
    from machine.sync import fork as fork
    from machine.sync import replay as replay
    from machine.sync import resolve as resolve
    from machine.sync import resume as resume
    from machine.sync import run as run
    from machine.sync import schedules as schedules
    from machine.sync import verify as verify

_HOMES: Final = {
    "aio": "machine.aio",
    "Catalogue": "machine.catalogue",
    "Context": "machine.kernel.context",
    "Divergence": "machine.replay.divergence",
    **dict.fromkeys(("DomainEvent", "EffectWait", "PlanWait"), "machine.events"),
    "ExecResult": "machine.io.exec",
    "FileContent": "machine.io.files",
    "HttpResponse": "machine.io.http",
    "IoProvider": "machine.io.provider",
    "IoResult": "machine.io.provider",
    "Recorder": "machine.engine.recorder",
    "ReplayResult": "machine.replay.reproduce",
    "Reporter": "machine.engine.reporter",
    "RunResult": "machine.engine.runs",
    "Secret": "machine.secrets.secret",
    "SecretPolicy": "machine.secrets.policy",
    "UncertainEffect": "machine.io.outcome",
    "Undeclared": "machine.io.undeclared",
    "VerifyResult": "machine.replay.verify",
    "new_run_id": "machine.engine.run_id",
    **dict.fromkeys(("CompareResult", "ComparedState"), "machine.replay.compare"),
    **dict.fromkeys(("Bundle", "export_run", "import_bundle", "open_bundle"), "machine.replay.bundle"),
    **dict.fromkeys(("DryEffect", "DryRun", "DryState", "MissedKey"), "machine.engine.dry_run"),
    **dict.fromkeys(("ForkResult", "ForkedFact"), "machine.replay.fork"),
    **dict.fromkeys(("Leak", "scan"), "machine.engine.scan"),
    **dict.fromkeys(("Blame", "blame"), "machine.replay.blame"),
    **dict.fromkeys(("Race", "SchedulesResult"), "machine.replay.schedules"),
    **dict.fromkeys(("RunDiff", "diff_runs"), "machine.replay.diff"),
    **dict.fromkeys(("Store", "open_store"), "machine.stores"),
    **dict.fromkeys(("Graph", "Plan", "State", "StateMeta", "StateOutcome"), "machine.plan"),
    **dict.fromkeys(
        (
            "cancel",
            "compare",
            "dry_run",
            "fork",
            "replay",
            "resolve",
            "resume",
            "run",
            "schedules",
            "verify",
        ),
        "machine.sync",
    ),
    **dict.fromkeys(
        (
            "BuildProvenance",
            "Durability",
            "EventProfile",
            "ExponentialBackoff",
            "FanOutJoin",
            "FixedBackoff",
            "IoMode",
            "RetryPolicy",
            "RunConfig",
            "RunManifest",
            "UndeclaredIo",
        ),
        "machine.config",
    ),
    **dict.fromkeys(
        (
            "BundleError",
            "CanonicalError",
            "Code",
            "CodecError",
            "Concurrency",
            "ConfigError",
            "ContextError",
            "Corruption",
            "ErrorCategory",
            "ErrorInfo",
            "Failure",
            "IdError",
            "IoError",
            "IoOther",
            "LogError",
            "MachineError",
            "MissingFact",
            "MissingFactKey",
            "NotFound",
            "PlanError",
            "RateLimited",
            "RunError",
            "SealError",
            "SecretKeyError",
            "StateError",
            "StoreError",
            "StoreOther",
            "Transport",
            "UsageError",
        ),
        "machine.errors",
    ),
}

__all__ = [*sorted(_HOMES)]  # noqa: PLE0604 - the table above is the one list of public names


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(home)
    value = module if home == f"{__name__}.{name}" else getattr(module, name)
    globals()[name] = value
    return value


class _Face(ModuleType):
    """This module, in which `replay` is the function although a subpackage has the same name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and name in _HOMES and _HOMES[name] != f"{__name__}.{name}":
            return  # the import system binding a subpackage: the public name wins
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
