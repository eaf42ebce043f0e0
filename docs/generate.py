"""Write the pages under docs/reference/ from what smpo is: its commands, its registry, its settings, its errors.

    python docs/generate.py            # write
    python docs/generate.py --check    # 1 when a page is stale

Third parties that happen to be installed are left out, so the pages depend on this checkout alone.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from smpo.cli.registry import limits_in_words
from smpo.experiment import ExperimentSpec
from smpo.registry.cards import Card, Cards, builtin_root
from smpo.registry.component import REGISTRY, Component, summary_of
from smpo.registry.expand import Catalogue
from smpo.registry.plugins import own
from smpo.registry.slots import Slot, find_slots, kind_of, model_of
from smpo.spec.identity import UNHASHED
from smpo.spec.tree import plain

import smpo.components  # noqa: F401, isort: skip -- fills the common registry

HERE = Path(__file__).parent
TARGET = HERE / "reference"
REAL = HERE.parent / "tests" / "cli" / "errors"


def pages() -> dict[str, str]:
    """Every generated page by name."""
    have = Catalogue(own(REGISTRY), Cards([builtin_root()]))
    made = {"cli.md": cli(), "registry.md": registry(have), "spec.md": spec(), "errors.md": errors()}
    return {name: "<!-- Written by docs/generate.py; don't edit. -->\n" + text for name, text in made.items()}


# ------------------------------------------------------------------------------------------------ command line


def cli() -> str:
    from typer.main import get_command

    from smpo.cli.main import app

    command: Any = get_command(app)
    parts = ["# Command line\n", f"{command.help}\n", "`smpo COMMAND --help` says the same.\n"]
    for name, one in sorted(command.commands.items()):
        inner = getattr(one, "commands", None)
        for path, leaf in (
            sorted({f"{name} {sub}": c for sub, c in inner.items()}.items()) if inner else [(name, one)]
        ):
            parts += _command(path, leaf)
    return "\n".join(parts)


def _command(path: str, command: Any) -> Iterator[str]:
    yield f"## smpo {path}\n"
    yield f"{inspect.cleandoc(command.help or '')}\n"
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    words = " ".join(p.metavar or (p.name or "").upper() for p in arguments)
    yield f"```text\nsmpo {path}{' ' + words if words else ''} [OPTIONS]\n```\n"
    rows = [(f"`{p.metavar or p.name}`", getattr(p, "help", None) or "") for p in arguments]
    for p in command.params:
        if p.param_type_name == "option" and p.name != "help":
            value = "" if p.is_flag else f" {p.metavar or p.type_descriptor.annotation.__name__.upper()}"
            default = "" if p.default in (None, False, ()) or p.is_flag else f" Default: `{p.default}`."
            rows.append((f"`{', '.join(p.opts)}{value}`", f"{p.help or ''}{default}"))
    yield from _table(("word", "meaning"), rows)


# ------------------------------------------------------------------------------------------------ registry


def registry(have: Catalogue) -> str:
    parts = [
        "# Registry\n",
        "Everything a spec can name, as `smpo registry list` and `smpo registry show NAME` print it.\n",
    ]
    for kind in have.registry.kinds():
        cards = have.cards.all(kind)
        components = have.registry.of(kind)
        parts.append(f"## {kind}\n")
        base = next(iter(components.values()), None)
        about = _kind_text(base)
        if about:
            parts.append(f"{about}\n")
        rows = [
            (f"[`{name}`](#{kind}-{_slug(name)})", "component", summary_of(c))
            for name, c in components.items()
        ]
        rows += [(f"[`{c.name}`](#{kind}-{_slug(c.name)})", f"card of `{c.use}`", c.summary) for c in cards]
        parts += _table(("name", "is", "summary"), rows)
        shared = _shared(components.values())
        if shared:
            parts.append(f"### Settings that several have {{ #{kind}-shared }}\n")
            parts += _table(FIELD_TITLES, list(shared))
        for name, component in components.items():
            parts += _component(kind, name, component, shared)
        for card in cards:
            parts += _card(kind, card)
    return "\n".join(parts)


def _kind_text(component: type[Component] | None) -> str:
    bases = [b for b in component.__mro__ if b.__module__.startswith("smpo.kinds.")] if component else []
    return inspect.cleandoc(bases[0].__doc__ or "") if bases else ""


def _shared(components: Iterable[type[Component]]) -> dict[tuple[str, ...], None]:
    """Rows that three or more components of a kind have alike, in order."""
    counts = Counter(row for component in components for row in _rows(component, skip=("use",)))
    return {row: None for row, count in counts.items() if count >= SHARED}


def _component(
    kind: str, name: str, component: type[Component], shared: Container[tuple[str, ...]]
) -> Iterator[str]:
    yield f"### {name} {{ #{kind}-{_slug(name)} }}\n"
    yield f"{_markdown(component.__doc__ or '')}\n"
    rows = _rows(component, skip=("use",))
    yield from _table(FIELD_TITLES, [row for row in rows if row not in shared])
    if common := [row[0] for row in rows if row in shared]:
        yield f"Also {', '.join(common)}: see [above](#{kind}-shared).\n"
    yield f"Version {component.version}, `{component.__module__}:{component.__qualname__}`.\n"


def _card(kind: str, card: Card) -> Iterator[str]:
    yield f"### {card.name} {{ #{kind}-{_slug(card.name)} }}\n"
    yield f"{card.summary} Card of [`{card.use}`](#{kind}-{_slug(card.use)}).\n"
    settings = plain(card.settings)
    yield from _table(("setting", "value"), [(f"`{k}`", f"`{json.dumps(v)}`") for k, v in settings.items()])
    facts = [f"{key}: {value}" for key, value in card.source.items()]
    facts += [f"made for {slot}: {', '.join(names)}" for slot, names in card.fits.items()]
    facts += [f"download: {card.needs.gigabytes:g} GB"] if card.needs.gigabytes else []
    if facts:
        yield "".join(f"- {fact}\n" for fact in facts)


# ------------------------------------------------------------------------------------------------ settings


def spec() -> str:
    parts = [
        "# Settings and identity\n",
        "Every setting of a spec outside its slots. What is *hashed* is part of the experiment's identity.\n",
        "## Slots\n",
        *_table(
            ("slot", "takes", "default", "hashed"),
            [_slot_row(slot) for slot in find_slots(ExperimentSpec)],
        ),
        "## At the top\n",
        *_fields(ExperimentSpec, hashed=lambda name: name not in UNHASHED),
    ]
    for name, info in ExperimentSpec.model_fields.items():
        section, _ = model_of(info.annotation)
        if section is not None and kind_of(info)[0] is None:
            parts += [f"## {name}\n", f"{_markdown(section.__doc__ or '')}\n"]
            parts += _fields(section, hashed=lambda _, top=name: top not in UNHASHED)
    parts += [
        "## Also hashed\n",
        "The `version` of every component that sits in a slot, and the content of every file under `uses:`.\n",
        "## Never hashed\n",
        f"{', '.join(f'`{name}`' for name in UNHASHED)}; comments, order of keys, spelling of numbers, short or long "
        "form.\n",
    ]
    return "\n".join(parts)


def _slot_row(slot: Slot) -> tuple[str, ...]:
    takes = f"list of {slot.kind.kind}" if slot.many else slot.kind.kind
    return f"`{slot.name}`", takes, f"`{slot.default}`" if slot.default else "", "yes"


FIELD_TITLES = ("setting", "default", "range", "meaning")
SHARED = 3
"""Components that have a setting alike, from which on it is listed once for all."""


def _fields(model: type[BaseModel], *, hashed: Any = None) -> Iterator[str]:
    yield from _table((*FIELD_TITLES, "hashed"), _rows(model, hashed=hashed))


def _rows(model: type[BaseModel], *, skip: tuple[str, ...] = (), hashed: Any = None) -> list[tuple[str, ...]]:
    facts = model.model_json_schema().get("properties", {}) if issubclass(model, Component) else {}
    rows = []
    for name, info in model.model_fields.items():
        section, _ = model_of(info.annotation)
        if name in skip or kind_of(info)[0] is not None or (section is not None and hashed is not None):
            continue
        default = (
            "required" if info.is_required() else f"`{_written(info.get_default(call_default_factory=True))}`"
        )
        limits = limits_in_words(facts.get(name) or _facts(model, name))
        about = " ".join((info.description or "").split())
        row = (f"`{name}`", default, limits, about)
        rows.append((*row, "yes" if hashed(name) else "no") if hashed else row)
    return rows


def _facts(model: type[BaseModel], name: str) -> dict[str, Any]:
    """The schema of one field; the whole model's can't be made while its slots are open."""
    from pydantic import TypeAdapter

    info = model.model_fields[name]
    annotation = info.rebuild_annotation()
    return TypeAdapter(annotation).json_schema()


def _written(value: Any) -> str:
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, default=str)


# ------------------------------------------------------------------------------------------------ errors


def errors() -> str:
    parts = [
        "# Errors\n",
        "Mistakes in specs and the errors that they give, word for word: the golden files of `tests/cli/errors`, which "
        "`nox -s golden` writes anew.\n",
    ]
    for case in sorted(REAL.glob("*.yaml")):
        said = case.with_suffix(".txt")
        if case.stem.startswith("_") or not said.exists():
            continue
        try:
            mistake, answer = case.read_text(encoding="utf-8"), said.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if (
            any(not c.isprintable() and c not in "\n\t" for c in mistake)
            or len(answer) > 4000
            or len(mistake) > 2000
        ):
            continue
        parts.append(f"## {case.stem.replace('_', ' ')}\n")
        parts.append(f"~~~~yaml\n{mistake.rstrip()}\n~~~~\n")
        parts.append(f"~~~~text\n{answer.rstrip()}\n~~~~\n")
    return "\n".join(parts)


# ------------------------------------------------------------------------------------------------ words


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    body = [titles, ("---",) * len(titles), *rows]
    return ["\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in body) + "\n"]


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _markdown(doc: str) -> str:
    """A docstring: formulas are indented in it, and become code blocks."""
    return inspect.cleandoc(doc)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def main(words: list[str]) -> int:
    stale = []
    for name, text in pages().items():
        file = TARGET / name
        if file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in words:
            TARGET.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
    if stale and "--check" in words:
        sys.stderr.write(f"stale: {', '.join(stale)}; run `python docs/generate.py`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
