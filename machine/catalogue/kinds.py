"""The kinds of domain events that this library knows, made from a table with one row for each.

The payload class of a row is made when this module is imported, and is named after its event: `tool_called` has
`ToolCalled`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from machine.catalogue.execution_kinds import EXECUTION_ROWS
from machine.catalogue.registry import Catalogue, Kind
from machine.catalogue.workflow_kinds import WORKFLOW_ROWS

STANDARD: Final = Catalogue(
    tuple(row if isinstance(row, Kind) else row.kind() for row in (*WORKFLOW_ROWS, *EXECUTION_ROWS))
)
"""Every kind of the table; made on import, so that all threads have the same classes."""

OF_THE_KERNEL: Final[Mapping[str, str]] = {
    "retry_scheduled": "Another attempt of a state follows, after a delay.",
    "fact_recorded": "The outcome of a call was recorded.",
}
"""Names of the systems before this one that are kernel events here: the engine alone writes them."""
