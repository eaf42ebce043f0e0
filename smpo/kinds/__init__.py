"""Kinds of components, which a spec selects, and the protocols of the live objects that they load.

*Kinds* are the base classes of components: frozen pydantic objects that are their own configuration. Light ones
(`method`: smoothing, inversion, objective) are called directly; heavy ones (`recipes`: model, data, reward) have a
`load`. *Protocols* (`live`) describe the objects that `load` returns.

Shapes: `B` pairs, `N = 2B` images (all winners, then all losers), `C H W` latent axes. Nothing here imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpo.kinds.live import Denoiser, Draws, PairTable, Predict, Predictors, ReferenceCache, Scorer
from smpo.kinds.method import DRIFT_PROMPTS, DRIFT_TIMESTEPS, HELD_TIMESTEPS, Inversion, Objective, Optimiser, Smoothing
from smpo.kinds.recipes import Model, ModelFacts, PairData, PromptSet, Pruner, Reward, Sampler
from smpo.kinds.values import (
    Conditioning,
    ObjectiveOut,
    Pair,
    PairBatch,
    Placement,
    Predicted,
    Prompt,
    Runtime,
    Sampling,
    ScoreStats,
)

if TYPE_CHECKING:
    from smpo.kinds.values import Picture as Picture

__all__ = [
    "DRIFT_PROMPTS", "DRIFT_TIMESTEPS", "HELD_TIMESTEPS", "Conditioning", "Denoiser", "Draws", "Inversion",
    "Model", "ModelFacts", "Objective", "ObjectiveOut", "Optimiser", "Pair", "PairBatch", "PairData",
    "PairTable", "Placement", "Predict", "Predicted", "Predictors", "Prompt", "PromptSet", "Pruner",
    "ReferenceCache", "Reward",
    "Runtime", "Sampler", "Sampling", "ScoreStats", "Scorer", "Smoothing",
]  # fmt: skip
