"""`smpo registry` and `smpo schema`: what can be named in a spec, and what it means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smpo.cli.output import card_folders, out, print_json
from smpo.errors import MachineError
from smpo.experiment import ExperimentSpec
from smpo.registry.component import Component, summary_of
from smpo.registry.resolve import catalogue
from smpo.spec.problems import nearest
from smpo.spec.tree import plain

__all__ = ["check_command", "limits_in_words", "list_command", "schema_command", "show_command"]


def list_command(kind: str | None, *, as_json: bool, roots: Sequence[Path] | None) -> None:
    have, warnings = catalogue(extra_roots=card_folders(roots))
    kinds = have.registry.kinds()
    if kind is not None and kind not in kinds:
        close = nearest(kind, kinds)
        raise MachineError(f"there is no kind `{kind}`", help=f"did you mean `{close}`?" if close else ", ".join(kinds))
    rows = []
    for one in [kind] if kind else kinds:
        names = {name: ("component", summary_of(part)) for name, part in have.registry.of(one).items()}
        names |= {card.name: (f"card of {card.use}", card.summary) for card in have.cards.all(one)}
        rows += [{"kind": one, "name": n, "is": what, "summary": text} for n, (what, text) in sorted(names.items())]
    if as_json:
        print_json(rows)
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("kind", "name", "is", "summary"):
        table.add_column(title, no_wrap=title != "summary")
    before = ""
    for row in rows:
        table.add_row(
            *(
                escape(c)
                for c in (
                    "" if row["kind"] == before else row["kind"],
                    row["name"],
                    row["is"],
                    row["summary"],
                )
            )
        )
        before = row["kind"]
    console = out()
    console.print(table)
    for warning in warnings:
        console.print(f"[yellow]warning[/]  {escape(warning.message)}")


def show_command(name: str, *, as_json: bool, roots: Sequence[Path] | None) -> None:
    have, _ = catalogue(extra_roots=card_folders(roots))
    found: list[dict[str, Any]] = []
    everything: set[str] = set()
    for kind in have.registry.kinds():
        cards = {card.name: card for card in have.cards.all(kind)}
        components = have.registry.of(kind)
        everything |= {*cards, *components}
        if name in cards:
            card = cards[name]
            part = components.get(card.use)
            found.append(
                {
                    "kind": kind, "name": name, "is": f"card of {card.use}", "summary": card.summary,
                    "source": dict(card.source), "settings": plain(card.settings),
                    "fields": _fields(part) if part else [], "text": (part.__doc__ or "") if part else "",
                }
            )  # fmt: skip
        elif name in components:
            part = components[name]
            found.append(
                {"kind": kind, "name": name, "is": f"component v{part.version}", "summary": summary_of(part),
                 "source": {}, "settings": {}, "fields": _fields(part), "text": part.__doc__ or ""}
            )  # fmt: skip
    if not found:
        close = nearest(name, everything)
        raise MachineError(
            f"nothing is called `{name}`",
            help=f"did you mean `{close}`?" if close else "`smpo registry list` shows everything",
        )
    if as_json:
        print_json(found)
        return
    for entry in found:
        _show(entry)


def check_command(*, as_json: bool, roots: Sequence[Path] | None) -> None:
    """Every card that a name can reach; raises `SpecProblems` with all that is wrong."""
    from smpo.diagnostics.render import as_data
    from smpo.registry.check import check_cards
    from smpo.spec.problems import SpecProblems

    have, warnings = catalogue(extra_roots=card_folders(roots))
    problems = [*check_cards(have, ExperimentSpec), *warnings]
    if as_json:
        print_json({"problems": [as_data(problem) for problem in problems]})
    wrong = [problem for problem in problems if problem.level == "error"]
    if wrong:
        raise SpecProblems(problems)
    if not as_json:
        out().print(f"{len(have.cards.all())} cards: fine")


def schema_command(write: Path | None, roots: Sequence[Path] | None, *, shipped: bool = False) -> None:
    """`shipped` leaves out third parties: what is committed must not depend on what is installed."""
    from smpo.registry.cards import Cards, builtin_root
    from smpo.registry.expand import Catalogue
    from smpo.registry.plugins import own
    from smpo.registry.schema import spec_schema

    have, _ = catalogue(extra_roots=card_folders(roots))
    if shipped:
        have = Catalogue(own(have.registry), Cards([builtin_root()]))
    schema = spec_schema(ExperimentSpec, have)
    if write is None:
        print_json(schema)
    else:
        write.write_text(json.dumps(schema, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _fields(part: type[Component]) -> list[dict[str, Any]]:
    """Name, default and words of each setting; ranges as pydantic's schema gives them."""
    properties = part.model_json_schema().get("properties", {})
    rows = []
    for name, field in part.model_fields.items():
        if name == "use":
            continue
        facts = properties.get(name, {})
        limits = {key: value for key, value in _bounds(facts).items() if key in _LIMITS}
        default = "(required)" if field.is_required() else field.get_default(call_default_factory=True)
        rows.append({"name": name, "default": default, "limits": limits, "about": field.description or ""})
    return rows


def _show(entry: dict[str, Any]) -> None:
    import inspect

    from rich.markup import escape
    from rich.table import Table

    console = out()
    console.print(f"[bold]{escape(entry['kind'])} {escape(entry['name'])}[/]  {escape(entry['is'])}")
    console.print(escape(entry["summary"]))
    body = inspect.cleandoc(entry["text"]).split("\n", 1)
    if len(body) > 1:
        console.print(f"\n{escape(body[1].strip(chr(10)))}", soft_wrap=True)
    if entry["fields"]:
        console.print()
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
        for row in entry["fields"]:
            set_here = entry["settings"].get(row["name"], row["default"])
            limits = limits_in_words(row["limits"])
            table.add_row(
                escape(row["name"]),
                escape(json.dumps(set_here, default=str)),
                escape(limits),
                escape(row["about"]),
            )
        console.print(table)
    for key, value in entry["source"].items():
        console.print(f"{escape(str(key))}: {escape(str(value))}", soft_wrap=True)


_LIMITS = {"minimum": "≥", "maximum": "≤", "exclusiveMinimum": ">", "exclusiveMaximum": "<", "enum": "one of"}


def limits_in_words(facts: dict[str, Any]) -> str:
    """`≥ 1, ≤ 20` from the keywords of a JSON Schema."""
    bounds = _bounds(facts)
    found = [f"{sign} {_value(bounds[key])}" for key, sign in _LIMITS.items() if key in bounds]
    return ", ".join(found)


def _bounds(facts: dict[str, Any]) -> dict[str, Any]:
    """The keywords of a field, also where it may be null as well."""
    several = [part for part in facts.get("anyOf", []) if part.get("type") != "null"]
    return several[0] if len(several) == 1 else facts


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else f"{value}"
