"""Trials as a reader of a study sees them, how many there are of which kind, and which are best."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from smpo.sweep.spec import Goal

__all__ = ["Counts", "Outcome", "State", "Trial", "front", "read_trial"]

State = Literal["running", "waiting", "done", "pruned", "failed"]
Outcome = Literal[
    "done", "reused", "pruned", "diverged", "crashed", "out of memory", "killed", "timed out", "lost", "interrupted",
    "surplus", "refused",
]  # fmt: skip
_GIVEN_BACK = ("lost", "interrupted", "surplus")
"""Ends that say nothing about the settings."""


@dataclass(frozen=True)
class Trial:
    """A trial as a reader of the study sees it."""

    number: int
    state: State
    params: Mapping[str, Any]
    values: tuple[float, ...]
    reports: Mapping[int, float]
    attributes: Mapping[str, Any]
    feasible: bool = True

    @property
    def outcome(self) -> str:
        return str(self.attributes.get("outcome", self.state))

    @property
    def reason(self) -> str:
        return str(self.attributes.get("reason", ""))

    @property
    def remark(self) -> str:
        """Why it ended as it did, or why it can't be the best."""
        return self.reason if self.feasible or self.state != "done" else "beyond its limits"

    @property
    def seconds(self) -> float:
        return float(self.attributes.get("seconds", 0.0))

    @property
    def given_back(self) -> bool:
        """Whether it failed for a reason that has nothing to do with its settings."""
        return self.state == "failed" and self.outcome in _GIVEN_BACK

    @property
    def finished(self) -> bool:
        return self.state in ("done", "pruned")


@dataclass(frozen=True)
class Counts:
    """How a study stands."""

    done: int = 0
    pruned: int = 0
    failed: int = 0
    """Of themselves: trials that were lost or withdrawn don't count."""
    running: int = 0
    waiting: int = 0
    seconds: float = 0.0
    """That trials took, together."""

    @property
    def finished(self) -> int:
        return self.done + self.pruned


def read_trial(trial: Any) -> Trial:
    """From Optuna's own record."""
    state: Any = {"COMPLETE": "done", "FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())
    constraints = getattr(trial, "constraints", None) or {}
    params = trial.params or trial.system_attrs.get("fixed_params", {})
    return Trial(
        trial.number, state, params, tuple(trial.values or ()), trial.intermediate_values, trial.user_attrs,
        all(value <= 0 for value in constraints.values()),
    )  # fmt: skip


def front(trials: Iterable[Trial], goals: Sequence[Goal]) -> list[Trial]:
    """The best of the feasible trials; with several objectives all that no other beats."""
    done = [trial for trial in trials if trial.state == "done" and trial.feasible]
    signs = [1 if goal.direction == "maximize" else -1 for goal in goals]
    if len(goals) == 1:
        return [max(done, key=lambda trial: signs[0] * trial.values[0])] if done else []
    points = [[sign * value for sign, value in zip(signs, one.values, strict=True)] for one in done]

    def beaten(mine: list[float]) -> bool:
        return any(theirs != mine and all(a >= b for a, b in zip(theirs, mine, strict=True)) for theirs in points)

    return [one for one, point in zip(done, points, strict=True) if not beaten(point)]
