"""docs/secrets.md: its lists of names are those that are looked for, no more and no less."""

from __future__ import annotations

import textwrap
from pathlib import Path

from machine.secrets import credential_formats, names

PAGE = Path(__file__).parents[2] / "docs" / "secrets.md"
BEGIN = "<!-- the lists of tests/docs/test_secrets_doc.py -->\n"
END = "<!-- the end of the lists -->\n"

LISTS = {
    "Header fields": names.HEADERS,
    "Query parameters": names.PARAMETERS,
    "Query parameters whose value must look like a credential": names.WEAK_PARAMETERS,
    "Fields, variables and options, by their last words (`_`, `-` and capitals part words)": names.EXACT,
    "Lists and objects whose members are secret": names.PLURAL,
    "Fields that count only with a strong look": names.WEAK,
    "Formats, wherever they stand": {one.name for one in credential_formats.FORMATS},
}


def written():
    """Return the lists as the page has them."""
    parts = []
    for title, listed in LISTS.items():
        told = ", ".join(f"`{name.replace(' ', '_')}`" for name in sorted(set(listed)))
        body = "\n".join(textwrap.wrap(told, 116, break_long_words=False, break_on_hyphens=False))
        parts.append(f"**{title}**:\n{body}\n")
    return "\n".join(parts)


def test_the_lists_of_the_page_are_what_is_looked_for():
    page = PAGE.read_text(encoding="utf-8")
    assert page.partition(BEGIN)[2].partition(END)[0] == written()
