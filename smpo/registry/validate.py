"""A located tree against a pydantic model: a frozen object, or every problem at once."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from smpo.diagnostics.locate import Locator
from smpo.diagnostics.wording import in_order, word
from smpo.spec.problems import Problem, SpecProblems
from smpo.spec.tree import Node, Path, plain

__all__ = ["check_model"]

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
    will do for a float. `known` are problems found before; nothing more is said about places under `silent`,
    which they cover.
    """
    problems = list(known)
    try:
        checked = model.model_validate_json(json.dumps(plain(tree)), strict=True)
    except ValidationError as error:
        locator = Locator(tree, model, what)
        errors = [
            one
            for one in error.errors(include_url=False, include_input=False)
            if not _covered(locator.place(one["loc"]).path, silent)
        ]
        problems += word(errors, locator, also=also)
    if problems:
        raise SpecProblems(in_order(problems))
    return checked


def _covered(path: Path, silent: Collection[Path]) -> bool:
    return any(path[: len(above)] == above for above in silent)
