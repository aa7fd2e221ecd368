"""What all tests share: `tests/strategies.py` is importable (the tests are no package), and pytest tests itself."""

from __future__ import annotations

import sys
from pathlib import Path

pytest_plugins = ["pytester"]  # pytest wants it here, for the tests of the pytest plugin

_HERE = str(Path(__file__).parent)

if _HERE not in sys.path:
    sys.path.append(_HERE)
