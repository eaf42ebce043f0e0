"""Problems as people read them: a frame with the line and a caret; as JSON; as annotations of a code review.

User text is printed with care: control characters are escaped, long lines are clipped
round the caret, and carets stand under what they mean even when letters are two columns wide.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from unicodedata import combining, east_asian_width

from smpo.secrets import masked
from smpo.spec.problems import Problem
from smpo.spec.source import Span

__all__ = ["as_data", "as_json", "escaped", "github", "render"]

WIDTH = 110
LIMIT = 50
"""Frames that are shown; a file with more problems has one of them many times."""
_MARGIN = 24


def render(problems: Sequence[Problem], *, closing: str = "nothing was run") -> str:
    """All problems with frames, and a last line that counts them. Warnings alone get no last line."""
    blocks = [_block(problem) for problem in problems[:LIMIT]]
    if len(problems) > LIMIT:
        blocks.append(f"... and {len(problems) - LIMIT:,} more")
    errors = sum(problem.level == "error" for problem in problems)
    if errors and closing:
        blocks.append(f"{errors} problem{'s' if errors > 1 else ''}; {closing}.")
    return "\n\n".join(blocks) + ("\n" if blocks else "")


def as_data(problem: Problem) -> dict[str, Any]:
    """One problem as plain data; keys without a value are left out."""
    data: dict[str, Any] = {"level": problem.level, "message": problem.message, "path": problem.path}
    data |= _place(problem.span)
    data |= {"label": problem.label, "help": problem.help}
    data["notes"] = [{"message": note.message, "path": note.path, **_place(note.span)} for note in problem.notes]
    return {key: value for key, value in data.items() if value not in (None, "", [])}


def as_json(problems: Sequence[Problem]) -> str:
    """A JSON document: `{"problems": [...]}`."""
    text = json.dumps({"problems": [as_data(problem) for problem in problems]}, indent=2, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()  # file names may hold what UTF-8 can't


def github(problems: Sequence[Problem]) -> str:
    """Workflow commands that GitHub shows beside the line."""
    lines = []
    for problem in problems:
        place = {}
        if problem.span is not None and problem.span.source.path is not None:
            span = problem.span
            place = {"file": span.source.name, "line": str(span.line), "col": str(span.column)}
        message = ". ".join(part for part in (problem.message, problem.label, problem.help or "") if part)
        properties = ",".join(f"{key}={_property(value)}" for key, value in place.items())
        lines.append(f"::{problem.level}{' ' if properties else ''}{properties}::{_data(message)}")
    return "\n".join(lines) + ("\n" if lines else "")


def _block(problem: Problem) -> str:
    lines = [f"{problem.level}: {escaped(problem.message)}"]
    lines += _frame(problem.span, problem.path, problem.label)
    for note in problem.notes:
        lines += [f"note: {escaped(note.message)}", *_frame(note.span, note.path, "", note=True)]
    if problem.help:
        lines.append(f"help: {escaped(problem.help)}")
    return "\n".join(lines)


def _frame(span: Span | None, path: str, label: str, *, note: bool = False) -> list[str]:
    where = f"  ({escaped(path)})" if path else ""
    if span is None:
        place = [f"  --> {escaped(path)}"] if path and not note else []
        return place + ([f"     = {escaped(label)}"] if label else [])
    source = span.source
    at = escaped(source.name)
    if source.path is not None and span.end > 0:
        at += f":{span.line}:{span.column}"
    head = f"  --> {at}{where}"
    if span.end == 0:  # the whole file
        return [head] + ([f"     = {escaped(label)}"] if label else [])
    number = str(span.line)
    gutter = " " * max(len(number) + 1, 4)
    before, marked, after = _cut(span)
    text = f"{before}{marked}{after}"
    caret = " " * _columns(before) + "^" * max(_columns(marked), 1)
    return [
        head,
        f"{gutter} |",
        f"{number:>{len(gutter)}} | {text}",
        f"{gutter} | {caret}{' ' + escaped(label) if label else ''}",
    ]


def _cut(span: Span) -> tuple[str, str, str]:
    """The line of a span in three parts, escaped and clipped; the middle one is what the caret marks."""
    line = masked(span.source.line(span.line), keep_length=True)
    start = span.column - 1
    stop = min(start + max(span.end - span.start, 1), len(line))
    marked = _without_comment(line[start:stop])
    before, after = line[:start], line[start + len(marked) :]
    before, marked, after = (escaped(part, tab="    ") for part in (before, marked, after))
    if len(before) + len(marked) + len(after) > WIDTH:
        if len(marked) > WIDTH - 2 * _MARGIN:
            marked, after = marked[: WIDTH - 2 * _MARGIN], "…"
        if len(before) > WIDTH // 2:
            before = "…" + before[-_MARGIN:]
        room = WIDTH - len(before) - len(marked)
        if len(after) > room:
            after = after[: max(room - 1, 0)] + "…"
    return before, marked, after.rstrip()


def _without_comment(text: str) -> str:
    """The marked part of a line never includes a comment after it, nor blanks at its end."""
    quote = ""
    for index, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"" and (index == 0 or text[index - 1] in " [{,:"):
            quote = char
        elif char == "#" and (index == 0 or text[index - 1] in " \t"):
            text = text[:index]
            break
    return text.rstrip()


def escaped(text: str, *, tab: str = "\\t") -> str:
    """Text that can't move the cursor, colour the screen or turn the direction of writing."""
    return "".join(char if char.isprintable() else tab if char == "\t" else repr(char)[1:-1] for char in text)


def _columns(text: str) -> int:
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def _place(span: Span | None) -> dict[str, Any]:
    if span is None:
        return {}
    return {"origin": span.source.name, "line": span.line, "column": span.column}


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
