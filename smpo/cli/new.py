"""`smpo new`: a spec to start from, with comments that say what else could be set."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from pydantic import BaseModel

from smpo.cli.output import find_spec, out, print_json, resolve_spec, shipped_specs
from smpo.errors import MachineError
from smpo.experiment import ExperimentSpec
from smpo.registry.slots import kind_of, model_of
from smpo.spec.problems import nearest
from smpo.spec.scalars import format_scalar

__all__ = ["new_command", "new_text"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
_MODELINE = re.compile(r"\A# yaml-language-server:.*\n")


def new_command(name: str, start: str, *, force: bool, as_json: bool = False) -> None:
    """Write `NAME.yaml`; an existing file is kept unless `force`."""
    target = Path(name) if name.endswith((".yaml", ".yml")) else Path(f"{name}.yaml")
    if not _NAME.fullmatch(target.stem):
        raise MachineError(
            f"`{target.stem}` can't be the name of an experiment",
            help="letters, digits, `-`, `_` and `.` will do",
        )
    if target.exists() and not force:
        raise MachineError(f"there is already a file {target}", help="choose another name, or add `--force`")
    source = find_spec(start)
    if not source.exists():
        close = nearest(start, list(shipped_specs()))
        raise MachineError(
            f"there is no spec `{start}` to start from",
            help=f"did you mean `{close}`?" if close else f"choose one of {', '.join(shipped_specs())}",
        )
    resolved = resolve_spec(str(source), [])  # what starts from something unsound is unsound
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(new_text(source, target), encoding="utf-8")
    if as_json:
        facts = {"file": str(target), "name": target.stem, "from": str(source)}
        print_json({**facts, "spec": resolved.identity.spec_hash})
        return
    out().print(
        f"{target}: try `smpo plan {quote(str(target))}`, then `smpo run {quote(str(target))}`",
        soft_wrap=True,
        markup=False,
    )


def new_text(source: Path, target: Path) -> str:
    """The text of a spec under another name and in another place, with a list of what it leaves to defaults."""
    text = _MODELINE.sub("", source.read_text(encoding="utf-8"))
    text = re.sub(r"(?m)^name:.*$", f"name: {format_scalar(target.stem)}", text, count=1)
    text = re.sub(r"(?m)^extends:[ \t]*(\S+)", lambda found: _moved(found, source, target), text, count=1)
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


def _moved(found: re.Match[str], source: Path, target: Path) -> str:
    return f"extends: {_from(source.parent / found[1], target)}"


def _from(path: Path, target: Path) -> str:
    return Path(os.path.relpath(path.resolve(), target.resolve().parent)).as_posix()
