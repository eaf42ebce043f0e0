"""What is drawn for a batch: latents from the VAE's posterior, timesteps, and both for several levels of one pair.

Every draw depends on the seed and the sample's position alone, so it is the same on any number of devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from smpo.engine.forward_batches import EACH, ForwardBatches
from smpo.kinds import Draws, PairBatch
from smpo.maths.draws import PositionDraws, stratified

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "LevelDraws",
    "StepConfig",
    "inversion_cost",
    "latents_of",
    "repeat_each_level",
    "repeat_levels",
    "timesteps",
    "timesteps_of",
]


@dataclass(frozen=True)
class StepConfig:
    """The part of the spec that a single step needs."""

    seed: int
    t_min: int
    t_max: int
    """Largest timestep, inclusive."""
    posterior: bool
    """Sample latents from the VAE's posterior (True) or take its mean."""
    timesteps: int = 1
    """Timesteps of a pair, m: each gives a loss of its own, and they share one walk of the inversion."""
    strata: int | None = None
    """Pairs per update, if their timesteps are to lie one in each of as many equal parts of the range."""
    passes: ForwardBatches = EACH
    """The batches of passes without gradients."""


def timesteps(uniform: Tensor, settings: StepConfig) -> Tensor:
    """Uniform numbers in [0, 1) -> integer timesteps in t_min..t_max, both included."""
    span = settings.t_max - settings.t_min + 1
    return (settings.t_min + (uniform * span).floor()).clamp(max=settings.t_max).long()


def timesteps_of(batch: PairBatch, draws: Draws, settings: StepConfig, levels: int) -> Tensor:
    """`[2 * levels * B]`, on the CPU: the images of a pair share theirs; several levels lie evenly spread, one in each
    stratum. With `strata`, the pairs of an update are spread evenly too."""

    def drawn(name: str) -> Tensor:
        uniform = _uniform_timesteps(draws, batch.position, settings, name)
        strata = torch.arange(levels, dtype=uniform.dtype)[:, None]
        return timesteps((uniform + strata) / levels, settings).flatten()

    first = drawn("timestep")
    return torch.cat([first, first if batch.desirable is None else drawn("timestep/second")])


def inversion_cost(settings: StepConfig, positions: Sequence[int]) -> Tensor:
    """`[B]`: how far the samples at these positions have to be inverted, in any unit: their cost, for
    sharing them out."""
    draws = PositionDraws(settings.seed, positions)
    return _uniform_timesteps(draws, positions, settings, "timestep")


def _uniform_timesteps(draws: Draws, positions: Tensor | Sequence[int], settings: StepConfig, name: str) -> Tensor:
    """`[B]` in [0, 1): where in the range a sample's timestep lies."""
    uniform = draws.uniform(name)
    if settings.strata is None:
        return uniform
    return stratified(uniform, positions, settings.seed, settings.strata, name)


def repeat_levels(x: Tensor, levels: int) -> Tensor:
    """`[2B, ...] -> [2 * levels * B, ...]`: each side repeated for every level."""
    return x if levels == 1 else torch.cat([side for half in x.chunk(2) for side in [half] * levels])


def repeat_each_level(names: Sequence[str], levels: int) -> Sequence[str]:
    """The same of names."""
    half = len(names) // 2
    return [name for side in (names[:half], names[half:]) for _ in range(levels) for name in side]


class LevelDraws:
    """Draws for several levels of the same samples: a stream of its own for each."""

    def __init__(self, draws: Draws, levels: int) -> None:
        self._draws, self._levels = draws, levels
        self.positions = getattr(draws, "positions", None)

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        return torch.cat([self._draws.normal(f"{name}/{level}", shape) for level in range(self._levels)])

    def uniform(self, name: str) -> Tensor:
        return torch.cat([self._draws.uniform(f"{name}/{level}") for level in range(self._levels)])


def latents_of(batch: PairBatch, draws: Draws, settings: StepConfig) -> Tensor:
    """A draw from the VAE's posterior, or its mean; each image has its own noise."""
    if not settings.posterior:
        return batch.mean
    shape = batch.mean.shape[1:]
    noise = torch.cat([draws.normal("posterior/winner", shape), draws.normal("posterior/loser", shape)])
    return batch.mean + batch.std * noise.to(batch.mean)
