"""reeltime and the machine on the same script of HTTP calls: the whole commands, from their start to their end."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from stage import main, server

HERE = Path(__file__).parent
COMMANDS = Path(sys.executable).parent


def _timed(*command):
    start = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stderr)
    return {"ms": seconds * 1e3}


def plain(n):
    """Run the script with nobody watching."""
    with server() as url:
        return _timed(sys.executable, str(HERE / "script.py"), url, str(n))


def tape_run(n):
    """Record the script."""
    with server() as url:
        return _timed(str(COMMANDS / "tape"), "run", sys.executable, str(HERE / "script.py"), url, str(n))


def tape_replay(n):
    """Replay the script."""
    return _timed(str(COMMANDS / "tape"), "replay")


def machine_run(n):
    """Record the same as a plan of one state."""
    with server() as url:
        given = f'{{"url": "{url}", "calls": {n}}}'
        return _timed(
            sys.executable, "-m", "machine", "run", f"{HERE / 'script.py'}:plan", "--quiet", "--input", given
        )


def machine_replay(n):
    """Replay the plan."""
    return _timed(sys.executable, "-m", "machine", "replay", "@last", "--quiet")


if __name__ == "__main__":
    main(plain, tape_run, tape_replay, machine_run, machine_replay)
