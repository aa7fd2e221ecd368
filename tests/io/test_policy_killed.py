"""What a policy asks about leaves only once it is approved, whatever processes are killed meanwhile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "policy_kills.py"


@pytest.mark.long  # its sibling in test_policy.py cuts one run after each of its events
def test_in_two_hundred_kills_nothing_leaves_before_it_is_approved(tmp_path):
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), "200"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split(" ")[0]) >= 200
