"""The skeleton of a spec: which slots exist and what surrounds them.

Slots are annotated with a kind's base class (`objective: Objective`); `smpo.registry.slots` closes them over what is
registered. Fields under `runtime`, and the labels, are not part of a run's identity: they may not change a result.
"""

from smpo.experiment.blocks import EvaluateSpec, RuntimeSpec, TrainSpec
from smpo.experiment.spec import ExperimentSpec

__all__ = ["EvaluateSpec", "ExperimentSpec", "RuntimeSpec", "TrainSpec"]
