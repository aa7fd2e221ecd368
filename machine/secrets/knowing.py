"""What knows the secrets of a run, and of an attempt, in either format."""

from __future__ import annotations

from typing import TypeAlias

from machine.secrets.handles.vault import Vault
from machine.secrets.run_secrets import AttemptSecrets, RunSecrets

__all__ = ["OfAttempt", "OfRun"]

OfRun: TypeAlias = RunSecrets | Vault
"""What a run knows; `attempt()` gives what a new attempt does."""

OfAttempt: TypeAlias = AttemptSecrets | Vault
