"""Other people's text as markdown: escaped, on one line, without HTML."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["escaped", "markdown_table", "plain_line"]

SPECIAL = re.compile(r"([\\`*_\[\]{}#|~$!])")
LONGEST = 400
"""Characters of one value; settings can hold whole documents."""


def escaped(value: Any) -> str:
    """A value as one line of markdown: no HTML, no markup, no table cells of its own, not endless."""
    text = " ".join((value if isinstance(value, str) else _text(value)).split())
    if len(text) > LONGEST:
        text = text[: LONGEST - 1] + "…"
    return SPECIAL.sub(r"\\\1", html.escape(text, quote=False))


def plain_line(text: str) -> str:
    """A line for documents that people also read as plain text: no HTML, no cells and no links of its own."""
    line = " ".join(html.escape(text, quote=False).replace("|", "/").split())
    return line.replace("](", "]\\(").replace("![", "!\\[")


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """A table under the keys of the first row; empty without rows."""
    if not rows:
        return ""
    head, *body = ([plain_line(cell) for cell in line] for line in (rows[0], *(row.values() for row in rows)))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *body))


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
