"""What the tests of the pure part share: hypothesis strategies for its values, and a run without an engine."""

from __future__ import annotations

import attrs
from hypothesis import settings
from hypothesis import strategies as st

from machine import codec
from machine.canonical import artifact_id
from machine.config import (
    BuildProvenance,
    EventProfile,
    ExponentialBackoff,
    FixedBackoff,
    RetryPolicy,
    RunConfig,
    RunManifest,
    Target,
)
from machine.errors import ErrorCategory, ErrorInfo
from machine.events import (
    CleanupBegun,
    DomainEventRecorded,
    EffectIntended,
    FactError,
    FactRecorded,
    FactValue,
    LimitReached,
    RetryScheduled,
    RunCompleted,
    RunResumed,
    RunStarted,
    RunSuspended,
    StateCompleted,
    StateEntered,
    StateFailed,
    StateSkipped,
    WaitBegun,
    seal,
)
from machine.ids import OpId, Tag
from machine.kernel.decide import decide
from machine.kernel.decisions import (
    BeginCleanup,
    CompleteRun,
    Done,
    EnterState,
    RecoverOrphan,
    ScheduleRetry,
    SkipState,
    StartRun,
)
from machine.kernel.history import History
from machine.kernel.state_history import failed_and_skipped
from machine.plan import Plan
from machine.waits import (
    WAIT_KINDS,
    EffectWait,
    PlanWait,
    SecretWait,
)

FAST = settings(deadline=None, derandomize=True, max_examples=60)
"""The same examples every time, however busy the machine is."""

RUN_ID = "01932d4e-7c1a-7b3f-9a41-3f0c5f1a2b3c"
OTHER_RUN_ID = "01932d4e-7c1a-7b3f-9a41-000000000000"

# -- JSON ----------------------------------------------------------------------------------------------------

LARGEST_INT = 2**53 - 1
NASTY_TEXT = st.sampled_from(
    [
        ',"info":{',
        '","info":{"run_id":"',
        '{"event":',
        '"},"seq":1}',
        '\\",\\"info\\":{',
        "\\",
        '\\"',
        "\x00\x1f\x7f\n",
        "\u2028\ue000\uffff\U0001f600",
        "@type",
    ]
)
TEXT = st.text(max_size=12) | NASTY_TEXT
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-LARGEST_INT, LARGEST_INT)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([2.0**53, 2.0**60, -1e20, 1e21, 1e300, 0.5, 1.0])
    | TEXT
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=4)

# -- ids and values ------------------------------------------------------------------------------------------

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True)
TAGS = st.from_regex(r"[a-z0-9_.:-]{1,6}", fullmatch=True)
STATE_IDS = st.builds("{}.{}.{}".format, NAMES, NAMES, NAMES)
HASHES = st.binary(max_size=2).map(artifact_id)
SMALL = st.integers(0, 1000)
SECONDS = st.floats(0, 1000) | st.integers(0, 1000)

ERRORS = st.builds(
    ErrorInfo,
    code=NAMES,
    category=st.sampled_from(ErrorCategory),
    retryable=st.booleans(),
    message=TEXT,
    details=st.none() | OBJECTS,
)
OUTCOMES = st.builds(FactValue, HASHES) | st.builds(FactError, NAMES, ERRORS)

EVENTS_BY_KIND = {
    RunStarted: st.builds(RunStarted, NAMES, HASHES, HASHES, HASHES),
    StateEntered: st.builds(StateEntered, STATE_IDS, SMALL, HASHES),
    StateCompleted: st.builds(
        StateCompleted,
        STATE_IDS,
        HASHES,
        st.none() | st.lists(TEXT, max_size=3).map(tuple),
        st.none() | st.lists(STATE_IDS, max_size=2).map(tuple),
    ),
    StateSkipped: st.builds(StateSkipped, STATE_IDS, TEXT),
    StateFailed: st.builds(StateFailed, STATE_IDS, ERRORS, st.none() | HASHES),
    RetryScheduled: st.builds(RetryScheduled, STATE_IDS, SMALL, SMALL),
    FactRecorded: st.builds(FactRecorded, TEXT, NAMES, HASHES, OUTCOMES, STATE_IDS, SMALL, st.none() | SMALL),
    EffectIntended: st.builds(EffectIntended, TEXT, HASHES, TEXT, STATE_IDS, SMALL),
    WaitBegun: st.builds(WaitBegun, TEXT, NAMES, HASHES, STATE_IDS, SMALL),
    LimitReached: st.builds(LimitReached, NAMES, TEXT),
    CleanupBegun: st.builds(CleanupBegun, NAMES, HASHES, st.none() | ERRORS),
    RunCompleted: st.builds(
        RunCompleted, NAMES, st.none() | HASHES, st.none() | ERRORS, skipped=st.none() | SMALL
    ),
    RunSuspended: st.builds(
        RunSuspended,
        st.lists(
            st.one_of(
                st.builds(EffectWait, TEXT, NAMES),
                st.builds(PlanWait, HASHES),
                st.builds(SecretWait),
                *(st.builds(kind, TEXT, STATE_IDS, st.none() | SMALL) for kind in WAIT_KINDS.values()),
            ),
            max_size=3,
        ).map(tuple),
    ),
    RunResumed: st.builds(RunResumed, NAMES, st.none() | HASHES, st.sampled_from([None, True])),
    DomainEventRecorded: st.builds(
        DomainEventRecorded,
        NAMES,
        STATE_IDS,
        SMALL,
        payload=st.none() | OBJECTS,
        payload_ref=st.none() | HASHES,
    ),
}
EVENTS = st.one_of(*EVENTS_BY_KIND.values())

