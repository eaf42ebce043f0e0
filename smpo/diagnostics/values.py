"""Values that don't fit: what was wanted, what is written, and what to write instead when that is plain to see."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from smpo.diagnostics.locate import Locator
from smpo.diagnostics.phrases import listed, name_of
from smpo.spec.problems import Problem, nearest, quoted
from smpo.spec.scalars import is_number, number_spelled
from smpo.spec.tree import Node, Path, dotted, find

__all__ = ["expectation", "unfitting"]

Error = Mapping[str, Any]
"""One entry of `ValidationError.errors()`."""


def unfitting(path: Path, wanted: list[tuple[str, Mapping[str, Any]]], locator: Locator) -> Problem:
    reached, key, node = find(locator.root, path)
    wants = list(dict.fromkeys(text for text, _ in wanted))
    name = name_of(path) or locator.what
    if reached != path:
        return Problem(f"{name} should be {' or '.join(wants)}, which its default is not", key, dotted(path))
    label = next((hint for _, error in wanted if (hint := _hint(node, error))), "")
    label = label or _structure(path, node, locator)
    lone = node.is_map or node.is_list
    return Problem(
        f"{name} should {_be(wants)}, not {_as_written(node, wanted)}",
        key if lone and node.is_map else node.span,
        dotted(path),
        label=label,
    )


_GLUED = re.compile(r"\s*[A-Za-z_][\w-]*:[^\s:/]")
_FOREIGN = ("${", "$(", "{{", "%(")


def _structure(path: Path, node: Node, locator: Locator) -> str:
    """Values of another shape than the setting has: a section without its braces, a path that goes on, expressions."""
    text, model = node.written, locator.model_at(path)
    if model is not None and not node.is_map:
        if isinstance(node.data, str) and _GLUED.match(node.data):
            return "a space is missing after the colon"
        names = [f"`{name}`" for name in model.model_fields if name != "use"]
        line = f"settings: {', '.join(names)}"
        return line if len(line) <= 100 else f"{line[:97].rsplit(',', 1)[0]}, …"
    if node.is_map and model is None and node.span.source.path is None:
        return f"nothing is below `{dotted(path)}`"
    if isinstance(node.data, str) and text.strip("'\"").startswith(_FOREIGN):
        return "there are no expressions: write the value"
    return ""


def _be(wants: list[str]) -> str:
    having = [want for want in wants if want.startswith("have ")]
    being = [want for want in wants if want not in having]
    return " or ".join([f"be {' or '.join(being)}"] * bool(being) + having)


def _as_written(node: Node, wanted: list[tuple[str, Mapping[str, Any]]]) -> str:
    for _, error in wanted:
        if "actual_length" in error.get("ctx", {}):
            return str(error["ctx"]["actual_length"])
    if node.is_map or node.is_list:
        return node.written
    return quoted(node.written) if node.data is not None and node.written else "empty"


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
    "literal_error": lambda ctx: listed(_expected_names(ctx)),
    "enum": lambda ctx: listed(_expected_names(ctx)),
    "string_pattern_mismatch": lambda ctx: f"text that fits `{ctx['pattern']}`",
    "string_too_short": lambda ctx: f"have at least {_amount(ctx, 'min_length', 'character')}",
    "string_too_long": lambda ctx: f"have at most {_amount(ctx, 'max_length', 'character')}",
    "too_short": lambda ctx: f"have at least {_amount(ctx, 'min_length', 'item')}",
    "too_long": lambda ctx: f"have at most {_amount(ctx, 'max_length', 'item')}",
}


def expectation(error: Mapping[str, Any]) -> str:
    known = _EXPECTED.get(str(error["type"]))
    if known is None:
        message = str(error["msg"])
        return message.removeprefix("Input should be ").removeprefix("Value error, ")
    return known if isinstance(known, str) else known(error.get("ctx", {}))


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
            return "take the quotes away" if is_number(value, whole=kind == "int_type") else ""
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
