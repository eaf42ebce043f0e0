"""Inversions: which noise belongs to an image."""

from smpo.components.inversions.mixed import BlendedInversion, CommonInversion
from smpo.components.inversions.published import DDIMInversion, NoInversion, ReNoise

__all__ = ["BlendedInversion", "CommonInversion", "DDIMInversion", "NoInversion", "ReNoise"]
