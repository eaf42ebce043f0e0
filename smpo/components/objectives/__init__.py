"""Objectives: from denoising errors to one loss per pair, one file a family. Formulas live in `smpo.maths`."""

from smpo.components.objectives.baselines import ConditionalFineTuning, DiffusionKTO, MaPO, SupervisedFineTuning
from smpo.components.objectives.margins import IPO, ConservativeDPO, DiffusionDPO, GeometricDPO, Hinge, RobustDPO, SmPO
from smpo.components.objectives.score import DSPO, InversionDPO

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
