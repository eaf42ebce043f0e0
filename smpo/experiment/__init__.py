"""The skeleton of a spec: which slots exist and what surrounds them.

Slots are annotated with a kind's base class (`objective: Objective`); `smpo.registry.bind` closes them over what is
registered. Fields under `runtime`, and the labels, are not part of a run's identity: they may not change a result.
"""

from smpo.experiment.evaluate import EvaluateSpec
from smpo.experiment.runtime import RuntimeSpec
from smpo.experiment.spec import ExperimentSpec
from smpo.experiment.train import TrainSpec

__all__ = ["EvaluateSpec", "ExperimentSpec", "RuntimeSpec", "TrainSpec"]
