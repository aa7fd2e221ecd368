"""Every error code of the library itself. A code, once released, keeps its meaning."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Code"]


class Code(StrEnum):
    """The codes; handlers and transports may use their own besides. `docs/errors.md` has a section for each."""

    # identifiers, values, configuration
    INVALID_ID = "invalid_id"
    NOT_JSON = "not_json"
    MALFORMED = "malformed"
    INVALID_CONFIG = "invalid_config"
    INVALID_INPUT = "invalid_input"
    USAGE = "usage"
    # plan
    EMPTY_PLAN = "empty_plan"
    DUPLICATE_STATE_ID = "duplicate_state_id"
    MISSING_STATE_FOR_EDGE = "missing_state_for_edge"
    CIRCULAR_DEPENDENCY = "circular_dependency"
    DANGLING_DEPENDENCY_TAG = "dangling_dependency_tag"
    MISSING_IDEMPOTENCY_KEY = "missing_idempotency_key"
    OP_ID_MISMATCH = "op_id_mismatch"
    PLAN_SEALED = "plan_sealed"
    PLAN_CHANGED = "plan_changed"
    RECOVERY_STATE_NOT_IN_PLAN = "recovery_state_not_in_plan"
    INVALID_STATE = "invalid_state"
    TARGET_NOT_FOUND = "target_not_found"
    TARGET_IMPORT_FAILED = "target_import_failed"
    TARGET_NOT_A_PLAN = "target_not_a_plan"
    # the log
    LOG_FIRST_EVENT = "log_first_event"
    LOG_SECOND_START = "log_second_start"
    LOG_SEQ_GAP = "log_seq_gap"
    LOG_AFTER_END = "log_after_end"
    LOG_WRONG_RUN = "log_wrong_run"
    LOG_ATTEMPT_OPEN = "log_attempt_open"
    LOG_NO_OPEN_ATTEMPT = "log_no_open_attempt"
    LOG_ATTEMPT_NUMBER = "log_attempt_number"
    LOG_STATE_SETTLED = "log_state_settled"
    LOG_BASE_SNAPSHOT = "log_base_snapshot"
    LOG_RETRY = "log_retry"
    LOG_DUPLICATE_FACT = "log_duplicate_fact"
    LOG_BAD_EVENT = "log_bad_event"
    LOG_END_SNAPSHOT = "log_end_snapshot"
    LOG_BROKEN_CHAIN = "log_broken_chain"
    LOG_INDEX = "log_index"
    INVALID_TRANSITION = "invalid_transition"
    # the run
    ORPHAN_ATTEMPT_RECOVERED = "orphan_attempt_recovered"
    HANDLER_ERROR = "handler_error"
    INVALID_OUTCOME = "invalid_outcome"
    STATE_TIMEOUT = "state_timeout"
    SIDE_EFFECT_NOT_DECLARED = "side_effect_not_declared"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    INVALID_IDEMPOTENCY_KEY = "invalid_idempotency_key"
    INVALID_DOMAIN_EVENT = "invalid_domain_event"
    ATTEMPT_CLOSED = "attempt_closed"
    # context
    CONTEXT_KEY_MISSING = "context_key_missing"
    CONTEXT_VALUE_MUTATED = "context_value_mutated"
    CONTEXT_VALUE_TOO_LARGE = "context_value_too_large"
    # io
    MISSING_FACT_KEY = "missing_fact_key"
    MISSING_FACT = "missing_fact"
    FACT_KEY_CONFLICT = "fact_key_conflict"
    CALL_CANCELLED = "call_cancelled"
    IO_UNKNOWN_NAMESPACE = "io_unknown_namespace"
    IO_INVALID_REQUEST = "io_invalid_request"
    IO_TRANSPORT_FAILED = "io_transport_failed"
    HTTP_TIMEOUT = "http_timeout"
    HTTP_CONNECT = "http_connect"
    HTTP_TLS = "http_tls"
    HTTP_TOO_MANY_REDIRECTS = "http_too_many_redirects"
    HTTP_BODY_TOO_LARGE = "http_body_too_large"
    HTTP_PROTOCOL = "http_protocol"
    HTTP_STATUS = "http_status"
    RATE_LIMITED = "rate_limited"
    EXEC_NOT_FOUND = "exec_not_found"
    EXEC_NOT_ALLOWED = "exec_not_allowed"
    EXEC_TIMEOUT = "exec_timeout"
    EXEC_OUTPUT_TOO_LARGE = "exec_output_too_large"
    EXEC_FAILED = "exec_failed"
    EXEC_STATUS = "exec_status"
    FILE_NOT_FOUND = "file_not_found"
    FILE_DENIED = "file_denied"
    FILE_TOO_LARGE = "file_too_large"
    FILE_FAILED = "file_failed"
    # secrets
    SECRET_NOT_SET = "secret_not_set"  # noqa: S105 - the name of a code
    SECRET_UNAVAILABLE = "secret_unavailable"  # noqa: S105 - the name of a code
    SECRET_IN_CONTEXT = "secret_in_context"  # noqa: S105 - the name of a code
    SECRET_IN_MANIFEST = "secret_in_manifest"  # noqa: S105 - the name of a code
    SECRET_IN_EVENT = "secret_in_event"  # noqa: S105 - the name of a code
    # stores
    CONCURRENCY = "concurrency"
    RUN_LEASED = "run_leased"
    LEASE_LOST = "lease_lost"
    INVOCATION_TAKEN = "invocation_taken"
    RUN_NOT_FOUND = "run_not_found"
    RUN_AMBIGUOUS = "run_ambiguous"
    ARTIFACT_NOT_FOUND = "artifact_not_found"
    STORE_NOT_FOUND = "store_not_found"
    STORE_UNKNOWN_URL = "store_unknown_url"
    STORE_NOT_A_STORE = "store_not_a_store"
    STORE_NEWER_SCHEMA = "store_newer_schema"
    STORE_CORRUPT = "store_corrupt"
    STORE_FULL = "store_full"
    STORE_BUSY = "store_busy"
    STORE_READ_ONLY = "store_read_only"
    STORE_CLOSED = "store_closed"
    STORE_FAILED = "store_failed"
    ARTIFACT_CORRUPT = "artifact_corrupt"
    ARTIFACT_TOO_LARGE = "artifact_too_large"
