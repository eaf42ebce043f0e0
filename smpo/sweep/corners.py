"""The corners of a search space, each checked as a whole spec before the first trial."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice, product
from typing import Any

from smpo.registry.resolve import Resolved
from smpo.spec.problems import Note, Problem, SpecProblems
from smpo.sweep.space import Param, Space, Value, written

__all__ = ["Resolve", "check_corners", "corners"]

Resolve = Callable[[Mapping[str, Any]], Resolved[Any]]
"""The spec with these settings on top."""
MOST = 64


def corners(space: Space, most: int = MOST) -> Iterator[dict[str, Value]]:
    """Assignments in which every bound and choice occurs: all combinations where they are few, else one by one
    and then in pairs, around each branch's first corner."""
    combinations = list(_combinations(space.params, most + 1))
    if len(combinations) <= most:
        yield from combinations
        return
    seen: list[dict[str, Value]] = []
    for count in (1, 2):
        for one in _around(space.params, count):
            if one not in seen and len(seen) < most:
                seen.append(one)
                yield one


def check_corners(space: Space, resolve: Resolve, most: int = MOST) -> int:
    """Resolve the corners of the space; returns how many. Raises `SpecProblems`, located where a bound is written."""
    problems: dict[tuple[Any, ...], Problem] = {}
    count = 0
    for count, values in enumerate(corners(space, most), 1):  # noqa: B007
        try:
            resolve(space.settings(values))
        except SpecProblems as error:
            for one in error.problems:
                moved = _moved(one, space, values)
                key = (moved.message, moved.span.start if moved.span else -1)
                problems.setdefault(key, moved)
    if problems:
        raise SpecProblems(sorted(problems.values(), key=_place))
    return count


def _place(problem: Problem) -> tuple[str, int]:
    return (problem.span.source.name, problem.span.start) if problem.span else ("", 0)


def _moved(problem: Problem, space: Space, values: Mapping[str, Any]) -> Problem:
    """The problem of a trial's value, at the bound in the file that it came from."""
    place = space.place(problem.path, values)
    from_trial = problem.span is None or problem.span.source.name == "trial"
    if place is None and from_trial and problem.span is not None:
        path = problem.span.source.text.partition("=")[0]
        place = space.place(path, values)
    notes = tuple(_moved_note(note, space, values) for note in problem.notes)
    if place is None or not from_trial:
        corner = ", ".join(f"{name} {written(value)}" for name, value in values.items())
        return replace(problem, notes=(*notes, Note(f"with {corner}, which the sweep may try")))
    span, name = place
    param = next(one for one in space.every() if one.name == name)
    if problem.span is not None and problem.span.text.strip() in param.path.split("."):
        span = param.key  # a setting that doesn't exist is wrong where it is named, not at its values
    return replace(problem, span=span, path=f"sweep.search.{name}", notes=notes)


def _moved_note(note: Note, space: Space, values: Mapping[str, Any]) -> Note:
    if note.span is None or note.span.source.name != "trial":
        return note
    place = space.place(note.path, values)
    return replace(note, span=place[0] if place else None)


def _ways(param: Param, most: int) -> list[dict[str, Value]]:
    """The corners of one parameter, with those of the branch that each chooses."""
    return [
        {param.name: value, **inner}
        for value, _ in param.bounds()
        for inner in _combinations(param.branch(value).params if param.form == "choice" else (), most)
    ]


def _combinations(params: tuple[Param, ...], most: int) -> Iterator[dict[str, Value]]:
    """All combinations of corners, at most so many a level."""
    return (_joined(parts) for parts in islice(product(*(_ways(param, most)[:most] for param in params)), most))


def _joined(parts: Iterable[dict[str, Value]]) -> dict[str, Value]:
    return {key: value for part in parts for key, value in part.items()}


def _around(params: tuple[Param, ...], count: int) -> Iterator[dict[str, Value]]:
    """Corners in which at most `count` parameters differ from their first."""
    ways = [_ways(param, 16) for param in params]

    def with_(changes: Mapping[int, dict[str, Value]]) -> dict[str, Value]:
        return _joined(changes.get(index, way[0]) for index, way in enumerate(ways))

    yield with_({})
    for i, way in enumerate(ways):
        for one in way[1:]:
            if count == 1:
                yield with_({i: one})
                continue
            for j in range(i + 1, len(ways)):
                yield from (with_({i: one, j: other}) for other in ways[j][1:])
