"""Rewards: recipes for scorers, one file a reward. Learned ones smooth labels and judge; closed-form ones judge."""

from smpo.components.rewards.aesthetic import LaionAesthetic
from smpo.components.rewards.clip_preference import ClipPreference
from smpo.components.rewards.image_reward import ImageReward
from smpo.components.rewards.member import Member
from smpo.components.rewards.mix import Mix
from smpo.components.rewards.mps import MPS
from smpo.components.rewards.plane import PlaneOnAxis, PlaneRadius
from smpo.components.rewards.process import Process
from smpo.components.rewards.shapes import ShapesJudge

__all__ = [
    "MPS",
    "ClipPreference",
    "ImageReward",
    "LaionAesthetic",
    "Member",
    "Mix",
    "PlaneOnAxis",
    "PlaneRadius",
    "Process",
    "ShapesJudge",
]
