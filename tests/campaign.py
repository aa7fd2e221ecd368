"""The size of a campaign: seconds in a usual session, everything with MACHINE_CAMPAIGN=full (`nox -s campaign`)."""

from __future__ import annotations

import os

__all__ = ["FULL"]

FULL = os.environ.get("MACHINE_CAMPAIGN") == "full"
