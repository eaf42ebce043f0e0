"""The `sweep:` block of a spec: the space, the objectives, and the way to search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from smpo.errors import SpecError
from smpo.kinds import Pruner, Sampler
from smpo.registry.component import slot
from smpo.spec.problems import Problem
from smpo.spec.tree import Node, find
from smpo.sweep.space import Space

__all__ = ["FIGURES", "WATCHED", "Bound", "Confirm", "Goal", "Rungs", "Sweep", "SweepSpec"]

FIGURES = (
    "win_rate", "win_rate_low", "win_rate_high", "mean_base", "mean_policy", "median_base", "median_policy",
    "gain", "gain_low", "gain_high", "p_value",
)  # fmt: skip
"""What an evaluation reports of each judge, under `eval/<judge>/`."""


WATCHED: Mapping[str, Literal["maximize", "minimize"]] = {
    "train/implicit_accuracy": "maximize",
    "train/margin": "maximize",
    "train/loss": "minimize",
    "holdout/accuracy": "maximize",
    "holdout/accuracy/votes": "maximize",
    "holdout/margin": "maximize",
    "holdout/error/winner": "minimize",
    "holdout/gap/winner": "minimize",
}
"""Metrics on the way that a pruner may compare instead of the objective, and which side is good."""


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Rungs(_Block):
    """A cheap evaluation during training, after which a trial may be given up."""

    at: list[int] = Field(min_length=1)
    """Updates after which it happens."""
    prompts: int | None = Field(64, ge=0)
    """Use only so many of the evaluation's prompts; 0 samples nothing, and needs a `by`."""
    steps: int | None = Field(None, gt=0)
    """Sampling steps; null takes the evaluation's."""
    by: str | None = None
    """What the pruner compares; null is the objective, as the cheap evaluation sees it. `holdout/accuracy` is what the
    policy prefers among held-out pairs (`train.holdout`), for which nothing has to be sampled."""

    @model_validator(mode="after")
    def _something(self) -> Rungs:
        if self.by is None and self.prompts == 0:
            raise SpecError("prompts", "without prompts a rung sees nothing", help="add `by: holdout/accuracy`")
        return self


class Bound(_Block):
    """What a metric has to respect."""

    min: float | None = None
    max: float | None = None


class Confirm(_Block):
    """The best trial and the setting that was there before, again on seeds that no trial has used."""

    seeds: int = Field(5, ge=0, le=100)
    """Fresh seeds, for training and sampling alike; 0 leaves this out."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Settings that differ then, by dotted path: `evaluate.prompts: …` names a set that no trial was judged on."""


class SweepSpec(_Block):
    """A search over settings of the spec around it."""

    maximise: str | list[str] | None = None
    """Metric or metrics that should be large, such as `eval/pickscore/win_rate`."""
    minimise: str | list[str] | None = None
    """Metric or metrics that should be small. With several objectives the answer is a Pareto front."""
    search: dict[str, Any]
    """Dotted settings, each with `uniform`, `log`, `int` or `choice`."""
    trials: int = Field(50, gt=0)
    """Finished trials, in all; `--trials` overrides it."""
    first: list[dict[str, Any]] = Field([{}])
    """Settings of the first trials, before the sampler proposes any; others are as in the spec: `{}` is the spec."""
    constraints: dict[str, Bound] = Field(default_factory=dict)
    """Metrics with limits; a trial beyond them can't be the best."""
    sampler: Sampler = slot("tpe")
    prune: Pruner | None = None
    """When to give up on a trial; null lets all finish."""
    rungs: Rungs | None = None
    """Cheap evaluations for the pruner."""
    report: str | None = None
    """A metric of training for the pruner (`train/implicit_accuracy`, `holdout/accuracy`), where there are no rungs."""
    retries: int = Field(2, ge=0)
    """How often a trial is begun again after its own process was killed. A kill of the whole sweep doesn't count."""
    patience: int = Field(5, gt=0)
    """Failures in a row after which the sweep stops."""
    keep: Literal["all", "best"] = "all"
    """Whose weights stay on disk; `best` drops those of every trial that isn't (any more)."""
    confirm: Confirm = Field(default_factory=Confirm)

    @model_validator(mode="after")
    def _consistent(self) -> SweepSpec:
        goals = self.goals()
        if not goals:
            raise SpecError("", "a sweep needs `maximise` or `minimise`: the metric that tells good from bad")
        names = [goal.metric for goal in goals]
        if len(set(names)) < len(names):
            raise SpecError("", "a metric can't be an objective twice")
        if self.prune is not None:
            if len(goals) > 1:
                raise SpecError("prune", "with several objectives no trial can be given up early")
            if self.rungs is None and self.report is None:
                raise SpecError(
                    "prune", "the pruner has nothing to look at",
                    help="add `rungs: {at: [50, 100]}` (cheap evaluations), or `report: train/implicit_accuracy`",
                )  # fmt: skip
            if self.prune.paired and self.rungs is None:
                raise SpecError("prune", f"`{self.prune.use}` compares prompts one by one, and needs `rungs`")
        if self.rungs is not None and self.report is not None:
            raise SpecError(
                "report", "a pruner looks at `rungs` or at a `report`, not at both",
                help="`rungs: null` takes inherited rungs away; `rungs: {by: …}` compares by another metric there",
            )  # fmt: skip
        for name, bound in self.constraints.items():
            if (bound.min is None) == (bound.max is None):
                raise SpecError("constraints", f"`{name}` takes either `min` or `max`")
        if len(goals) > 1 and not self.sampler.several:
            raise SpecError("sampler", f"`{self.sampler.use}` serves one objective only")
        return self

    def goals(self) -> tuple[Goal, ...]:
        """The objectives, those to maximise first."""
        up, down = (
            [given] if isinstance(given, str) else list(given or ()) for given in (self.maximise, self.minimise)
        )
        return (*(Goal(name, "maximize") for name in up), *(Goal(name, "minimize") for name in down))


@dataclass(frozen=True)
class Goal:
    """One objective, in Optuna's words."""

    metric: str
    direction: Literal["maximize", "minimize"]

    def better(self, one: float, other: float) -> bool:
        return one > other if self.direction == "maximize" else one < other

    @property
    def verb(self) -> str:
        """As specs spell it."""
        return self.direction.replace("ize", "ise")

    @property
    def cheap(self) -> str:
        """The same figure at a rung."""
        return "rung/" + self.metric.removeprefix("eval/")

    def sign(self, watched: str) -> int:
        """1 where more of another metric is as good as more of this one, -1 where it is as bad."""
        return 1 if WATCHED.get(watched, self.direction) == self.direction else -1


@dataclass(frozen=True)
class Sweep:
    """A checked sweep block, and where everything in it is written."""

    spec: SweepSpec
    space: Space
    root: Node
    """A map with the block under `sweep`."""

    @property
    def goals(self) -> tuple[Goal, ...]:
        return self.spec.goals()

    def problem(self, path: str, message: str, label: str = "", help: str | None = None) -> Problem:
        """A problem at a setting of the block, such as `maximise` or `first.0`."""
        steps = tuple(int(step) if step.isdigit() else step for step in path.split("/"))
        _, span, node = find(self.root, ("sweep", *steps))
        return Problem(message, span if node.is_map else node.span, "sweep." + path.replace("/", "."), label, help=help)
