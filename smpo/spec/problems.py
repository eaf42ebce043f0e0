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
    """The name that was probably meant. One place, so that every suggestion is equally bold."""
    from difflib import get_close_matches

    found = get_close_matches(name, sorted(set(names)), n=1, cutoff=0.6)
    return found[0] if found else None


def quoted(text: str, *, limit: int = 60) -> str:
    """What somebody wrote, in backticks, on one line and of bounded length."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return "`" + "".join(char if char.isprintable() else repr(char)[1:-1] for char in text) + "`"
