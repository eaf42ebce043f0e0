"""Turns of phrase that every message shares: lists of names, suggestions, the name of a place, reading order."""

from __future__ import annotations

from collections.abc import Iterable

from smpo.spec.problems import Problem, nearest, quoted
from smpo.spec.tree import Path, dotted

__all__ = ["in_order", "listed", "name_of", "suggest"]


def listed(names: Iterable[str], *, last: str = "or") -> str:
    """`a`, `b` or `c`."""
    marked = [f"`{name}`" for name in names]
    return marked[0] if len(marked) == 1 else f"{', '.join(marked[:-1])} {last} {marked[-1]}"


def suggest(name: str, names: Iterable[str], *, what: str = "names") -> str:
    """The label beside an unknown name: what was probably meant, or what there is, if that fits on a line."""
    known = list(names)
    close = nearest(name, known)
    if close:
        return f"did you mean `{close}`?"
    line = f"{what}: {', '.join(f'`{one}`' for one in known)}"
    return line if known and len(line) <= 100 else ""


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """As one reads: file by file from the top, then the command line."""

    def place(problem: Problem) -> tuple[bool, str, int]:
        if problem.span is None:
            return (False, "", 0)
        return (problem.span.source.path is None, problem.span.source.name, problem.span.start)

    return sorted(problems, key=place)


def name_of(path: Path) -> str:
    """How to speak of a setting: its own name, with the list it is in."""
    if not path:
        return ""
    if isinstance(path[-1], int):
        return f"item {path[-1] + 1} of `{dotted(path[:-1])}`"
    return quoted(str(path[-1]))