BACKOFFS = st.builds(FixedBackoff, SECONDS) | st.builds(ExponentialBackoff, SECONDS, SECONDS)
RETRY_POLICIES = st.builds(RetryPolicy, st.integers(1, 5), BACKOFFS)
EVENT_PROFILES = st.builds(EventProfile, st.sampled_from(["minimal", "normal", "verbose"])) | st.builds(
    EventProfile, st.just("custom"), name=TEXT, keep=st.lists(TEXT, max_size=3)
)
CONFIGS = st.builds(
    RunConfig,
    io_mode=st.sampled_from(["live", "replay"]),
    retry_policy=RETRY_POLICIES,
    event_profile=EVENT_PROFILES,
    skip_tags=st.lists(TAGS, max_size=3),
    durability=st.sampled_from(["effects", "states", "facts"]),
    replay_missing_fact_retryable=st.booleans(),
    exec_allow=st.lists(TEXT.map("/{}".format), max_size=3),
    undeclared_io=st.sampled_from(["error", "warn", "allow"]),
)
MANIFESTS = st.builds(
    RunManifest, op_id=NAMES.map(OpId), op_version=TEXT, input_params=OBJECTS, run_config=CONFIGS
)
PROVENANCES = st.builds(
    BuildProvenance,
    python_version=TEXT,
    platform=TEXT,
    packages=st.dictionaries(TEXT, TEXT, max_size=3),
    code=st.dictionaries(TEXT, TEXT, max_size=3),
    env_names=st.lists(TEXT, max_size=3).map(tuple),
    git_commit=st.none() | TEXT,
    lockfile_hash=st.none() | TEXT,
    target=st.none() | st.builds(Target, TEXT, TEXT),
)

# -- plans ---------------------------------------------------------------------------------------------------

PLAN_TAGS = tuple(Tag(tag) for tag in ("config", "compute", "report"))


async def nothing(ctx, io, rec):
    """Do nothing: a handler that is never called."""


def plan_of(count, edges, declared=None, **keywords):
    """Return a plan of `count` states `op.step.s<n>` with edges between their numbers."""
    plan = Plan("op")
    for number in range(count) if declared is None else declared:
        after = [f"step.s{earlier}" for earlier, later in edges if later == number]
        plan.state(f"step.s{number}", after=after, **keywords.get(f"s{number}", {}))(nothing)
    return plan


@st.composite
def acyclic_edges(draw, count):
    """Draw edges between `count` states that all point forward in some drawn order."""
    rank = draw(st.permutations(range(count)))
    pairs = draw(st.sets(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=12))
    forward = {(a, b) if rank[a] < rank[b] else (b, a) for a, b in pairs if a != b}
    return sorted(forward)


@st.composite
def graphs(draw):
    """Draw a valid graph of 1 to 6 states with tags and, for some, a retry policy of their own."""
    count = draw(st.integers(1, 6))
    edges = draw(acyclic_edges(count))
    keywords = {
        f"s{number}": {
            "tags": draw(st.lists(st.sampled_from(PLAN_TAGS), max_size=2, unique=True)),
            "retry": draw(st.none() | RETRY_POLICIES),
        }
        for number in range(count)
    }
    return plan_of(count, edges, **keywords).graph


