"""Components, frozen pydantic objects that are their own configuration, and the registry of their names.

A *kind* is a base class with a `kind` and no name of its own. A *component* is a subclass with a `use`:

    @register
    class Warm(Lamp):
        \"\"\"Light as from a candle.\"\"\"
        use: Literal["warm"] = "warm"
        kelvin: int = Field(2700, gt=0, description="Colour temperature.")
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["REGISTRY", "Component", "Registry", "collecting", "is_kind", "register", "slot", "summary_of"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


class Component(BaseModel):
    """Something that a slot of a spec can name.

    Fields are settings; `use` is the name. Methods and properties may do work, and should import what is
    heavy inside themselves: declaring a component must stay cheap.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)

    kind: ClassVar[str] = ""
    """What sort of slot it goes into. Set on the kind's base class."""
    noun: ClassVar[str] = ""
    """What one of the kind is called in a sentence, where that isn't the kind's own name."""
    version: ClassVar[int] = 1
    """Raise it when the same settings would now give another result. It is part of a run's identity."""
    requires: ClassVar[tuple[str, ...]] = ()
    """Modules that must be importable before this can do its work, beyond what smpo itself depends on."""
    extra: ClassVar[str | None] = None
    """The optional dependency group of smpo that brings them, if there is one."""

    use: str


Kind = TypeVar("Kind", bound=type[Component])


class Registry:
    """Components by kind and name.

    Registering the same class twice is fine; two classes under one name are not.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, dict[str, type[Component]]] = {}

    def add(self, component: type[Component]) -> None:
        """Raises `TypeError` when the class can't be a component, or when its name is taken by another."""
        name = _checked_name(component)
        named = self._kinds.setdefault(component.kind, {})
        other = named.get(name)
        if other is not None and _identity(other) != _identity(component):
            clash = f"{component.kind} `{name}` is already {_identity(other)}"
            raise TypeError(f"{clash}; {_identity(component)} needs another name")
        named[name] = component

    def get(self, kind: str, name: str) -> type[Component] | None:
        return self._kinds.get(kind, {}).get(name)

    def of(self, kind: str) -> dict[str, type[Component]]:
        """The components of a kind, by name, in alphabetical order."""
        return dict(sorted(self._kinds.get(kind, {}).items()))

    def kinds(self) -> tuple[str, ...]:
        return tuple(sorted(self._kinds))

    def __iter__(self) -> Iterator[type[Component]]:
        for kind in self.kinds():
            yield from self.of(kind).values()

    def copy(self) -> Registry:
        """The same components; what is added to the copy stays out of this one."""
        twin = Registry()
        twin._kinds = {kind: dict(named) for kind, named in self._kinds.items()}
        return twin


REGISTRY = Registry()
"""What importing a package of components fills."""

_current: ContextVar[Registry] = ContextVar("smpo_registry", default=REGISTRY)


def register(component: Kind) -> Kind:
    """Class decorator: make a component known by its `use`."""
    _current.get().add(component)
    return component


@contextmanager
def collecting(registry: Registry) -> Iterator[Registry]:
    """Inside, `@register` fills this registry instead of the common one."""
    token = _current.set(registry)
    try:
        yield registry
    finally:
        _current.reset(token)


def slot(default: str, *, description: str | None = None) -> Any:
    """Field of a slot whose default is the card or component of this name."""
    return Field(description=description, json_schema_extra={"x-default-use": default})


def is_kind(annotation: object) -> bool:
    """Whether a class is the base class of a kind: a `Component` with a kind but without a name."""
    return (
        isinstance(annotation, type)
        and issubclass(annotation, Component)
        and bool(annotation.kind)
        and annotation.model_fields["use"].is_required()
    )


def summary_of(component: type[BaseModel]) -> str:
    """The first line of a class's own docstring."""
    lines = inspect.cleandoc(component.__doc__ or "").splitlines()
    return lines[0].strip() if lines else ""


def _identity(component: type[Component]) -> str:
    return f"{component.__module__}:{component.__qualname__}"


def _checked_name(component: type[Component]) -> str:
    """The component's name, after everything that can be wrong with its declaration."""
    who = _identity(component)
    if not component.kind:
        raise TypeError(f"{who} has no kind: derive it from the base class of one")
    annotation = component.model_fields["use"].annotation
    names = get_args(annotation) if get_origin(annotation) is Literal else ()
    if len(names) != 1 or component.model_fields["use"].default != names[0]:
        raise TypeError(f'{who} needs a name: use: Literal["its-name"] = "its-name"')
    name: str = names[0]
    if not _NAME.fullmatch(name):
        raise TypeError(f"{who}: `{name}` is not a name; use small letters, digits, `-`, `_` and `.`")
    if not (component.__dict__.get("__doc__") or "").strip():
        raise TypeError(f"{who} needs a docstring: its first line is shown wherever the component is listed")
    if inspect.isabstract(component):
        missing = ", ".join(sorted(component.__abstractmethods__))
        raise TypeError(f"{who} does not say how to do: {missing}")
    for field, info in component.model_fields.items():
        if any(is_kind(part) for part in _parts(info.annotation)):
            raise TypeError(f"{who}: `{field}` is a slot, and components have none")
    return name


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)
