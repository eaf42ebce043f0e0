"""JSON Schema of spec files, for editors: names are completed, and hovering shows what they are.

A file is one layer: it may set little, adjust what it inherits, and name cards. So nothing is required, a
slot takes a name or a map, and a map may leave `use` out. The output is plain draft 7, which is what YAML
language servers take.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from smpo.registry.component import Component, summary_of
from smpo.registry.expand import Catalogue
from smpo.registry.slots import Slot, bind, find_slots

__all__ = ["spec_schema"]

DRAFT = "http://json-schema.org/draft-07/schema#"


def spec_schema(skeleton: type[BaseModel], catalogue: Catalogue, *, title: str = "spec") -> dict[str, Any]:
    """The schema of every file that can be a layer of a spec. Raises `SpecProblems` when a card is broken."""
    slots = find_slots(skeleton)
    bound = bind(skeleton, catalogue.registry)
    kinds = {slot.kind.kind for slot in slots}
    components = [component for component in catalogue.registry if component.kind in kinds]
    references, whole = models_json_schema([(model, "validation") for model in (bound, *components)])
    definitions: dict[str, Any] = whole["$defs"]
    keys = {model: reference["$ref"].rsplit("/", 1)[1] for (model, _), reference in references.items()}
    raw = definitions.pop(keys.pop(bound))
    for component in components:
        _prepare(definitions[keys[component]], component, catalogue)
    for slot in slots:
        _describe_slot(_owner(raw, definitions, slot), slot, catalogue, keys)
    schema = {"$schema": DRAFT, **raw, "title": title}
    schema["properties"] = {**_DOCUMENT, **raw["properties"]}
    used = {key: definitions[key] for key in sorted(definitions)}
    for part in (schema, *used.values()):
        part.pop("required", None)
        part.get("properties", {}).get("use", {}).pop("default", None)
    return _draft7({**schema, "definitions": used})  # type: ignore[no-any-return]


_DOCUMENT: dict[str, Any] = {
    "extends": {
        "type": ["string", "null"],
        "description": "One spec file to start from, relative to this one.",
    },
    "uses": {
        "type": ["array", "null"],
        "items": {"type": "string", "pattern": r"\.py$"},
        "description": "Python files that register components: the only thing that runs code.",
    },
    "sweep": {"type": "object", "description": "A search over settings; `smpo sweep` reads it."},
    "ablation": {
        "type": "object",
        "description": "Variations to compare over seeds; `smpo run` runs them all.",
    },
}


def _prepare(definition: dict[str, Any], component: type[Component], catalogue: Catalogue) -> None:
    """A component's map takes the names of its cards for `use`, and is described in one line."""
    name = str(component.model_fields["use"].default)
    cards = [card.name for card in catalogue.cards.all(component.kind) if card.use == name]
    about = f"{component.kind}, by name"
    definition["properties"]["use"] = {"enum": sorted({name, *cards}), "description": about}
    definition["description"] = summary_of(component)


def _owner(schema: dict[str, Any], definitions: dict[str, Any], slot: Slot) -> dict[str, Any]:
    """The object that holds a slot among its properties."""
    owner = schema
    for step in slot.path[:-1]:
        part = owner["properties"][step]
        reference = next(one for one in _references(part))
        owner = definitions[reference.rsplit("/", 1)[1]]
    return owner


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        for value in part.values():
            yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)


def _describe_slot(owner: dict[str, Any], slot: Slot, catalogue: Catalogue, keys: Mapping[Any, str]) -> None:
    kind = slot.kind.kind
    before = owner["properties"][slot.path[-1]]
    components = catalogue.registry.of(kind)
    cards = {card.name: card.summary for card in catalogue.cards.all(kind)}
    said = {**{name: summary_of(component) for name, component in components.items()}, **cards}
    choices = [{"const": name, "description": said[name]} for name in sorted(said)]
    maps = [{"$ref": f"#/$defs/{keys[one]}"} for one in components.values()]
    one: dict[str, Any] = {"anyOf": [*choices, *maps]}
    whole = {"type": "array", "items": one} if slot.many else one
    if slot.optional:
        whole = {"anyOf": [*one["anyOf"], {"type": "null"}]} if not slot.many else {"anyOf": [whole, {"type": "null"}]}
    description = before.get("description") or summary_of(slot.kind)
    owner["properties"][slot.path[-1]] = {"description": description, **whole}


def _draft7(part: Any) -> Any:
    """Without what came after draft 7 or belongs to OpenAPI. In draft 7, `$ref` silences its neighbours."""
    if isinstance(part, list):
        return [_draft7(value) for value in part]
    if not isinstance(part, dict):
        return part
    part = {key: _draft7(value) for key, value in part.items() if key not in ("discriminator", "x-default-use")}
    if "prefixItems" in part:
        part["items"] = part.pop("prefixItems")
        part["additionalItems"] = False
    if "$ref" in part:
        part["$ref"] = part["$ref"].replace("#/$defs/", "#/definitions/")
        if len(part) > 1:
            part["allOf"] = [{"$ref": part.pop("$ref")}]
    return part
