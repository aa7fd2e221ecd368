"""Errors: one tree, stable codes that are all in use, and errors of a call that a replay raises again."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import FAST, JSON, OBJECTS, TEXT

import machine
from machine import canonical, codec, errors
from machine.errors import (
    CanonicalError,
    Code,
    CodecError,
    ConcurrencyError,
    ConfigError,
    ContextError,
    CorruptionError,
    ErrorCategory,
    ErrorInfo,
    IoError,
    LogError,
    MachineError,
    MissingFactError,
    MissingFactKeyError,
    NotFoundError,
    OtherIoError,
    RateLimitedError,
    RunError,
    StoreError,
    TransportError,
    UsageError,
)
from machine.ids import ErrorCode

PACKAGE = Path(machine.__file__).parent
CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, MachineError) and value is not MachineError
]
CALL_FAILURES = [MissingFactKeyError, MissingFactError, TransportError, OtherIoError]


def trees():
    for path in sorted(PACKAGE.rglob("*.py")):
        if path != PACKAGE / "errors.py":
            yield ast.parse(path.read_text(encoding="utf-8"))


def test_every_code_is_used_by_the_package():
    named = set()
    raised = set()
    for tree in trees():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "Code"
            ):
                named.add(node.attr)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                raised.add(node.func.id)
    named |= {Code(cls.default_code).name for cls in CLASSES if cls.__name__ in raised}

    assert sorted(set(Code.__members__) - named) == []


def test_every_code_follows_the_rule_and_is_its_name_in_lowercase():
    for code in Code:
        assert ErrorCode(code.value) == code.name.lower()


def test_the_categories_are_those_of_the_contract():
    assert [*ErrorCategory] == [
        "parsing_input",
        "on_chain",
        "off_chain",
        "rpc",
        "storage",
        "context",
        "unknown",
    ]


def test_every_error_is_public_and_documented():
    for cls in CLASSES:
        assert cls.__name__ in errors.__all__
        assert cls.__doc__


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (UsageError, ValueError),
        (ConfigError, ValueError),
        (CanonicalError, ValueError),
        (CodecError, ValueError),
        (ContextError, KeyError),
        (NotFoundError, LookupError),
        (ConcurrencyError, StoreError),
        (CorruptionError, StoreError),
    ],
)
def test_an_error_is_also_the_builtin_a_reader_expects(cls, builtin):
    assert issubclass(cls, builtin)


def test_an_error_carries_what_is_known_and_its_sentence_is_built_late():
    exc = RunError("the run has ended", code="mine", retryable=True, details={"seq": 3}, hint="start another")

    assert exc.info == ErrorInfo(
        "mine", ErrorCategory.UNKNOWN, retryable=True, message="the run has ended", details={"seq": 3}
    )
    assert exc.code == "mine"
    assert str(exc) == "the run has ended (start another)"
    assert str(RunError("the run has ended")) == "the run has ended"
    assert RunError("the run has ended").code == Code.INVALID_TRANSITION


def test_a_code_in_an_error_is_plain_text():
    assert type(StoreError("x").code) is str
    assert type(StoreError("x", code=Code.STORE_FULL).code) is str
    assert type(LogError(1, "x", code=Code.LOG_RETRY).code) is str


def test_errors_with_a_place_say_it_and_keep_it():
    assert str(LogError(7, "it follows event 5", code=Code.LOG_SEQ_GAP)) == "event 7: it follows event 5"
    assert LogError(7, "x", code=Code.LOG_SEQ_GAP).seq == 7
    assert str(CanonicalError("$.a[3]", "set is not JSON")) == "$.a[3]: set is not JSON"
    assert CanonicalError("$.a[3]", "x").path == "$.a[3]"
    assert str(CodecError("RunConfig", ["one @ $.a", "two @ $.b"])) == "RunConfig: one @ $.a; two @ $.b"
    assert CodecError("RunConfig", ["one", "two"]).info.details == {"problems": ["one", "two"]}


def test_a_context_error_prints_a_sentence_although_it_is_a_key_error():
    assert str(ContextError("the context has no key 'a'")) == "the context has no key 'a'"


# -- errors of calls are facts -------------------------------------------------------------------------------


def replayed(exc):
    """Return the error as a replay raises it: through the log's bytes."""
    info = codec.from_json(canonical.decode(canonical.encode(codec.to_json(exc.info))), ErrorInfo)
    return IoError.from_fact(exc.kind, info)


def test_every_kind_of_failed_call_has_a_name_of_its_own():
    kinds = {cls.kind: cls for cls in CLASSES if issubclass(cls, IoError) and cls is not IoError}

    assert set(kinds) == {
        "missing_fact_key",
        "missing_fact",
        "transport",
        "rate_limited",
        "step",
        "wait",
        "other",
    }


@pytest.mark.parametrize("cls", CALL_FAILURES)
def test_a_recorded_failure_is_raised_again_as_it_was(cls):
    @FAST
    @given(TEXT, st.sampled_from(["http_timeout", "mine"]), st.booleans(), st.none() | OBJECTS)
    def holds(message, code, retryable, details):
        exc = cls(message, code=code, retryable=retryable, details=details)
        again = replayed(exc)
        assert type(again) is cls
        assert again.info == exc.info
        assert (again.message, again.code, str(again), again.args) == (
            message,
            code,
            message,
            exc.args,
        )

    holds()


@FAST
@given(TEXT, st.none() | st.floats(0, 1e6), st.none() | st.dictionaries(st.sampled_from("ab"), JSON))
def test_a_recorded_rate_limit_still_says_how_long_to_wait(message, seconds, details):
    exc = RateLimitedError(message, retry_after=seconds, details=details)
    again = replayed(exc)

    assert type(again) is RateLimitedError
    assert again.retry_after == exc.retry_after == seconds
    assert again.info == exc.info
    assert again.info.retryable


def test_an_unknown_kind_is_another_failure_not_a_crash():
    info = ErrorInfo("mine", ErrorCategory.RPC, retryable=False, message="it failed")
    again = IoError.from_fact("from_the_future", info)

    assert type(again) is OtherIoError
    assert again.info is info
    assert re.match("it failed", str(again))
