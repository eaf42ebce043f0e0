"""How many updates of a training are prepared together. Never imports torch."""

from __future__ import annotations

from smpo.experiment import ExperimentSpec

__all__ = ["PORTION", "updates_together"]

PORTION = 2048
"""Pairs. More would let the first update wait longer; fewer would read the row groups of a large table more often, and
move a reward to the device and back more often."""


def updates_together(spec: ExperimentSpec) -> int:
    """Updates of a portion: all of them where pictures are read in storage order alone."""
    return spec.train.steps if spec.data.sequential else -(-PORTION // spec.train.batch)
