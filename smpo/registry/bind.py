"""Close a skeleton over what is installed: slots become unions of the registered components.

The skeleton stays what type checkers see (`objective: Objective`); the bound model is a subclass of it that
pydantic can validate and describe. Nested sections are bound as well.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, TypeVar, Union

from pydantic import BaseModel, Field, create_model

from smpo.registry.component import Component, Registry
from smpo.registry.slots import kind_of, model_of

__all__ = ["bind"]

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
