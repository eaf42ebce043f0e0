"""What is wrong with a spec, as data. Wording and frames are made elsewhere (`smpo.diagnostics`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from smpo.errors import SmpoError

if TYPE_CHECKING:
    from smpo.spec.source import Span

__all__ = ["Note", "Problem", "SpecProblems", "nearest", "quoted"]


@dataclass(frozen=True)
class Note:
    """A second place that belongs to a problem."""

    message: str
    span: Span | None = None
    path: str = ""


@dataclass(frozen=True)
class Problem:
    """One thing to say about a spec.

    `span` is where it is written, `path` the dotted setting, `label` the words beside the caret (usually a
    suggestion), `help` one thing to do.
    """

    message: str
    span: Span | None = None
    path: str = ""
    label: str = ""
    notes: tuple[Note, ...] = ()
    help: str | None = None
    level: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        where = f"{self.span.origin}: " if self.span else ""
        hint = f"; {self.label}" if self.label else ""
        return f"{where}{self.message}{hint}"


class SpecProblems(SmpoError):
    """Everything that is wrong with a spec, found in one pass. Nothing was run."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that was probably meant. One place, so that every suggestion is equally bold.

    Close is who shares most of the letters in their order, differs by one slip (a letter too many, too few,
    another, or two swapped), or is a contraction (`bf16` of `bfloat16`). A wrong suggestion is worse than none.
    """
    from difflib import SequenceMatcher

    best, found = 0.0, None
    match = SequenceMatcher(b=name)
    for other in sorted(set(names)):
        match.set_seq1(other)
        if match.real_quick_ratio() <= best:
            continue
        ratio = match.ratio()
        if ratio > best and (ratio >= 0.7 or _one_slip(name, other) or _contracted(name, other)):
            best, found = ratio, other
    return found


def _one_slip(one: str, other: str) -> bool:
    """Whether one edit makes them equal; of words with two letters nearly everything would be one."""
    if abs(len(one) - len(other)) > 1 or min(len(one), len(other)) < 3:
        return False
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    one, other = one[start:], other[start:]
    swapped = one[:2] == other[1::-1] and one[2:] == other[2:]
    return swapped or one[1:] == other[1:] or one[1:] == other or one == other[1:]


def _contracted(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    if len(short) < 3 or short[:1] != long[:1] or short[-1:] != long[-1:] or len(long) > 3 * len(short):
        return False
    letters = iter(long)
    return all(letter in letters for letter in short)


def quoted(text: str, *, limit: int = 60) -> str:
    """User text in backticks, on one line and of bounded length."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return "`" + "".join(char if char.isprintable() else repr(char)[1:-1] for char in text) + "`"
