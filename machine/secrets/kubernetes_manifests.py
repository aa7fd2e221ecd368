"""Secrets in manifests of Kubernetes in YAML: each value under `data` of a `kind: Secret` is one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from machine.secrets.credential_looks import looks_like_credential
from machine.secrets.redacted_text import Work

SIGN_OF_MANIFESTS: Final = "kind: Secret"
_APART: Final = re.compile(r"^---", re.MULTILINE)
"""The line between the documents of a file."""

_IS_SECRET: Final = re.compile(r"^[ \t-]{0,16}+kind: Secret[ \t]{0,8}+\r?$", re.MULTILINE)
_MEMBERS: Final = re.compile(
    r"^([ \t]{0,16}+)(?:data|stringData):[ \t]{0,8}+\r?\n"
    r"((?:\1[ \t]{1,16}[\w.-]{1,100}+:[^\r\n]{0,65536}+\r?\n?){1,1000}+)",
    re.MULTILINE,
)
"""The lines behind `data:` that are indented deeper than it."""

_MEMBER: Final = re.compile(
    r"^[ \t]{1,32}+([\w.-]{1,100}+):[ \t]{1,8}+[\"']?([^\s\"']++)[\"']?[ \t]{0,8}+\r?$", re.MULTILINE
)


def in_manifests(text: str, work: Work) -> Iterator[tuple[int, int, str]]:
    """Yield where the values of secrets stand in manifests, and what they are called."""
    begin = 0
    for apart in (*(match.start() for match in _APART.finditer(text)), len(text)):
        if _IS_SECRET.search(text, begin, apart):
            for members in _MEMBERS.finditer(text, begin, apart):
                for member in work.candidates(_MEMBER.finditer(text, *members.span(2))):
                    if looks_like_credential(member[2]):
                        yield *member.span(2), member[1]
        begin = apart
