"""Values that are no secrets but stand for one: templates, and the examples of documents."""

from __future__ import annotations

import re
from typing import Final

_TEMPLATE: Final = re.compile(
    r"[$#@%]?\{{1,2}[A-Za-z_ ][\w .:/|'()-]{1,200}+\}{1,2}|\$\([\w. -]{1,100}+\)|%\([\w.-]{1,60}+\)[sdr]"
    r"|</?[A-Za-z][\w -]{0,60}+>|\[[A-Za-z][A-Za-z_ -]{1,60}+\]"
)
"""A part that a program or a person replaces: `${HOME}`, `$(cmd)`, `%(name)s`, `<name>`, `[name]`."""

_OF_EXAMPLES: Final = re.compile(
    r"(?<![a-z0-9])(?:placeholder|example|change[-_. ]?(?:me|this|it)|replace[-_. ]?(?:me|this|with)"
    r"|redacted|your(?=[-_. ])|my(?=[-_. ](?:secret|super|api|access|pass|token))|insert[-_. ]|goes[-_. ]here|fixme"
    r"|todo(?=[-_:. ])|dummy(?=[-_. ])|fake(?=[-_. ])|x{5,}"
    r"|not[-_. ]?(?:a[-_. ])?(?:real|set|valid|used))(?![a-z0-9])"
)
"""Words of examples, which say that a secret is to be put here."""


def without_templates(value: str) -> str:
    """Return a value without the parts that stand for what is put in later: `${HOME}/.ssh/id_rsa`."""
    return _TEMPLATE.sub("", value)


def is_example(value: str) -> bool:
    """Tell whether a value says that it is none: `Passw0rd_placeholder`, `sk-your-key-1`."""
    return _OF_EXAMPLES.search(value.lower()) is not None
