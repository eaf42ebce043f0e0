"""A located tree against a pydantic model: a frozen object, or every problem at once."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from smpo.diagnostics.locate import Locator
from smpo.diagnostics.phrases import in_order
from smpo.diagnostics.wording import word
from smpo.spec.problems import Problem, SpecProblems
from smpo.spec.tree import Node, Path, plain

__all__ = ["check_model", "check_partly"]

Model = TypeVar("Model", bound=BaseModel)


def check_model(
    tree: Node,
    model: type[Model],
    *,
    what: str = "a spec",
    also: Iterable[str] = (),
    known: Iterable[Problem] = (),
    silent: Collection[Path] = (),
) -> Model:
    """The tree as an instance of `model`. Raises `SpecProblems`.

    Types are strict, as in JSON: `"5"` is not a number, `true` is not 1, `5.0` is not a whole number, while 5
    will do for a float. `known` are problems found before; places under `silent`, which they cover, get no
    further problems.
    """
    problems = list(known)
    try:
        checked = _validated(tree, model)
    except ValidationError as error:
        locator = Locator(tree, model, what)
        told = [one for one in _errors(error) if not _covered(locator.place(one["loc"]).path, silent)]
        problems += word(told, locator, also=also)
    if problems:
        raise SpecProblems(in_order(problems))
    return checked


def check_partly(tree: Node, model: type[BaseModel], *, what: str) -> list[Problem]:
    """What is wrong with the settings that are there; others may still come."""
    try:
        _validated(tree, model)
    except ValidationError as error:
        there = [one for one in _errors(error) if one["type"] != "missing"]
        return word(there, Locator(tree, model, what))
    return []


def _validated(tree: Node, model: type[Model]) -> Model:
    return model.model_validate_json(json.dumps(plain(tree)), strict=True)


def _errors(error: ValidationError) -> list[ErrorDetails]:
    return error.errors(include_url=False, include_input=False)


def _covered(path: Path, silent: Collection[Path]) -> bool:
    return any(path[: len(above)] == above for above in silent)
