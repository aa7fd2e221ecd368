"""What it costs to start: the CPU time of another process, from its beginning to its end."""

from __future__ import annotations

import resource
import subprocess
import sys

from stage import main


def _cpu_ms(*arguments):
    def used():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    subprocess.run(
        [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL
    )  # the files are read once
    before = used()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return {"ms": (used() - before) * 1e3}


def statement(python):
    """Run a statement in a fresh interpreter."""
    return _cpu_ms("-c", python)


def command(module, argument):
    """Run a module with one argument."""
    return _cpu_ms("-m", module, argument)


if __name__ == "__main__":
    main(statement, command)
