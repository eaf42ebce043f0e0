"""Where a skeleton has slots, fields annotated with a kind's base class, `Kind | None` or `list[Kind]`, at any depth;
and how it is closed over what is installed: slots become unions of the registered components.

The skeleton stays what type checkers see (`objective: Objective`); the bound model is a subclass of it that
pydantic can validate and describe. Nested sections are bound as well.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Field, create_model
from pydantic.fields import FieldInfo

from smpo.registry.component import Component, Registry, is_kind
from smpo.spec.tree import Node, Path

__all__ = ["Slot", "bind", "find_slots", "kind_of", "model_of", "slot_nodes"]


@dataclass(frozen=True)
class Slot:
    """One slot of a skeleton."""

    path: tuple[str, ...]
    kind: type[Component]
    many: bool = False
    optional: bool = False
    default: str | None = None
    implied: bool = False
    """Whether every section above it exists even when a spec doesn't write it."""

    @property
    def name(self) -> str:
        return ".".join(self.path)

    def covers(self, path: Path) -> bool:
        """Whether `path` is this slot, or one item of it."""
        if self.many:
            return len(path) == len(self.path) + 1 and path[:-1] == self.path and isinstance(path[-1], int)
        return path == self.path


def find_slots(skeleton: type[BaseModel]) -> tuple[Slot, ...]:
    """All slots, in the order of declaration.

    Raises `TypeError` where a kind stands in a shape that can't be one.
    """
    return tuple(_slots(skeleton, (), True))


def _slots(model: type[BaseModel], above: tuple[str, ...], implied: bool) -> Iterator[Slot]:
    for name, info in model.model_fields.items():
        path = (*above, name)
        kind, many, optional = kind_of(info)
        if kind is not None:
            yield Slot(path, kind, many, optional, _default(info), implied)
            continue
        section, can_be_null = model_of(info.annotation)
        if section is not None:
            yield from _slots(section, path, implied and not can_be_null and not info.is_required())


def kind_of(info: FieldInfo) -> tuple[type[Component] | None, bool, bool]:
    """`(kind, is a list, may be null)`; the kind is None when the field is not a slot."""
    inner, optional = _without_none(info.annotation)
    if is_kind(inner):
        return inner, False, optional
    if get_origin(inner) is list and is_kind(get_args(inner)[0]):
        return get_args(inner)[0], True, optional
    if any(is_kind(part) for part in _all_parts(inner)):
        raise TypeError(f"a slot is a kind, `kind | None` or `list[kind]`, not {info.annotation}")
    return None, False, optional


def model_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """`(model, may be null)` when an annotation is a nested section."""
    inner, optional = _without_none(annotation)
    if isinstance(inner, type) and issubclass(inner, BaseModel):
        return inner, optional
    return None, optional


def slot_nodes(root: Node, slots: tuple[Slot, ...]) -> Iterator[tuple[Slot, Path, Node]]:
    """The nodes of a tree that sit in slots; items one by one for lists. Absent slots are left out."""
    for slot in slots:
        node: Node | None = root
        for step in slot.path:
            entry = node.entries.get(step) if node is not None else None
            node = entry.node if entry else None
        if node is None:
            continue
        if slot.many and node.is_list:
            for index, item in enumerate(node.items):
                yield slot, (*slot.path, index), item
        else:
            yield slot, slot.path, node


def _default(info: FieldInfo) -> str | None:
    extra = info.json_schema_extra
    value = extra.get("x-default-use") if isinstance(extra, dict) else None
    return value if isinstance(value, str) else None


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        if len(parts) == 1:
            return parts[0], True
    return annotation, False


def _all_parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _all_parts(part)


Skeleton = TypeVar("Skeleton", bound=BaseModel)


def bind(skeleton: type[Skeleton], registry: Registry) -> type[Skeleton]:
    """A subclass of `skeleton` whose slots hold exactly the components of `registry`.

    The same skeleton and components give the same class: building one takes longer than reading a spec.
    """
    return _bound(skeleton, tuple(registry))


@lru_cache(maxsize=64)
def _bound(skeleton: type[Skeleton], components: tuple[type[Component], ...]) -> type[Skeleton]:
    changed: dict[str, Any] = {}
    for name, info in skeleton.model_fields.items():
        kind, many, optional = kind_of(info)
        attributes = dict(info.asdict()["attributes"])
        if kind is not None:
            annotation, discriminated = _closed(kind, components)
            if many:
                tagged = [Field(discriminator="use")] if discriminated else []
                annotation = list[_with(annotation, tagged)]  # type: ignore[misc]
            elif discriminated:
                attributes["discriminator"] = "use"
        else:
            section, optional = model_of(info.annotation)
            annotation = _bound(section, components) if section is not None else None
            if annotation is section:
                continue
            if attributes.get("default_factory") is section:
                attributes["default_factory"] = annotation  # an absent section must be the bound one too
        annotation = annotation | None if optional else annotation
        changed[name] = (_with(annotation, info.metadata), Field(**attributes))
    if not changed:
        return skeleton
    bound = create_model(
        skeleton.__name__,
        __base__=skeleton,
        __module__=skeleton.__module__,
        __doc__=skeleton.__doc__,
        **changed,
    )
    return bound


def _closed(kind: type[Component], components: tuple[type[Component], ...]) -> tuple[Any, bool]:
    """The union of a kind's components, and whether it is one that needs telling apart."""
    members = tuple(component for component in components if component.kind == kind.kind)
    if len(members) < 2:
        return (members[0] if members else kind), False
    return Union[members], True  # noqa: UP007 -- built from a tuple


def _with(annotation: Any, metadata: list[Any]) -> Any:
    return Annotated[(annotation, *metadata)] if metadata else annotation
