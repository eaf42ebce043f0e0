"""The search space: what is written under `search:`, checked and with places, and its way to Optuna and back.

    objective.beta: {log: [100, 5000]}          float, log scale; `uniform` without
    inversion.steps: {int: [5, 20], step: 5}    whole numbers
    smoothing:                                  names, numbers or whole components; each may bring its own search
      choice:
        - hard
        - use: label
          search: {epsilon: {uniform: [0.0, 0.3]}}    -> the parameter `smoothing[label].epsilon`

A parameter's name tells the branch on which it exists, so that Optuna never sees one name with two distributions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal, Protocol

from smpo.spec.problems import Note, Problem, SpecProblems, nearest, quoted
from smpo.spec.scalars import format_key, format_scalar, one_number
from smpo.spec.source import Span
from smpo.spec.tree import Entry, Node, plain

__all__ = ["Branch", "Param", "Space", "Suggests", "read_space", "written"]

Value = str | int | float | bool | None
Form = Literal["uniform", "log", "int", "choice"]
_FORMS: tuple[Form, ...] = ("uniform", "log", "int", "choice")
_LABELS = {"name", "notes", "tags", "runtime"}
FINITE = 10_000
"""A grid with more points than this is no grid."""


class Suggests(Protocol):
    """The part of `optuna.Trial` that a space needs."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int: ...
    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


@dataclass(frozen=True)
class Branch:
    """One thing to choose. `label` is what Optuna sees, `value` what the setting becomes."""

    label: Value
    value: Any
    span: Span = field(compare=False)
    params: tuple[Param, ...] = ()


@dataclass(frozen=True)
class Param:
    """One parameter. `name` is qualified by its branch, `path` is the setting that it changes."""

    name: str
    path: str
    form: Form
    key: Span = field(compare=False)
    low: float = 0
    high: float = 0
    step: int = 1
    low_span: Span | None = field(default=None, compare=False)
    high_span: Span | None = field(default=None, compare=False)
    branches: tuple[Branch, ...] = ()

    def branch(self, label: Value) -> Branch:
        return next(one for one in self.branches if _same(one.label, label))

    def bounds(self) -> list[tuple[Value, Span]]:
        """The values at its corners, and where each is written."""
        if self.form == "choice":
            return [(branch.label, branch.span) for branch in self.branches]
        assert self.low_span is not None and self.high_span is not None
        last = self.low + (self.high - self.low) // self.step * self.step if self.form == "int" else self.high
        return [(self.low, self.low_span), (last, self.high_span)]

    def holds(self, value: Any) -> bool:
        """Whether a value lies in the range."""
        if self.form == "choice":
            return any(_same(branch.label, value) for branch in self.branches)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        on_step = self.form != "int" or (value == int(value) and (value - self.low) % self.step == 0)
        return self.low <= value <= self.high and on_step

    def to_dict(self) -> dict[str, Any]:
        """Its meaning, without places."""
        if self.form == "choice":
            return {
                "choice": [
                    {
                        "value": one.value,
                        **({"search": {p.name: p.to_dict() for p in one.params}} if one.params else {}),
                    }
                    for one in self.branches
                ]
            }
        step = {"step": self.step} if self.step != 1 else {}
        return {self.form: [self.low, self.high], **step}

    def __str__(self) -> str:
        if self.form == "choice":
            return " | ".join(str(branch.label) for branch in self.branches)
        step = f" in steps of {self.step}" if self.step != 1 else ""
        return f"{self.low:g} … {self.high:g}{step}" + (" (log)" if self.form == "log" else "")


