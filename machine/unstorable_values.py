"""Values that can be stored neither as JSON nor with their type, and their replacements."""

from __future__ import annotations

from typing import Any, Final


def known_remedy(value: Any) -> str | None:
    """Return the replacement for a value of a well-known type that cannot be stored, or None.

    Raises what a value raises that stands for one which is not known yet.
    """
    if (needed := getattr(type(value), "__machine_needed__", None)) is not None:
        needed(value)
    library, name = type(value).__module__.partition(".")[0], type(value).__name__
    if name in {"DataFrame", "LazyFrame", "Series", "Table", "RecordBatch", "ndarray", "Index", "Tensor"}:
        return _OF_TABLES.get((library, name)) or _OF_TABLES.get((library, "")) or _OF_TABLES["", ""]
    if library == "numpy":
        return "use value.item()"
    return _OF_TYPES.get((library, name)) or _OF_TYPES.get((library, ""))


_OF_TABLES: Final = {
    (
        "pandas",
        "DataFrame",
    ): "write its bytes (df.to_parquet(), df.to_csv().encode()) or df.to_dict('records')",
    ("pandas", ""): "write value.tolist()",
    ("polars", "DataFrame"): "write its bytes (df.write_csv().encode()) or df.to_dicts()",
    ("polars", "LazyFrame"): "collect() it, then write its bytes (df.write_csv().encode()) or df.to_dicts()",
    ("polars", ""): "write value.to_list()",
    ("pyarrow", ""): "write value.to_pylist()",
    ("", ""): "write value.tolist(), or its bytes",
}
_OF_TYPES: Final = {
    ("builtins", "bytearray"): "write bytes(value)",
    ("builtins", "memoryview"): "write bytes(value)",
    ("builtins", "complex"): "write (value.real, value.imag)",
    ("builtins", "range"): "write list(value)",
    ("builtins", "generator"): "write list(value)",
    ("builtins", "coroutine"): "is an await missing?",
    ("array", "array"): "write value.tolist(), or value.tobytes()",
    ("collections", "defaultdict"): "write dict(value)",
    ("collections", "OrderedDict"): "write a list of pairs, or dict(value)",
    ("collections", "deque"): "write list(value)",
    ("datetime", "timezone"): "write its offset, value.utcoffset(None)",
    ("zoneinfo", "ZoneInfo"): "write value.key",
    ("ipaddress", ""): "write str(value)",
    ("fractions", "Fraction"): "write (value.numerator, value.denominator)",
    ("pandas", "Timestamp"): "use value.to_pydatetime() or a plain value",
    ("pandas", "Timedelta"): "use value.to_pytimedelta() or a plain value",
    ("pandas", "NaTType"): "use None, as pandas has no value there",
    ("pandas", "NAType"): "use None, as pandas has no value there",
    ("pandas", ""): "use str(value) or a plain value",
    ("pathlib", "PurePosixPath"): "write str(value), or a Path",
    ("pathlib", "PureWindowsPath"): "write str(value)",
    ("pydantic", "SecretStr"): "read secrets with io.secret, and keep them out of the context",
    ("pydantic", "SecretBytes"): "read secrets with io.secret, and keep them out of the context",
}
