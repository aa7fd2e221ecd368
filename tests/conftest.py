"""Makes `tests/strategies.py` importable: the tests are no package, and pytest's importlib mode adds no path."""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = str(Path(__file__).parent)

if _HERE not in sys.path:
    sys.path.append(_HERE)