@dataclass(frozen=True)
class Space:
    """All parameters, those of branches inside them."""

    params: tuple[Param, ...]

    def every(self) -> Iterator[Param]:
        """All parameters, whatever their branch."""
        yield from _every(self.params)

    def active(self, values: Mapping[str, Value]) -> Iterator[Param]:
        """The parameters that exist under these choices."""
        yield from _active(self.params, values)

    def settings(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """Values of parameters as values of settings: what `resolve(trial=...)` takes."""
        return {param.path: _setting(param, values) for param in self.params}

    def suggest(self, trial: Suggests) -> dict[str, Value]:
        """Ask Optuna for every parameter that exists on the branches it chooses."""
        values: dict[str, Value] = {}
        _suggest(self.params, trial, values)
        return values

    def grid(self) -> dict[str, list[Value]] | None:
        """The values of each parameter where they are finitely many and nothing depends on a branch."""
        found: dict[str, list[Value]] = {}
        for param in self.params:
            if param.form == "choice" and not any(branch.params for branch in param.branches):
                found[param.name] = [branch.label for branch in param.branches]
            elif param.form == "int" and (param.high - param.low) // param.step < FINITE:
                found[param.name] = list(range(int(param.low), int(param.high) + 1, param.step))
            else:
                return None
        return found

    def corners(self, most: int = 64) -> Iterator[dict[str, Value]]:
        """Assignments in which every bound and choice occurs: all combinations where they are few, else one by one
        and then in pairs, around each branch's first corner."""
        combinations = list(_combinations(self.params, most + 1))
        if len(combinations) <= most:
            yield from combinations
            return
        seen: list[dict[str, Value]] = []
        for count in (1, 2):
            for one in _around(self.params, count):
                if one not in seen and len(seen) < most:
                    seen.append(one)
                    yield one

    def to_dict(self) -> dict[str, Any]:
        return {param.path: param.to_dict() for param in self.params}

    def covers(self, path: str) -> bool:
        """Whether a setting (dotted) is searched, or lies in something that is."""
        return any(path == one.path or path.startswith(f"{one.path}.") for one in self.params)

    def place(self, path: str, values: Mapping[str, Value]) -> tuple[Span, str] | None:
        """Where the value of a searched setting is written, and its parameter, under these values."""
        inside = [one for one in self.active(values) if path == one.path or path.startswith(f"{one.path}.")]
        if not inside:
            return None
        param = max(inside, key=lambda one: len(one.path))
        spans = [span for value, span in param.bounds() if _same(value, values.get(param.name))]
        return (spans[0] if spans else param.key), param.name


def written(value: Any) -> str:
    """A value on one line, for labels and tables."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{format_key(str(k))}: {written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return format_scalar(value)


# ------------------------------------------------------------------------------------------------ values


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) is isinstance(other, bool)


def _every(params: tuple[Param, ...]) -> Iterator[Param]:
    for param in params:
        yield param
        for branch in param.branches:
            yield from _every(branch.params)


def _active(params: tuple[Param, ...], values: Mapping[str, Value]) -> Iterator[Param]:
    for param in params:
        yield param
        if param.form == "choice" and param.name in values:
            yield from _active(param.branch(values[param.name]).params, values)


def _setting(param: Param, values: Mapping[str, Value]) -> Any:
    value = values[param.name]
    if param.form != "choice":
        return value
    branch = param.branch(value)
    if not branch.params:
        return branch.value
    inside = dict(branch.value)
    for one in branch.params:
        steps = one.path.removeprefix(f"{param.path}.").split(".")
        where = inside
        for step in steps[:-1]:
            where[step] = dict(where.get(step) or {})
            where = where[step]
        where[steps[-1]] = _setting(one, values)
    return inside


def _suggest(params: tuple[Param, ...], trial: Suggests, values: dict[str, Value]) -> None:
    for param in params:
        if param.form == "choice":
            labels = [branch.label for branch in param.branches]
            values[param.name] = label = trial.suggest_categorical(param.name, labels)
            _suggest(param.branch(label).params, trial, values)
        elif param.form == "int":
            values[param.name] = trial.suggest_int(
                param.name, int(param.low), int(param.high), step=param.step
            )
        else:
            values[param.name] = trial.suggest_float(
                param.name, param.low, param.high, log=param.form == "log"
            )


def _ways(param: Param) -> Iterator[tuple[Value, tuple[Param, ...]]]:
    for value, _ in param.bounds():
        yield value, param.branch(value).params if param.form == "choice" else ()


def _combinations(params: tuple[Param, ...], most: int) -> Iterator[dict[str, Value]]:
    """All combinations of corners, at most so many a level."""
    options: list[list[dict[str, Value]]] = []
    for param in params:
        ways = [
            {param.name: value, **inner}
            for value, below in _ways(param)
            for inner in _combinations(below, most)
        ]
        options.append(ways[:most])
    for count, parts in enumerate(product(*options)):
        if count >= most:
            return
        yield {key: value for part in parts for key, value in part.items()}


def _around(params: tuple[Param, ...], count: int) -> Iterator[dict[str, Value]]:
    """Corners in which at most `count` parameters differ from their first."""
    ways = [
        [{param.name: v, **inner} for v, below in _ways(param) for inner in _combinations(below, 16)]
        for param in params
    ]
    first = {key: value for way in ways for key, value in way[0].items()}

    def with_(changes: Mapping[int, dict[str, Value]]) -> dict[str, Value]:
        parts = [changes.get(index, way[0]) for index, way in enumerate(ways)]
        return {key: value for part in parts for key, value in part.items()}

    yield first
    for i, way in enumerate(ways):
        for one in way[1:]:
            if count == 1:
                yield with_({i: one})
                continue
            for j in range(i + 1, len(ways)):
                yield from (with_({i: one, j: other}) for other in ways[j][1:])


# ------------------------------------------------------------------------------------------------ reading


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

    def fail(
        self, message: str, span: Span, path: str, label: str = "", help: str | None = None, **more: Any
    ) -> None:
        self.problems.append(
            Problem(
                message, span, f"sweep.search.{path}" if path else "sweep.search", label, help=help, **more
            )
        )

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
        found = [
            self.param(key, entry, f"{name}{key}", f"{path}{key}")
            for key, entry in search.node.entries.items()
        ]
        return tuple(one for one in found if one is not None)

    def param(self, key: str, entry: Entry, name: str, path: str) -> Param | None:
        node, head = entry.node, path.split(".")[0]
        if head in _LABELS:
            self.fail(
                f"`{head}` may not change a result, so there is nothing to search in it", entry.key, name
            )
            return None
        if path == "train.seed" or head == "evaluate":
            what = "the seed" if head == "train" else "`evaluate`"
            self.fail(
                f"{what} is the same for all trials, so that they can be compared",
                entry.key, name, help="`confirm` runs the best on fresh seeds",
            )  # fmt: skip
            return None
        if not node.is_map:
            self.fail(
                f"`{name}` takes a map with one of {_listed(_FORMS)}, not {quoted(node.written)}",
                node.span,
                name,
            )
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
                self.fail(
                    f"`{name}` takes exactly one of {_listed(_FORMS)}, and has {shown}", entry.key, name
                )
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

    def range(
        self, form: Form, bounds: Entry, step: Entry | None, entry: Entry, name: str, path: str
    ) -> Param | None:
        items = bounds.node.items
        numbers = [item for item in items if _is_number(item.data)]
        if len(items) != 2 or len(numbers) != 2:
            shown = bounds.node.written if not items else written(plain(bounds.node))
            self.fail(
                f"`{form}` takes two numbers, `[lowest, highest]`, not {quoted(shown)}",
                bounds.node.span,
                name,
            )
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
                    self.fail(
                        f"`step` takes a whole number above 0, not {step.node.written}", step.node.span, name
                    )
                    return None
                by = value
                if low < high and (high - low) % by:
                    self.fail(
                        f"{items[1].written} is not reached from {items[0].written} in steps of {by}",
                        items[1].span, name, f"{one_number(float(low + (high - low) // by * by))} is",
                    )  # fmt: skip
            return Param(name, path, form, entry.key, int(low), int(high), by, items[0].span, items[1].span)
        return Param(name, path, form, entry.key, float(low), float(high), 1, items[0].span, items[1].span)

    def choice(self, choices: Entry, entry: Entry, name: str, path: str) -> Param | None:
        if not choices.node.items:
            shown = choices.node.written if not choices.node.is_list else "an empty list"
            self.fail(f"`choice` takes a list of values, not {quoted(shown)}", choices.node.span, name)
            return None
        items = choices.node.items
        values = [self.value(item) for item in items]
        labels = _labels(values)
        branches: list[Branch] = []
        for item, value, label in zip(items, values, labels, strict=True):
            twin = next((one for one in branches if one.label == label), None)
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
            branches.append(Branch(label, value, _head(item), params))
        return Param(name, path, "choice", entry.key, branches=tuple(branches))

    @staticmethod
    def value(item: Node) -> Any:
        if not item.is_map:
            return plain(item)
        return {key: plain(one.node) for key, one in item.entries.items() if key != "search"}

    def overlaps(self, params: tuple[Param, ...]) -> None:
        for one in params:
            for other in params:
                if other.path.startswith(f"{one.path}."):
                    self.fail(
                        f"`{other.path}` is part of `{one.path}`, which is searched as a whole",
                        other.key, other.name, notes=(Note(f"`{one.path}` is searched here", one.key),),
                        help="put it under `search` of the choice that it belongs to",
                    )  # fmt: skip


def _head(item: Node) -> Span:
    use = item.entries.get("use")
    return use.node.span if use is not None else item.span


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
