"""Objectives: from denoising errors to one loss per pair, one file a family. Formulas live in `smpo.maths`."""

from smpo.components.objectives.margins import (
    IPO,
    DiffusionDPO,
    GeometricDPO,
    Hinge,
    SmPO,
)
from smpo.components.objectives.noisy import ConservativeDPO, RobustDPO
from smpo.components.objectives.reference_free import MaPO
from smpo.components.objectives.score import DSPO, InversionDPO
from smpo.components.objectives.supervised import ConditionalFineTuning, SupervisedFineTuning
from smpo.components.objectives.unpaired import DiffusionKTO

__all__ = [
    "DSPO",
    "IPO",
    "ConditionalFineTuning",
    "ConservativeDPO",
    "DiffusionDPO",
    "DiffusionKTO",
    "GeometricDPO",
    "Hinge",
    "InversionDPO",
    "MaPO",
    "RobustDPO",
    "SmPO",
    "SupervisedFineTuning",
]
