"""The command line: it parses arguments, calls the library and prints the result. It decides nothing itself.

`app.COMMANDS` says in which file each command is. It is imported when its command is called, so that `--help` is
quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from machine.cli.standard_streams import abandon, standing


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `argv` excludes the program's name, and is `sys.argv` by default.

    Nothing is raised for what a user can cause: every failure is a line on stderr and an exit code.
    """
    from machine.cli.app import BROKEN_PIPE, launch  # noqa: PLC0415 - importing this package costs nothing

    code = 0
    with standing():
        try:
            code = launch(sys.argv[1:] if argv is None else list(argv))
            sys.stdout.flush()
        except BrokenPipeError:
            abandon(sys.stdout)
            return BROKEN_PIPE
        except OSError:  # already reported where it first failed, or nobody is left to tell
            abandon(sys.stdout)
            return code or 1
    return code
