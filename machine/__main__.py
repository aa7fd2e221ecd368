"""`python -m machine`: the same as the command `machine`."""

from __future__ import annotations

import sys

from machine.cli import main

if __name__ == "__main__":
    sys.exit(main())
