"""The text of a spec that `smpo new` writes: a copy of another, with comments about what else could be set."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from smpo.experiment import ExperimentSpec
from smpo.registry.slots import kind_of, model_of
from smpo.spec.scalars import format_scalar

__all__ = ["new_text"]


def new_text(source: Path, target: Path) -> str:
    """The text of a spec under another name and in another place, with a list of what it leaves to defaults."""
    text = re.sub(r"\A# yaml-language-server:.*\n", "", source.read_text(encoding="utf-8"))
    text = re.sub(r"(?m)^name:.*$", f"name: {format_scalar(target.stem)}", text, count=1)
    text = re.sub(
        r"(?m)^extends:[ \t]*(\S+)", lambda base: f"extends: {_from(source.parent / base[1], target)}", text, count=1
    )
    schema = source.parent.parent / "registry" / "schema.json"
    head = f"# yaml-language-server: $schema={_from(schema, target)}\n" if schema.exists() else ""
    return f"{head}{text.rstrip()}\n\n{''.join(_rest(text))}"


def _rest(text: str) -> Iterator[str]:
    """Comments for the settings that the text doesn't mention."""
    yield "# ---------------------------------------- what else could be set, with its default\n"
    yield "# `smpo registry list` shows what each slot takes, `smpo plan FILE --full` every value.\n"
    for section in ("train", "evaluate", "runtime"):
        model, _ = model_of(ExperimentSpec.model_fields[section].annotation)
        assert model is not None
        lines = [line for name in model.model_fields for line in _line(model, name, text)]
        if lines:
            yield f"#\n# {section}:\n"
            yield from lines


def _line(model: type[BaseModel], name: str, text: str) -> Iterator[str]:
    info = model.model_fields[name]
    if info.is_required() or kind_of(info)[0] is not None or re.search(rf"\b{name}:", text):
        return
    value = format_scalar(info.get_default(call_default_factory=True))
    about = (info.description or "").split("\n")[0]
    yield f"#   {f'{name}: {value}':<32}{f'  # {about}' if about else ''}".rstrip() + "\n"


def _from(path: Path, target: Path) -> str:
    return Path(os.path.relpath(path.resolve(), target.resolve().parent)).as_posix()
