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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from smpo.cli.registry import limits_in_words
from smpo.experiment import ExperimentSpec
from smpo.registry.cards import Card, Cards, builtin_root
from smpo.registry.component import REGISTRY, Component
from smpo.registry.expand import Catalogue
from smpo.registry.plugins import own
from smpo.registry.slots import Slot, find_slots, kind_of, model_of
from smpo.spec.identity import UNHASHED
from smpo.spec.tree import plain

import smpo.components  # noqa: F401, isort: skip -- fills the common registry

HERE = Path(__file__).parent
TARGET = HERE / "reference"
GOLDEN = HERE.parent / "tests" / "spec" / "errors"
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
    leaves = {
        path: leaf
        for name, one in command.commands.items()
        for path, leaf in (
            {f"{name} {sub}": c for sub, c in one.commands.items()} if hasattr(one, "commands") else {name: one}
        ).items()
    }
    counts = Counter(row for leaf in leaves.values() for row in _options(leaf))
    common = [row for row, count in counts.items() if count > 2]
    parts = [
        "# Command line\n",
        f"{command.help}\n",
        "`smpo COMMAND --help` prints a command's own page. Options that several commands have:\n",
        *_table(("option", "meaning"), sorted(common)),
    ]
    for path, leaf in sorted(leaves.items()):
        parts += _command(path, leaf, common)
    return "\n".join(parts)


