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
from smpo.diagnostics.phrases import listed, name_of, suggest
from smpo.diagnostics.values import expectation, unfitting
from smpo.errors import SpecError, SpecErrors
from smpo.spec.problems import Note, Problem, nearest, quoted
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
            problem = _unknown_key(place, locator, also)
            repeated = problem.help in [one.help for one in problems]
            problems.append(replace(problem, help=None) if repeated else problem)
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


_LONG = 260
"""Characters of a list of settings that still help."""


def _unknown_key(place: Place, locator: Locator, also: Iterable[str] = ()) -> Problem:
    """A key that isn't in its model. `also` names keys of the document beside the model's.

    The label is the first of these that applies: a dotted path written as a key; a colon without its space; a word of
    other frameworks (`also_called` of the model); a setting of another component of this slot; a setting of another
    section; a slip of the finger; the settings that there are.
    """
    name = str(place.path[-1])
    _, key, _ = find(locator.root, place.path)
    owner = locator.owner_of(place.owner_path)
    fields = [info.alias or field for field, info in place.owner.model_fields.items()]
    known = [one for one in (*fields, *(also if not place.owner_path else ())) if one != "use"]
    notes: tuple[Note, ...] = ()
    _, _, section = find(locator.root, place.owner_path)
    chosen = shown_at(section, key)
    if "use" in section.entries and chosen.source is not key.source:
        notes = (Note(f"{owner} was chosen here", chosen),)
    label = _meant(name, place, locator, known) or suggest(name, known, what="settings")
    line = ", ".join(f"`{one}`" for one in known)
    help = f"{owner} has {line}" if known and not label and len(line) <= _LONG else None
    message = f"{quoted(name)} is not a setting of {owner}"
    return Problem(message, key, dotted(place.path), label=label, notes=notes, help=help)


def _meant(name: str, place: Place, locator: Locator, known: list[str]) -> str:
    """The label, for mistakes other than a typing error."""
    settings = list(locator.settings())
    if name in settings and "." in name:
        first, rest = name.split(".", 1)
        return f"write `{first}: {{{rest}: …}}`; dots are for --set"
    word, colon, value = name.partition(":")
    if colon and word in known:
        return f"write `{word}: {value}`, with a space" if value else "a space is missing after the colon"
    section = dotted(place.owner_path)
    if translated := _translated(name, section, locator) or _own_word(name, place, locator):
        return translated
    others = [one for one in locator.siblings(place.owner_path) if name in one.model_fields and name != "use"]
    if others and not nearest(name, known):
        kind = getattr(others[0], "kind", "")
        names = [str(one.model_fields["use"].default) for one in others]
        if len(names) > 3:
            return f"it is a setting of `{names[0]}`, `{names[1]}` and {len(names) - 2} others"
        return f"it is a setting of {kind} {listed(names, last='and')}"
    elsewhere = [path for path in settings if path.split(".")[-1] == name and path != f"{section}.{name}"]
    return f"did you mean {listed(elsewhere)}?" if 0 < len(elsewhere) <= 4 else ""


def _translated(name: str, section: str, locator: Locator) -> str:
    """The setting that a word of other frameworks means, if the model knows it; the reason, of a removed setting."""
    words: Mapping[str, str] = getattr(locator.model, "also_called", {})
    meant = words.get(f"{section}.{name}") or words.get(name.lower().replace("-", "_"))
    if meant is None or meant == (f"{section}.{name}" if section else name):
        return ""
    if " " in meant:
        return meant
    parent, _, last = meant.rpartition(".")
    return f"did you mean `{last if parent == section else meant}`?"


def _own_word(name: str, place: Place, locator: Locator) -> str:
    """The setting that a block itself knows by another word."""
    meant = getattr(locator.model_at(place.owner_path), "also_called", {}).get(name)
    return f"did you mean `{meant}`?" if meant else ""


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
