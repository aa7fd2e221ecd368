"""JSON that is base64-encoded within a text, so that secrets in it are not visible as text."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from typing import Final

from machine.secrets.redacted_text import Work

MAY_PACK: Final = "eyJ"
"""The first characters of `{"` in base64."""

_RUN: Final = re.compile(r"eyJ(?<![A-Za-z0-9+/_.-]eyJ)([A-Za-z0-9+/_-]{13,65536}+)={0,2}(?![.A-Za-z0-9+/_-])")


def packed_json(text: str, work: Work) -> Iterator[tuple[int, int, str]]:
    """Yield where objects of JSON are packed in a text, and their text."""
    for run in work.candidates(_RUN.finditer(text)):
        packed = f"eyJ{run[1]}".replace("-", "+").replace("_", "/")
        try:
            inner = base64.b64decode(packed + "=" * (-len(packed) % 4)).decode()
            json.loads(inner)
        except (binascii.Error, ValueError, RecursionError):
            continue
        yield *run.span(), inner
