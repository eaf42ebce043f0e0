"""The whole of a spec: its slots and blocks, and what must agree between them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from smpo.errors import SpecError
from smpo.experiment.blocks import Block, EvaluateSpec, RuntimeSpec, TrainSpec
from smpo.experiment.words import ALSO_CALLED
from smpo.kinds import Inversion, Model, Objective, PairData, Reward, Smoothing

__all__ = ["ExperimentSpec"]

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$"


def _is_a_name(text: str) -> str:
    if not re.fullmatch(_NAME, text):
        raise SpecError(
            "",
            "a name has letters, digits, `-`, `_` and `.`, starts with a letter or digit, and is at most 80 long",
            help=f"such as `name: {meant}`" if (meant := _made_fit(text)) else None,
        )
    return text


def _made_fit(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-_.")[:80]


Name = Annotated[str, AfterValidator(_is_a_name), WithJsonSchema({"type": "string", "pattern": _NAME})]
"""Folders are called so, and the MLflow experiment."""

_TAKEN = ("artifacts", "cache", "evaluations")
"""What else lies in the folder of runs, beside MLflow's database."""


class ExperimentSpec(Block):
    """One experiment: a model, pairs, a reward that smooths them, an inversion, an objective, and how it is judged."""

    name: Name
    """Shown and searchable; the MLflow experiment. Not part of the identity."""
    notes: str = ""
    """Free text for people; goes to the tracker. Not part of the identity."""
    tags: dict[str, str] = Field(default_factory=dict)
    """Labels to search runs by in the tracker. Not part of the identity."""

    model: Model
    data: PairData
    reward: Reward | None = None
    """Scores the training pairs for smoothings that need it."""
    objective: Objective
    smoothing: Smoothing
    inversion: Inversion
    train: TrainSpec
    evaluate: EvaluateSpec | None = None
    """How policy and base are compared at the end; without it nothing is sampled or judged."""
    runtime: RuntimeSpec = Field(default_factory=RuntimeSpec)

    also_called: ClassVar[Mapping[str, str]] = ALSO_CALLED
    """Words of other frameworks, and what they are here: the path of a setting, or a sentence. For errors only."""

    @property
    def needs_reference(self) -> bool:
        """Whether training runs the frozen reference at all."""
        return self.objective.needs_reference or self.inversion.needs_reference

    @property
    def scores(self) -> Literal["none", "visited", "all"]:
        """Which pairs a run scores. One pair's label needs the scores of all where the smoothing measures them by the
        reward's range over the table, or the objective draws single images by whether they were ever preferred."""
        if self.reward is None or not self.smoothing.needs_reward:
            return "none"
        all_ = self.smoothing.needs_statistics or not self.objective.sampling().paired
        return "all" if all_ else "visited"

    @property
    def _of_the_schedule(self) -> str:
        """The setting that brings the schedule, where the model has one for it."""
        return "model.weights" if "weights" in self.model.model_fields_set else "model"

    @property
    def _even_batch(self) -> int:
        """The next batch that can be dealt evenly."""
        return -(-self.train.batch // self.runtime.devices) * self.runtime.devices

    def _shardable(self) -> None:
        """What isn't known to give the same numbers on a policy in parts is refused."""
        keepers = {
            "train.precision": self.train.precision == "fp16",
            "train.optimiser": not self.train.optimiser.shardable,
            "runtime.compile": self.runtime.compile,
            "runtime.shadow_weights": self.runtime.shadow_weights,
        }
        for where, wanted in keepers.items():
            if wanted:
                raise SpecError(
                    "runtime.sharding",
                    f"`fsdp` and the `{where}` chosen here haven't been brought together",
                    related=[where],
                    help="`-s runtime.sharding=none`, or the default of the other",
                )

    def _drawable(self) -> None:
        """Raises `SpecError` for sizes that the model can't draw."""
        sizes = self.evaluate.sizes if self.evaluate is not None else None
        if sizes and not self.model.sized:
            raise SpecError(
                "evaluate.sizes",
                f"model `{self.model.use}` draws what it draws: it can't be asked for sizes",
                related=["model"],
                help="leave out `evaluate.sizes`",
            )
        step = self.model.facts().step or 1
        for i, (width, height) in enumerate(sizes or ()):
            if width % step or height % step:
                near = [max(step, round(side / step) * step) for side in (width, height)]
                raise SpecError(
                    f"evaluate.sizes.{i}",
                    f"pictures of {width} x {height} don't suit this model: multiples of {step} do",
                    related=[self._of_the_schedule],
                    help=f"such as [{near[0]}, {near[1]}]",
                )

    @model_validator(mode="after")
    def _consistent(self) -> ExperimentSpec:
        if self.name.lower() in _TAKEN or self.name.lower().startswith("mlflow.db"):
            raise SpecError("name", f"the runs of `{self.name}` would lie in a folder that smpo needs for itself")
        if self.smoothing.needs_reward and self.reward is None:
            raise SpecError(
                "smoothing",
                f"smoothing `{self.smoothing.use}` needs scores, and no reward is chosen",
                related=["reward"] if "reward" in self.model_fields_set else [],
                help="add a line such as `reward: pickscore`, or use `smoothing: hard`",
            )
        if self.data.bucketed and not self.objective.sampling().paired:
            raise SpecError(
                "data.buckets",
                f"`{self.objective.use}` is shown single images side by side, and buckets are chosen for pairs",
                related=["objective"],
                help="leave out `data.buckets`",
            )
        self._drawable()
        timesteps = self.model.facts().timesteps
        if timesteps is not None:
            if self.inversion.max_steps() > timesteps:
                raise SpecError(
                    "inversion.steps",
                    f"the inversion has {self.inversion.max_steps()} steps, the model's schedule only {timesteps}",
                    related=[self._of_the_schedule],
                    help=f"`-s inversion.steps={timesteps}`",
                )
            if (self.train.t_max or 0) >= timesteps or self.train.t_min >= timesteps - 1:
                where = "train.t_max" if (self.train.t_max or 0) >= timesteps else "train.t_min"
                raise SpecError(
                    where,
                    f"timesteps of this model run from 0 to {timesteps - 1}",
                    related=[self._of_the_schedule],
                )
        if self.runtime.keep_best is not None and not self.train.holdout:
            raise SpecError(
                "runtime.keep_best",
                "the best checkpoint is found by held-out pairs, and none are held out",
                related=["train.holdout"] if "holdout" in self.train.model_fields_set else [],
                help="`-s train.holdout=200`",
            )
        if self.runtime.sharding == "fsdp":
            self._shardable()
        if self.train.batch % self.runtime.devices:
            raise SpecError(
                "train.batch",
                f"a batch of {self.train.batch} pairs can't be dealt evenly to {self.runtime.devices} devices",
                related=["runtime.devices"],
                help=f"`-s train.batch={self._even_batch}`, or other `runtime.devices`",
            )
        return self