@st.composite
def graphs_with_cleanup(draw):
    """Draw a valid graph of 1 to 4 states, of which some may be skipped when they fail, and 1 to 3 of cleanup."""
    work, cleanup = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    edges = draw(acyclic_edges(work))
    keywords = {
        f"s{number}": {
            "tags": draw(st.lists(st.sampled_from(PLAN_TAGS), max_size=1)),
            "retry": draw(st.none() | RETRY_POLICIES),
            "on_error": draw(st.sampled_from(["fail", "fail", "skip"])),
        }
        for number in range(work)
    }
    for number in range(work, work + cleanup):
        keywords[f"s{number}"] = {
            "run": draw(st.sampled_from(["always", "on_failure"])),
            "retry": draw(st.none() | RETRY_POLICIES),
        }
        edges += [(earlier, number) for earlier in draw(st.sets(st.integers(0, number - 1), max_size=2))]
    return plan_of(work + cleanup, edges, **keywords).graph


RUN_CONFIGS = st.builds(
    RunConfig,
    retry_policy=RETRY_POLICIES,
    skip_tags=st.lists(st.sampled_from(PLAN_TAGS), max_size=1),
)

# -- a run without an engine ---------------------------------------------------------------------------------

ENDINGS = ("complete", "fail", "give up", "time out", "crash")
SCRIPTS = st.lists(st.sampled_from(ENDINGS), max_size=20)


def entry_of(seq, event, *, run_id=RUN_ID, ts_millis=1_700_000_000_000, info=None):
    """Return an event as a log gives it back: sealed, then decoded."""
    return codec.decode_entry(seq, seal(seq, codec.encode_event(event), run_id, ts_millis, info))


def log_of(*events, **informational):
    """Return the entries of a log of these events, numbered from 1."""
    return [entry_of(seq, event, **informational) for seq, event in enumerate(events, 1)]


def error_of(code="handler_error", *, retryable=True):
    """Return the error of a failed attempt."""
    return ErrorInfo(code, ErrorCategory.UNKNOWN, retryable, "it failed")


@attrs.define
class Simulation:
    """What a simulated run leaves behind: what was decided, the entries of its log, and their fold."""

    decisions: list
    entries: list
    history: History

    def events(self, kind):
        """Return the events of one type, in order."""
        return [entry.event for entry in self.entries if isinstance(entry.event, kind)]


def simulate(graph, config, script=(), *, cancels=(), **informational):
    """Drive a run to its end; each attempt records one fact and ends as `script` says, then all complete.

    `cancels` are the numbers of decisions before which it is asked to end cancelled.
    """
    cancel = False
    run = Simulation([], [], History())
    endings = iter(script)

    def emit(event):
        run.entries.append(entry_of(len(run.entries) + 1, event, **informational))
        run.history.advance(run.entries[-1])

    while True:
        cancel = cancel or (len(run.decisions) in cancels and run.history.started is not None)
        decision = decide(graph, config, run.history, cancel=cancel)
        run.decisions.append(decision)
        match decision:
            case BeginCleanup(status, base, error):
                emit(CleanupBegun(status.value, base, error))
                cancel = False
            case StartRun():
                emit(RunStarted(graph.op_id, artifact_id(b"manifest"), graph.plan_id, artifact_id(b"input")))
            case RecoverOrphan(state_id):
                emit(StateFailed(state_id, error_of("orphan_attempt_recovered")))
            case SkipState(state_id, reason):
                emit(StateSkipped(state_id, reason))
            case ScheduleRetry(state_id, attempt, delay_ms):
                emit(RetryScheduled(state_id, attempt, delay_ms))
            case EnterState(state_id, attempt, base):
                emit(StateEntered(state_id, attempt, base))
                key = f"@{state_id}/{attempt}"
                value = FactValue(artifact_id(key.encode()))
                emit(FactRecorded(key, "clock", artifact_id(b"request"), value, state_id, attempt))
                match next(endings, "complete"):
                    case "complete":
                        emit(StateCompleted(state_id, artifact_id(state_id.encode())))
                    case "fail":
                        emit(StateFailed(state_id, error_of()))
                    case "give up":
                        emit(StateFailed(state_id, error_of(retryable=False)))
                    case "time out":
                        emit(StateFailed(state_id, error_of("state_timeout")))
                    case "crash":
                        pass
            case CompleteRun(status, final_snapshot_id, error):
                skipped = failed_and_skipped(run.history.states) or None
                emit(RunCompleted(status.value, final_snapshot_id, error, None, skipped))
            case Done():
                return run
