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


# ------------------------------------------------------------------------------------------------ values


def same(one: Any, other: Any) -> bool:
    """Equal, where `True` is not 1."""
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
