"""The page of `smpo registry show`: one card or component with its settings."""

from __future__ import annotations

import inspect
import json
from typing import Any

from rich.markup import escape

from smpo.cli.output import make_table, out
from smpo.registry.component import Component, summary_of
from smpo.registry.expand import Catalogue
from smpo.spec.tree import plain

__all__ = ["entries_of", "limits_in_words", "show_entry"]

_LIMITS = {"minimum": "≥", "maximum": "≤", "exclusiveMinimum": ">", "exclusiveMaximum": "<", "enum": "one of"}


def entries_of(name: str, catalogue: Catalogue) -> list[dict[str, Any]]:
    """The card or component of this name in each kind; a card goes before a component."""
    entries: list[dict[str, Any]] = []
    for kind in catalogue.registry.kinds():
        components = catalogue.registry.of(kind)
        card = next((card for card in catalogue.cards.all(kind) if card.name == name), None)
        if card is not None:
            part = components.get(card.use)
            facts = {"is": f"card of {card.use}", "summary": card.summary, "source": dict(card.source)}
            facts["settings"] = plain(card.settings)
        elif name in components:
            part = components[name]
            facts = {"is": f"component v{part.version}", "summary": summary_of(part), "source": {}, "settings": {}}
        else:
            continue
        fields, text = (_fields(part), part.__doc__ or "") if part else ([], "")
        entries.append({"kind": kind, "name": name, **facts, "fields": fields, "text": text})
    return entries


def _fields(part: type[Component]) -> list[dict[str, Any]]:
    """Name, default and description of each setting; ranges as pydantic's schema gives them."""
    properties = part.model_json_schema().get("properties", {})
    rows = []
    for name, field in part.model_fields.items():
        if name == "use":
            continue
        limits = {key: value for key, value in _bounds(properties.get(name, {})).items() if key in _LIMITS}
        default = "(required)" if field.is_required() else field.get_default(call_default_factory=True)
        rows.append({"name": name, "default": default, "limits": limits, "about": field.description or ""})
    return rows


def show_entry(entry: dict[str, Any]) -> None:
    """An entry of `entries_of`: summary, docstring, a row for each setting, and the source."""
    console = out()
    console.print(f"[bold]{escape(entry['kind'])} {escape(entry['name'])}[/]  {escape(entry['is'])}")
    console.print(escape(entry["summary"]))
    _, _, body = inspect.cleandoc(entry["text"]).partition("\n")
    if body:
        console.print(f"\n{escape(body.strip(chr(10)))}", soft_wrap=True)
    if entry["fields"]:
        console.print()
        table = make_table()
        for row in entry["fields"]:
            value = json.dumps(entry["settings"].get(row["name"], row["default"]), default=str)
            table.add_row(*map(escape, (row["name"], value, limits_in_words(row["limits"]), row["about"])))
        console.print(table)
    for key, value in entry["source"].items():
        console.print(f"{escape(str(key))}: {escape(str(value))}", soft_wrap=True)


def limits_in_words(facts: dict[str, Any]) -> str:
    """`≥ 1, ≤ 20` from the keywords of a JSON Schema."""
    bounds = _bounds(facts)
    limits = {sign: bounds[key] for key, sign in _LIMITS.items() if key in bounds}
    return ", ".join(
        f"{sign} {', '.join(map(str, value)) if isinstance(value, list) else value}" for sign, value in limits.items()
    )


def _bounds(facts: dict[str, Any]) -> dict[str, Any]:
    """The keywords of a field, also where it may be null as well."""
    several = [part for part in facts.get("anyOf", []) if part.get("type") != "null"]
    return several[0] if len(several) == 1 else facts
