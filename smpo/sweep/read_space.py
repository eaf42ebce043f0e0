"""Reads a search space: the map under `search:`, checked, every mistake at its line."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

from smpo.spec.problems import Note, Problem, SpecProblems, nearest, quoted
from smpo.spec.scalars import one_number
from smpo.spec.source import Span
from smpo.spec.tree import Entry, Node, plain
from smpo.sweep.space import Branch, Form, Param, Space, Value, written

__all__ = ["read_space"]

_FORMS: tuple[Form, ...] = ("uniform", "log", "int", "choice")
_LABELS = {"name", "notes", "tags", "runtime"}


def read_space(search: Entry) -> Space:
    """The space under `search:`. Raises `SpecProblems` with everything that is wrong, each at its line."""
    reader = _Reader()
    params = reader.params(search, "", "")
    reader.overlaps(params)
    if reader.problems:
        raise SpecProblems(reader.problems)
    return Space(params)


@dataclass
class _Reader:
    problems: list[Problem] = field(default_factory=list)

    def fail(self, message: str, span: Span, path: str, label: str = "", **more: Any) -> None:
        place = f"sweep.search.{path}" if path else "sweep.search"
        self.problems.append(Problem(message, span, place, label, **more))

    def params(self, search: Entry, name: str, path: str) -> tuple[Param, ...]:
        """`name` and `path` are those of the branch around, with a dot at the end."""
        if not search.node.is_map or not search.node.entries:
            shown = "nothing" if search.node.is_map else search.node.written
            self.fail(
                f"`search` takes a map from settings to what is tried, not {quoted(shown)}",
                search.key if search.node.is_map else search.node.span,
                name.rstrip("."),
                help="such as `objective.beta: {log: [100, 5000]}`",
            )
            return ()
        entries = search.node.entries.items()
        found = (self.param(key, entry, f"{name}{key}", f"{path}{key}") for key, entry in entries)
        return tuple(param for param in found if param is not None)

    def param(self, key: str, entry: Entry, name: str, path: str) -> Param | None:
        node, head = entry.node, path.split(".")[0]
        if head in _LABELS:
            message = f"`{head}` may not change a result, so there is nothing to search in it"
            self.fail(message, entry.key, name)
            return None
        if path == "train.seed" or head == "evaluate":
            fixed = "the seed" if head == "train" else "`evaluate`"
            message = f"{fixed} is the same for all trials, so that they can be compared"
            self.fail(message, entry.key, name, help="`confirm` runs the best on fresh seeds")
            return None
        if not node.is_map:
            message = f"`{name}` takes a map with one of {_listed(_FORMS)}, not {quoted(node.written)}"
            self.fail(message, node.span, name)
            return None
        before = len(self.problems)
        forms: list[Form] = [form for form in _FORMS if form in node.entries]
        for word, one in node.entries.items():
            if word not in (*_FORMS, "step"):
                close = nearest(word, (*_FORMS, "step"))
                label = f"did you mean `{close}`?" if close else f"it is one of {_listed(_FORMS)}"
                self.fail(f"{quoted(word)} is not a way to search", one.key, name, label)
        if len(forms) != 1:
            if len(self.problems) == before:
                shown = " and ".join(f"`{form}`" for form in forms) if forms else "none"
                message = f"`{name}` takes exactly one of {_listed(_FORMS)}, and has {shown}"
                self.fail(message, entry.key, name)
            return None
        form = forms[0]
        step = node.entries.get("step")
        if step is not None and form != "int":
            self.fail("`step` belongs to `int`", step.key, name)
        if form == "choice":
            param = self.choice(node.entries["choice"], entry, name, path)
        else:
            param = self.range(form, node.entries[form], step, entry, name, path)
        return param if len(self.problems) == before else None

    def range(self, form: Form, bounds: Entry, step: Entry | None, entry: Entry, name: str, path: str) -> Param | None:
        items = bounds.node.items
        numbers = [item for item in items if _is_number(item.data)]
        if len(items) != 2 or len(numbers) != 2:
            shown = bounds.node.written if not items else written(plain(bounds.node))
            message = f"`{form}` takes two numbers, `[lowest, highest]`, not {quoted(shown)}"
            self.fail(message, bounds.node.span, name)
            return None
        low, high = (item.data for item in items)
        assert isinstance(low, int | float) and isinstance(high, int | float)
        if low >= high:
            self.fail(f"the lowest value, {low}, must be below the highest, {high}", items[0].span, name)
        if form == "log" and low <= 0:
            self.fail(f"a logarithmic range begins above 0, not at {low}", items[0].span, name)
        by = 1
        if form == "int":
            for item in items:
                if isinstance(item.data, float) and not item.data.is_integer():
                    self.fail(f"`int` takes whole numbers, not {item.written}", item.span, name)
            if step is not None:
                value = step.node.data
                if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                    message = f"`step` takes a whole number above 0, not {step.node.written}"
                    self.fail(message, step.node.span, name)
                    return None
                by = value
                if low < high and (high - low) % by:
                    message = f"{items[1].written} is not reached from {items[0].written} in steps of {by}"
                    last = one_number(float(low + (high - low) // by * by))
                    self.fail(message, items[1].span, name, f"{last} is")
        number = int if form == "int" else float
        spans = items[0].span, items[1].span
        return Param(name, path, form, entry.key, number(low), number(high), by, *spans)

    def choice(self, choices: Entry, entry: Entry, name: str, path: str) -> Param | None:
        if not choices.node.items:
            shown = choices.node.written if not choices.node.is_list else "an empty list"
            self.fail(f"`choice` takes a list of values, not {quoted(shown)}", choices.node.span, name)
            return None
        items = choices.node.items
        values = [_value(item) for item in items]
        branches: list[Branch] = []
        for item, value, label in zip(items, values, _labels(values), strict=True):
            twin = next((branch for branch in branches if branch.label == label), None)
            if twin is not None:
                note = Note("it is here already", twin.span)
                self.fail(f"`{label}` is listed twice", item.span, name, notes=(note,))
                continue
            inner = item.entries.get("search")
            params: tuple[Param, ...] = ()
            if inner is not None and "use" not in item.entries:
                self.fail("a branch with a `search` of its own says what to `use`", inner.key, name)
            elif inner is not None:
                params = self.params(inner, f"{name}[{label}].", f"{path}.")
            use = item.entries.get("use")
            branches.append(Branch(label, value, use.node.span if use is not None else item.span, params))
        return Param(name, path, "choice", entry.key, branches=tuple(branches))

    def overlaps(self, params: tuple[Param, ...]) -> None:
        for outer, inner in permutations(params, 2):
            if inner.path.startswith(f"{outer.path}."):
                message = f"`{inner.path}` is part of `{outer.path}`, which is searched as a whole"
                notes = (Note(f"`{outer.path}` is searched here", outer.key),)
                help = "put it under `search` of the choice that it belongs to"
                self.fail(message, inner.key, inner.name, notes=notes, help=help)


def _value(item: Node) -> Any:
    """Plain data, without a branch's own search."""
    if not item.is_map:
        return plain(item)
    return {key: plain(entry.node) for key, entry in item.entries.items() if key != "search"}


def _labels(values: list[Any]) -> list[Value]:
    """Scalars are their own label; a component is called by its name, with its settings where names repeat."""
    names = [value.get("use") if isinstance(value, dict) else None for value in values]
    labels: list[Value] = []
    for value, name in zip(values, names, strict=True):
        if not isinstance(value, dict | list):
            labels.append(value)
        elif name is not None and names.count(name) == 1 and name not in values:
            labels.append(str(name))
        else:
            labels.append(written(value))
    return labels


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(f"`{word}`" for word in words)
