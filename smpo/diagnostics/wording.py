"""Pydantic's errors in our words: one sentence each, with the value as it was written, and a suggestion.

Several errors about one value (the members of a union) become one sentence. `SpecError`s that validators
raised are unwrapped and located.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from smpo.diagnostics.locate import Locator, Place
from smpo.diagnostics.phrases import name_of, suggest
from smpo.diagnostics.values import expectation, unfitting
from smpo.errors import SpecError, SpecErrors
from smpo.spec.problems import Note, Problem, nearest, quoted
from smpo.spec.source import Span
from smpo.spec.tree import Node, Path, dotted, find

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
            problems.append(_extra(place, locator, also))
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


def _extra(place: Place, locator: Locator, also: Iterable[str]) -> Problem:
    name = str(place.path[-1])
    _, key, _ = find(locator.root, place.path)
    owner = locator.owner_of(place.owner_path)
    fields = [info.alias or field for field, info in place.owner.model_fields.items()]
    known = [*fields, *(also if not place.owner_path else ())]
    notes: tuple[Note, ...] = ()
    label = ""
    elsewhere = [path for path in locator.settings() if path.split(".")[-1] == name and name != "use"]
    if len(elsewhere) == 1:
        label = f"did you mean `{elsewhere[0]}`?"
    elif name in locator.settings():
        first, rest = name.split(".", 1)
        label = f"write `{first}: {{{rest}: …}}`; dots are for --set"
    others = [one for one in locator.siblings(place.owner_path) if name in one.model_fields and name != "use"]
    if others and not nearest(name, known):
        label = f"it is a setting of {locator.called(others[0])}"
    label = label or suggest(name, [one for one in known if one != "use"], what="settings")
    _, _, section = find(locator.root, place.owner_path)
    chosen = _value_span(section, key)
    if "use" in section.entries and chosen.source is not key.source:
        notes = (Note(f"{owner} was chosen here", chosen),)
    return Problem(
        f"{quoted(name)} is not a setting of {owner}", key, dotted(place.path), label=label, notes=notes
    )


def _missing(place: Place, locator: Locator) -> Problem:
    name = str(place.path[-1])
    _, key, section = find(locator.root, place.owner_path)
    span = _value_span(section, key) if place.owner_path else locator.root.span.source.whole()
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
            notes.append(Note(f"`{dotted(where)}` is set here", _value_span(node, span), dotted(where)))
        else:
            default = locator.default_of(where)
            notes.append(Note(f"`{dotted(where)}` has its default{default}", None, dotted(where)))
    _, span, node = find(locator.root, path)
    return Problem(error.message, _value_span(node, span), dotted(path), notes=tuple(notes), help=error.help)


def _steps(path: str) -> Path:
    return tuple(int(step) if step.isdigit() else step for step in path.split(".") if step)


def _value_span(node: Node, key: Span) -> Span:
    """A component is shown where it was named, another map at its key, a value at itself."""
    if node.via is not None:
        return node.span
    use = node.entries.get("use")
    if use is not None:
        return use.node.span
    return key if node.is_map else node.span


def _located(message: str, place: Place, locator: Locator) -> Problem:
    _, span, node = find(locator.root, place.path)
    name = name_of(place.path)
    return Problem(f"{name}: {message}" if name else message, _value_span(node, span), dotted(place.path))
