"""Pydantic's errors in our words: one sentence each, with the value as it was written, and a suggestion.

Several errors about one value (the members of a union) become one sentence. `SpecError`s that validators
raised are unwrapped and located.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from smpo.diagnostics.locate import Locator, Place
from smpo.errors import SpecError, SpecErrors
from smpo.spec.problems import Note, Problem, nearest, quoted
from smpo.spec.scalars import number_spelled
from smpo.spec.source import Span
from smpo.spec.tree import Node, Path, dotted, find

__all__ = ["in_order", "listed", "suggest", "word"]


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
            expected.setdefault(place.path, []).append((_expectation(error), error))
    for path, wanted in expected.items():
        problems.append(_unfitting(path, wanted, locator))
    return problems


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
    name = _name(place.path)
    return Problem(f"{name}: {message}" if name else message, _value_span(node, span), dotted(place.path))


# ------------------------------------------------------------------------------------------------ values


def _unfitting(path: Path, wanted: list[tuple[str, Mapping[str, Any]]], locator: Locator) -> Problem:
    reached, key, node = find(locator.root, path)
    wants = list(dict.fromkeys(text for text, _ in wanted))
    name = _name(path) or locator.what
    if reached != path:
        return Problem(f"{name} should be {' or '.join(wants)}, which its default is not", key, dotted(path))
    label = next((hint for _, error in wanted if (hint := _hint(node, error))), "")
    lone = node.is_map or node.is_list
    return Problem(
        f"{name} should {_be(wants)}, not {_as_written(node, wanted)}",
        key if lone and node.is_map else node.span,
        dotted(path),
        label=label,
    )


def _be(wants: list[str]) -> str:
    having = [want for want in wants if want.startswith("have ")]
    being = [want for want in wants if want not in having]
    return " or ".join([f"be {' or '.join(being)}"] * bool(being) + having)


def _as_written(node: Node, wanted: list[tuple[str, Mapping[str, Any]]]) -> str:
    length = next(
        (ctx["actual_length"] for _, error in wanted if "actual_length" in (ctx := error.get("ctx", {}))),
        None,
    )
    if length is not None:
        return str(length)
    if node.is_map or node.is_list:
        return node.written
    return quoted(node.written) if node.data is not None and node.written else "empty"


def _name(path: Path) -> str:
    """How to speak of a setting: its own name, with the list it is in."""
    if not path:
        return ""
    if isinstance(path[-1], int):
        return f"item {path[-1] + 1} of `{dotted(path[:-1])}`"
    return quoted(str(path[-1]))


def _number(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _amount(ctx: Mapping[str, Any], key: str, noun: str) -> str:
    return f"{ctx[key]} {noun}" if ctx[key] == 1 else f"{ctx[key]} {noun}s"


_EXPECTED: dict[str, str | Callable[[Mapping[str, Any]], str]] = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a map",
    "model_type": "a map of settings",
    "model_attributes_type": "a map of settings",
    "none_required": "empty",
    "finite_number": "a finite number",
    "greater_than": lambda ctx: f"greater than {_number(ctx['gt'])}",
    "greater_than_equal": lambda ctx: f"at least {_number(ctx['ge'])}",
    "less_than": lambda ctx: f"less than {_number(ctx['lt'])}",
    "less_than_equal": lambda ctx: f"at most {_number(ctx['le'])}",
    "multiple_of": lambda ctx: f"a multiple of {_number(ctx['multiple_of'])}",
    "literal_error": lambda ctx: _choices(ctx),
    "enum": lambda ctx: _choices(ctx),
    "string_pattern_mismatch": lambda ctx: f"text that fits `{ctx['pattern']}`",
    "string_too_short": lambda ctx: f"have at least {_amount(ctx, 'min_length', 'character')}",
    "string_too_long": lambda ctx: f"have at most {_amount(ctx, 'max_length', 'character')}",
    "too_short": lambda ctx: f"have at least {_amount(ctx, 'min_length', 'item')}",
    "too_long": lambda ctx: f"have at most {_amount(ctx, 'max_length', 'item')}",
}


def _expectation(error: Mapping[str, Any]) -> str:
    known = _EXPECTED.get(str(error["type"]))
    if known is None:
        message = str(error["msg"])
        return message.removeprefix("Input should be ").removeprefix("Value error, ")
    return known if isinstance(known, str) else known(error.get("ctx", {}))


def _choices(ctx: Mapping[str, Any]) -> str:
    return listed(_expected_names(ctx))


def _expected_names(ctx: Mapping[str, Any]) -> list[str]:
    """`"'a', 'b' or 'c'"` is how pydantic lists what it takes."""
    parts = str(ctx.get("expected", "")).replace(" or ", ", ").split(", ")
    return [part.strip("'\"") for part in parts]


def _hint(node: Node, error: Mapping[str, Any]) -> str:
    """What to write instead, when that is plain to see."""
    kind, value, text = str(error["type"]), node.data, node.written
    if kind in ("int_type", "int_from_float") and isinstance(value, float) and value.is_integer():
        return f"write `{int(value)}`"
    if kind in ("int_type", "float_type") and isinstance(value, str):
        if text[:1] in ("'", '"'):
            return "take the quotes away" if value.replace(".", "", 1).lstrip("+-").isdigit() else ""
        meant = number_spelled(value)
        return f"write `{meant}`" if meant else ""
    if kind == "bool_type" and isinstance(value, str):
        meant = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(value.lower())
        return f"did you mean `{meant}`?" if meant else ""
    if kind == "string_type" and isinstance(value, int | float | bool):
        return f'write `"{text}"`'
    if kind in ("literal_error", "enum"):
        close = nearest(str(value), _expected_names(error.get("ctx", {})))
        return f"did you mean `{close}`?" if close else ""
    if kind == "list_type" and not node.is_map and not node.is_list and value is not None:
        return f"write `[{text}]`" if len(text) < 60 else ""
    return ""
