"""Pydantic's errors in our words: one sentence each, with the value as it was written, and a suggestion.

Several errors about one value (the members of a union) become one sentence. `SpecError`s that validators
raised are unwrapped and located.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from smpo.diagnostics.locate import Locator, Place, shown_at
from smpo.diagnostics.phrases import name_of
from smpo.diagnostics.unknown_keys import unknown_key
from smpo.diagnostics.values import expectation, unfitting
from smpo.errors import SpecError, SpecErrors
from smpo.spec.problems import Note, Problem
from smpo.spec.tree import Path, dotted, find

__all__ = ["word"]


def word(errors: Sequence[Mapping[str, Any]], locator: Locator, *, also: Iterable[str] = ()) -> list[Problem]:
    """Problems for `ValidationError.errors()`.

    `also` names top-level keys that are part of the language though not of the model (`extends`, ...).
    """
    problems: list[Problem] = []
    expected: dict[Path, list[tuple[str, Mapping[str, Any]]]] = {}
    for error in errors:
        place = locator.place(error["loc"])
        kind = str(error["type"])
        if kind == "extra_forbidden":
            problem = unknown_key(place, locator, also)
            told = problem.help in [one.help for one in problems]
            problems.append(replace(problem, help=None) if told else problem)
        elif kind == "missing":
            problems.append(_missing(place, locator))
        elif isinstance(raised := error.get("ctx", {}).get("error"), SpecError | SpecErrors):
            every = raised.errors if isinstance(raised, SpecErrors) else (raised,)
            problems += [_rule(one, place, locator) for one in every]
        elif kind in ("value_error", "assertion_error"):
            problems.append(_located(str(error["ctx"]["error"]) or "is not valid", place, locator))
        else:
            expected.setdefault(place.path, []).append((expectation(error), error))
    for path, wanted in expected.items():
        problems.append(unfitting(path, wanted, locator))
    return problems


# ------------------------------------------------------------------------------------------------ keys


def _missing(place: Place, locator: Locator) -> Problem:
    name = str(place.path[-1])
    _, key, section = find(locator.root, place.owner_path)
    span = shown_at(section, key) if place.owner_path else locator.root.span.source.whole()
    info = place.owner.model_fields.get(name)
    about = _about(info) if info else ""
    return Problem(
        f"{locator.owner_of(place.owner_path)} needs `{name}`",
        span,
        dotted(place.path),
        help=f"`{name}`: {about}" if about else None,
    )


def _about(info: FieldInfo) -> str:
    """What a setting is, in a line: its description, or that of the section it holds."""
    section = isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)
    text = info.description or (info.annotation.__doc__ if section else "") or ""
    return text.strip().split("\n")[0]


# ------------------------------------------------------------------------------------------------ rules


def _rule(error: SpecError, place: Place, locator: Locator) -> Problem:
    """A `SpecError`, whose paths are relative to the model that raised it."""
    path = (*place.path, *_steps(error.path))
    notes = []
    for related in error.related:
        where = (*place.path, *_steps(related))
        reached, span, node = find(locator.root, where)
        if reached == where:
            notes.append(Note(f"`{dotted(where)}` is set here", shown_at(node, span), dotted(where)))
        else:
            default = locator.default_of(where)
            notes.append(Note(f"`{dotted(where)}` has its default{default}", None, dotted(where)))
    _, span, node = find(locator.root, path)
    return Problem(error.message, shown_at(node, span), dotted(path), notes=tuple(notes), help=error.help)


def _steps(path: str) -> Path:
    return tuple(int(step) if step.isdigit() else step for step in path.split(".") if step)


def _located(message: str, place: Place, locator: Locator) -> Problem:
    _, span, node = find(locator.root, place.path)
    name = name_of(place.path)
    return Problem(f"{name}: {message}" if name else message, shown_at(node, span), dotted(place.path))
