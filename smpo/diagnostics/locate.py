"""From pydantic's `loc` to a place in the tree, and to the model that the place belongs to.

Pydantic puts the tag of a discriminated union into `loc`, and names of union members too. Here a `loc` is
walked along the annotations and the tree together: tags are recognised by where they stand, so a component
called `steps` and a setting called `steps` can't be confused.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from smpo.spec.scalars import format_scalar
from smpo.spec.source import Span
from smpo.spec.tree import Node, Path, find

__all__ = ["Locator", "Place", "chosen", "shown_at"]


@dataclass(frozen=True)
class Place:
    """Where a `loc` leads.

    `owner` is the model whose field the last step of `path` is (or should have been).
    """

    path: Path
    owner: type[BaseModel]
    owner_path: Path


@dataclass(frozen=True)
class Locator:
    """Knows a document and the model it is checked against. `what` names the document: "a spec"."""

    root: Node
    model: type[BaseModel]
    what: str = "a spec"

    def place(self, loc: Sequence[str | int]) -> Place:
        """The place that `loc` means, without tags.

        Steps that are neither in the model nor in the tree are dropped.
        """
        annotation: Any = self.model
        path: Path = ()
        owner, owner_path = self.model, path
        steps = list(loc)
        while steps:
            annotation = _bare(annotation)
            if union := _tagged(annotation):
                if len(union) > 1 and str(steps[0]) in union:
                    annotation = union[str(steps.pop(0))]
                else:
                    annotation = chosen(annotation, self._node(path)) or next(iter(union.values()))
                continue
            step = steps.pop(0)
            if _is_model(annotation) and isinstance(step, str):
                owner, owner_path = annotation, path
                fields = annotation.model_fields
                info = fields.get(step) or next((field for field in fields.values() if field.alias == step), None)
                path = (*path, step)
                annotation = info.annotation if info else None
            elif self._node((*path, step)) is not None:
                path = (*path, step)
                annotation = _item(annotation)
        return Place(path, owner, owner_path)

    def owner_of(self, path: Path) -> str:
        """How to speak of the model at `path`: "objective `smpo`", "`train`", "a spec"."""
        if not path:
            return self.what
        model = self.model_at(path)
        if model is not None and getattr(model, "kind", None):
            return self.called(model)
        return "`" + ".".join(map(str, path)) + "`"

    @staticmethod
    def called(component: type[BaseModel]) -> str:
        """Kind and name: "objective `smpo`"."""
        kind = getattr(component, "kind", None)
        return f"{kind} `{component.model_fields['use'].default}`"

    def siblings(self, path: Path) -> list[type[BaseModel]]:
        """What else could stand in the slot at `path`; empty when it is not a slot."""
        return list(_tagged(_bare(self._annotation(path))).values())

    def model_at(self, path: Path) -> type[BaseModel] | None:
        """The model that the map at `path` is an instance of, if it is one."""
        annotation = self._close(self._annotation(path), path)
        return annotation if _is_model(annotation) else None

    def default_of(self, path: Path) -> str:
        """`, 2000` where the setting at `path` has a default that fits in a sentence, else nothing."""
        model = self.model_at(path[:-1])
        info = model.model_fields.get(str(path[-1])) if model is not None else None
        if info is None or not isinstance(info.default, str | int | float):
            return ""
        return f", {format_scalar(info.default)}"

    def settings(self) -> Iterator[str]:
        """The dotted path of every setting there is, as far as components are chosen."""
        yield from self._settings(self.model, ())

    def _settings(self, model: type[BaseModel], path: Path) -> Iterator[str]:
        for name, info in model.model_fields.items():
            inner_path = (*path, name)
            yield ".".join(map(str, inner_path))
            inner = self._close(info.annotation, inner_path)
            if _is_model(inner):
                yield from self._settings(inner, inner_path)

    def _annotation(self, path: Path) -> Any:
        annotation: Any = self.model
        for depth, step in enumerate(path):
            annotation = self._close(annotation, path[:depth])
            if _is_model(annotation):
                info = annotation.model_fields.get(str(step))
                annotation = info.annotation if info else None
            else:
                annotation = _item(annotation)
        return annotation

    def _close(self, annotation: Any, path: Path) -> Any:
        annotation = _bare(annotation)
        return chosen(annotation, self._node(path)) if _tagged(annotation) else annotation

    def _node(self, path: Path) -> Node | None:
        reached, _, node = find(self.root, path)
        return node if reached == path else None


def chosen(annotation: Any, node: Node | None) -> type[BaseModel] | None:
    """The member of a union that a map names with `use`."""
    entry = node.entries.get("use") if node is not None else None
    return _tagged(_bare(annotation)).get(str(entry.node.data)) if entry else None


def shown_at(node: Node, key: Span) -> Span:
    """A component is shown where it was named, another map at its key, a value at itself."""
    if node.via is not None:
        return node.span
    use = node.entries.get("use")
    if use is not None:
        return use.node.span
    return key if node.is_map else node.span


def _bare(annotation: Any) -> Any:
    """Without `Annotated` and without `None`."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
            continue
        if get_origin(annotation) in (Union, types.UnionType):
            parts = [part for part in get_args(annotation) if part is not type(None)]
            if len(parts) == 1:
                annotation = parts[0]
                continue
        return annotation


def _tagged(annotation: Any) -> dict[str, type[BaseModel]]:
    """The members of a union of components by name; a single component is a union of one."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return {}
    named = {}
    for member in (_bare(part) for part in get_args(annotation) if part is not type(None)):
        if not _is_model(member) or "use" not in member.model_fields:
            return {}
        named[str(member.model_fields["use"].default)] = member
    return named


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _item(annotation: Any) -> Any:
    arguments = get_args(_bare(annotation))
    return arguments[-1] if arguments else None