def _command(path: str, command: Any, common: list[tuple[str, str]]) -> Iterator[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    words = "".join(f" {p.metavar or (p.name or '').upper()}" for p in arguments)
    rows = [(f"`{p.metavar or p.name}`", getattr(p, "help", None) or "") for p in arguments]
    options = _options(command)
    shared = [f"`{row[0].strip('`').split(',')[0].split(' ')[0]}`" for row in options if row in common]
    yield f"## smpo {path}{words}\n"
    yield f"{inspect.cleandoc(command.help or '')}\n"
    yield from _table(("argument or option", "meaning"), [*rows, *(row for row in options if row not in common)])
    if shared:
        yield f"Also {', '.join(shared)}.\n"


def _options(command: Any) -> list[tuple[str, str]]:
    rows = []
    for p in command.params:
        if p.param_type_name == "option" and p.name != "help":
            value = "" if p.is_flag else f" {p.metavar or p.type_descriptor.annotation.__name__.upper()}"
            default = "" if p.default in (None, False, ()) or p.is_flag else f" Default: `{p.default}`."
            rows.append((f"`{', '.join(p.opts)}{value}`", f"{p.help or ''}{default}"))
    return rows


# ------------------------------------------------------------------------------------------------ registry


def registry(have: Catalogue) -> str:
    parts = [
        "# Registry\n",
        "Every name that a spec can use, with the first sentence of its description. `smpo registry show NAME` prints "
        "the rest; formulas are in [the method](../method.md).\n",
    ]
    for kind in have.registry.kinds():
        components = have.registry.of(kind)
        parts += [f"## {kind}\n", f"{_first_sentence(_kind_text(components))}\n"]
        names = [(f"`{name}`", "", _first_sentence(c.__doc__ or "")) for name, c in components.items()]
        names += [(f"`{c.name}`", _preset(c), _card_text(c)) for c in have.cards.all(kind)]
        parts += _table(("name", "preset of", "description"), names)
        parts += _settings(components)
    return "\n".join(parts)


def _kind_text(components: Mapping[str, type[Component]]) -> str:
    base = next(iter(components.values()), None)
    bases = [b for b in base.__mro__ if b.__module__.startswith("smpo.kinds.")] if base else []
    return bases[0].__doc__ or "" if bases else ""


def _preset(card: Card) -> str:
    settings = ", ".join(f"{key}: {_plain(value)}" for key, value in plain(card.settings).items())
    return f"`{card.use}`" + (f" with `{{{settings}}}`" if settings else "")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _card_text(card: Card) -> str:
    facts = [str(card.source[key]) for key in ("paper", "licence") if key in card.source]
    facts += [f"{card.needs.gigabytes:g} GB"] if card.needs.gigabytes else []
    return card.summary + (f" ({'; '.join(facts)})" if facts else "")


def _settings(components: Mapping[str, type[Component]]) -> Iterator[str]:
    """A table for each group of components that share three settings or more; then one with all others."""
    owners: dict[tuple[str, ...], list[str]] = {}
    for name, component in components.items():
        for row in _rows(component, skip=("use",)):
            owners.setdefault(row, []).append(f"`{name}`")
    groups: dict[str, list[tuple[str, ...]]] = {}
    for row, names in owners.items():
        groups.setdefault(", ".join(names), []).append(row)
    others = []
    for names, rows in groups.items():
        if "," in names and len(rows) > 2:
            yield f"Settings of {names}:\n"
            yield from _table(("setting", "default", "range", "meaning"), rows)
        else:
            others += [(names, *row) for row in rows]
    yield from _table(("of", "setting", "default", "range", "meaning"), sorted(others))


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
            parts += [f"## {name}\n", f"{_first_sentence(section.__doc__ or '')}\n"]
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


def _fields(model: type[BaseModel], *, hashed: Callable[[str], bool]) -> list[str]:
    rows = [(*row, "yes" if hashed(row[0].strip("`")) else "no") for row in _rows(model)]
    return _table(("setting", "default", "range", "meaning", "hashed"), rows)


def _rows(model: type[BaseModel], *, skip: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Name, default, range and first sentence of each field that is neither a slot nor a section."""
    component = issubclass(model, Component)
    facts = model.model_json_schema().get("properties", {}) if component else {}
    for name, info in model.model_fields.items():
        section, _ = model_of(info.annotation)
        if name in skip or kind_of(info)[0] is not None or (section is not None and not component):
            continue
        default = "required" if info.is_required() else f"`{_written(info.get_default(call_default_factory=True))}`"
        limits = limits_in_words(facts.get(name) or _facts(model, name))
        yield f"`{name}`", default, limits, _first_sentence(info.description or "")


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


EXAMPLES = {
    "Several mistakes at once": REAL / "four_mistakes_at_once",
    "Names of other trainers": REAL / "words_of_other_trainers",
    "A setting in the wrong section": REAL / "setting_in_the_wrong_section",
    "Settings that contradict each other": REAL / "batch_not_dealt_evenly",
    "A component that needs another": REAL / "smoothing_without_a_reward",
    "A search over a setting that doesn't exist": REAL / "sweep_path_misspelt",
    "A file that doesn't exist": REAL / "parent_missing",
    "A package that isn't installed": REAL / "extra_not_installed",
    "YAML that can't be read": GOLDEN / "bracket_not_closed",
    "Code of your own that fails": GOLDEN / "uses_fails",
}
"""One golden message for each class of mistakes."""


def errors() -> str:
    parts = [
        "# Errors\n",
        "Messages name the place, the mistake and the correction; all mistakes of a spec come together, before "
        "anything runs. Exit codes: 0 success, 1 a check or a run failed, 2 a mistake in the spec or the command, 3 "
        "something is missing on this machine. One example of each class follows, word for word.\n",
    ]
    for title, case in EXAMPLES.items():
        mistake, answer = (case.with_suffix(end).read_text(encoding="utf-8") for end in (".yaml", ".txt"))
        parts.append(f"## {title}\n")
        parts.append(f"~~~~yaml\n{mistake.rstrip()}\n~~~~\n")
        parts.append(f"~~~~text\n{answer.rstrip()}\n~~~~\n")
    return "\n".join(parts)


# ------------------------------------------------------------------------------------------------ words


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    head, *body = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in (titles, *rows)]
    return ["\n".join([head, "|---" * len(titles) + "|", *body]) + "\n"]


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _first_sentence(text: str) -> str:
    """The first sentence of the first paragraph; with the next, where it has fewer than six words."""
    paragraph = " ".join(inspect.cleandoc(text).partition("\n\n")[0].split())
    sentence, *others = re.split(r"(?<=[a-z0-9)`'][.]) (?=[A-Z`])", paragraph)
    return " ".join([sentence, *others[:1]]) if len(sentence.split()) < 6 else sentence


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
