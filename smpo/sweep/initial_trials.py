"""The settings of the first trials: values under `first:`, and the rest from the spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smpo.registry.resolve import Resolved
from smpo.spec.problems import Problem, SpecProblems, nearest, quoted
from smpo.sweep.corners import Resolve
from smpo.sweep.space import Param, written
from smpo.sweep.spec import Sweep

__all__ = ["first_values"]


def first_values(sweep: Sweep, resolved: Resolved[Any], resolve: Resolve) -> tuple[list[dict[str, Any]], list[str]]:
    """The parameters of the trials that come first, and remarks. Raises `SpecProblems` for values out of range."""
    data = resolved.spec.model_dump(mode="json", by_alias=True)
    found: list[dict[str, Any]] = []
    remarks: list[str] = []
    problems: list[Problem] = []
    for index, given in enumerate(sweep.spec.first):
        reader = _First(sweep, data, resolve, index, dict(given))
        values = reader.read()
        if reader.problems:
            problems += reader.problems
        elif reader.outside:
            names = ", ".join(reader.outside)
            if given:
                problems.append(sweep.problem(f"first/{index}", f"{names}: outside the space, and not given"))
            else:
                remarks.append(f"the spec's own setting lies outside the space ({names}), and is no trial")
        else:
            found.append(values)
    if problems:
        raise SpecProblems(problems)
    return found, remarks


class _First:
    def __init__(
        self, sweep: Sweep, data: Mapping[str, Any], resolve: Resolve, index: int, given: dict[str, Any]
    ) -> None:
        self._sweep, self._data, self._resolve = sweep, data, resolve
        self._index, self._given = index, given
        self.problems: list[Problem] = []
        self.outside: list[str] = []

    def read(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        used: set[str] = set()
        self._params(self._sweep.space.params, values, used, self._data)
        known = [param.name for param in self._sweep.space.every()]
        for name in self._given:
            if name not in used and not self.problems:
                close = nearest(name, known)
                label = f"did you mean `{close}`?" if close else ""
                what = "belongs to another branch" if name in known else "is not searched"
                self._fail(name, f"{quoted(name)} {what}", label)
        return values

    def _params(
        self, params: tuple[Param, ...], values: dict[str, Any], used: set[str], data: Mapping[str, Any]
    ) -> None:
        for param in params:
            key = next((one for one in (param.name, param.path) if one in self._given), None)
            if key is not None:
                used.add(key)
                value: Any = self._given[key]
                if isinstance(value, Mapping):
                    value = value.get("use", written(value))
                if not param.holds(value):
                    self._fail(key, f"{written(value)} is outside of what is searched: {param}")
                    return
            else:
                value = self._inherited(param, data)
                if value is None:
                    self.outside.append(f"{param.path} {written(_at(data, param.path))}")
                    continue
            values[param.name] = value
            if param.form == "choice" and (branch := param.branch(value)).params:
                # Values on a given branch rest on the branch, not on the spec's own values there.
                below = data if key is None else self._resolved({param.path: branch.value}, data)
                self._params(branch.params, values, used, below)

    def _inherited(self, param: Param, data: Mapping[str, Any]) -> Any:
        here = _at(data, param.path)
        if param.form != "choice" or not isinstance(here, Mapping | list):
            return here if param.holds(here) else None
        for branch in param.branches:
            there = _at(self._resolved({param.path: branch.value}, data), param.path)
            searched = [one.path.removeprefix(f"{param.path}.") for one in branch.params]
            if _without(here, searched) == _without(there, searched):
                return branch.label
        return None

    def _resolved(self, settings: Mapping[str, Any], fallback: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            spec = self._resolve(settings).spec
        except SpecProblems:
            return fallback
        data: Mapping[str, Any] = spec.model_dump(mode="json", by_alias=True)
        return data

    def _fail(self, name: str, message: str, label: str = "") -> None:
        self.problems.append(self._sweep.problem(f"first/{self._index}/{name}", message, label))


def _without(value: Any, paths: list[str]) -> Any:
    """Plain data without some dotted paths."""
    if not isinstance(value, Mapping):
        return value
    return {
        key: _without(part, [rest for path in paths if (rest := path.removeprefix(f"{key}.")) != path])
        for key, part in value.items()
        if key not in paths
    }


def _at(data: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path of plain data; None where there is none."""
    value: Any = data
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value
