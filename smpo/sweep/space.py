"""The search space under `search:`, checked and with places, and its way to Optuna and back.

    objective.beta: {log: [100, 5000]}          float, log scale; `uniform` without
    inversion.steps: {int: [5, 20], step: 5}    whole numbers
    smoothing:                                  names, numbers or whole components; each may bring its own search
      choice:
        - hard
        - use: label
          search: {epsilon: {uniform: [0.0, 0.3]}}    -> the parameter `smoothing[label].epsilon`

A parameter's name has the branch on which it exists, so that no name has two distributions in Optuna.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from smpo.spec.scalars import format_key, format_scalar
from smpo.spec.source import Span

__all__ = ["Branch", "Form", "Param", "Space", "Suggests", "Value", "same", "written"]

Value = str | int | float | bool | None
Form = Literal["uniform", "log", "int", "choice"]
FINITE = 10_000
"""A grid with more points than this is no grid."""


class Suggests(Protocol):
    """The part of `optuna.Trial` that a space needs."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int: ...
    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


@dataclass(frozen=True)
class Branch:
    """A choice: `label` is its name in Optuna, `value` the value of the setting."""

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
        return next(one for one in self.branches if same(one.label, label))

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
            return any(same(branch.label, value) for branch in self.branches)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        on_step = self.form != "int" or (value == int(value) and (value - self.low) % self.step == 0)
        return self.low <= value <= self.high and on_step

    def every(self) -> Iterator[Param]:
        """This parameter, and those of its branches."""
        yield self
        for branch in self.branches:
            for param in branch.params:
                yield from param.every()

    def active(self, values: Mapping[str, Value]) -> Iterator[Param]:
        yield self
        if self.form == "choice" and self.name in values:
            for param in self.branch(values[self.name]).params:
                yield from param.active(values)

    def setting(self, values: Mapping[str, Value]) -> Any:
        value = values[self.name]
        if self.form != "choice":
            return value
        branch = self.branch(value)
        inside = dict(branch.value) if branch.params else branch.value
        for param in branch.params:
            *steps, last = param.path.removeprefix(f"{self.path}.").split(".")
            where = inside
            for step in steps:
                where[step] = dict(where.get(step) or {})
                where = where[step]
            where[last] = param.setting(values)
        return inside

    def suggest(self, trial: Suggests, values: dict[str, Value]) -> None:
        """Fill in this parameter, and those of the branch that Optuna chooses."""
        if self.form == "choice":
            labels = [branch.label for branch in self.branches]
            values[self.name] = label = trial.suggest_categorical(self.name, labels)
            for param in self.branch(label).params:
                param.suggest(trial, values)
        elif self.form == "int":
            values[self.name] = trial.suggest_int(self.name, int(self.low), int(self.high), step=self.step)
        else:
            log = self.form == "log"
            values[self.name] = trial.suggest_float(self.name, self.low, self.high, log=log)

    def to_dict(self) -> dict[str, Any]:
        """Its meaning, without places."""
        if self.form == "choice":
            choices = []
            for branch in self.branches:
                inner = {param.name: param.to_dict() for param in branch.params}
                choices.append({"value": branch.value, **({"search": inner} if inner else {})})
            return {"choice": choices}
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
        return (inner for param in self.params for inner in param.every())

    def active(self, values: Mapping[str, Value]) -> Iterator[Param]:
        """The parameters that exist under these choices."""
        return (inner for param in self.params for inner in param.active(values))

    def settings(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """Values of parameters as values of settings: what `resolve(trial=...)` takes."""
        return {param.path: param.setting(values) for param in self.params}

    def suggest(self, trial: Suggests) -> dict[str, Value]:
        """Optuna's values for every parameter that exists on the branches it chooses."""
        values: dict[str, Value] = {}
        for param in self.params:
            param.suggest(trial, values)
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
        spans = [span for value, span in param.bounds() if same(value, values.get(param.name))]
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


def same(one: Any, other: Any) -> bool:
    """Equal, where `True` is not 1."""
    return bool(one == other) and isinstance(one, bool) is isinstance(other, bool)
