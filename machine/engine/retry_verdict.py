"""The verdict on a failure by the retry policy of its state, taken when it is recorded.

It is the recorded `retryable` of the failure, so that no later decision needs the exception itself.
"""

from __future__ import annotations

import attrs

from machine.config import RetryPolicy
from machine.errors import ErrorInfo
from machine.exception_to_error_info import describe, sole_member
from machine.importable_names import class_name


def retried(exc: BaseException, policy: RetryPolicy) -> bool:
    """Say whether an exception is retried under a policy; of a group, whether every member is."""
    while (only := sole_member(exc)) is not None:
        exc = only
    if isinstance(exc, BaseExceptionGroup):
        return all(retried(member, policy) for member in exc.exceptions)
    error = describe(exc)
    names = (error.code, *(class_name(cls) for cls in type(exc).__mro__))
    return policy.retries(names, retryable=error.retryable)


def judged(error: ErrorInfo, policy: RetryPolicy) -> ErrorInfo:
    """Return an error of the engine as a policy has it retried."""
    return attrs.evolve(error, retryable=policy.retries((error.code,), retryable=error.retryable))
